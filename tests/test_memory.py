"""Freed memory is kept: writing to as large an array again makes no new page faults."""

import platform
import subprocess
import sys
import textwrap

import pytest

CODE = """
    import resource, sys
    import numpy as np
    from map2map.memory import keep_freed_memory

    if sys.argv[1] == "keep":
        assert keep_freed_memory()

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            np.ones(1 << 22)  # 32 MiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_tensors_of_a_step_reuse_the_memory_of_those_before():
    found = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", textwrap.dedent(CODE), how],
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for how in ("keep", "default")
    }  # fmt: skip
    # 16 huge pages per array, or 8192 small ones
    assert found["keep"] < 100
    assert found["default"] > 300
