"""Settings of all tests."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # as many processes as cores: each, and what it starts, takes one
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

settings.register_profile("map2map", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("map2map")


def pytest_collection_modifyitems(config, items):
    """Slow tests run only when asked for by ``-m slow``."""
    if "slow" not in config.getoption("-m"):
        skip = pytest.mark.skip(reason="takes minutes; run with -m slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data, or a skip that says where it was looked for."""
    if not REAL.is_dir():
        pytest.skip(f"no real data at {REAL}")
    return REAL


@pytest.fixture
def m2m(tmp_path, monkeypatch, capsys):
    """Runs ``m2m`` in an empty folder, in this process: exit status, stdout and stderr."""
    from map2map.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*argv: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in argv])
        except SystemExit as leave:
            status = int(leave.code or 0)
        return status, *capsys.readouterr()

    return run
