"""Nothing is half-written."""

import errno

import pytest

from map2map.errors import SaveError
from map2map.files import link, replacing


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("iostream error")])
def test_a_full_disk_leaves_the_former_file_and_no_rubbish(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("former")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(SaveError, match="unchanged"):
        write()
    assert path.read_text() == "former"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_other_errors_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="something else"), replacing(tmp_path / "a"):
        raise RuntimeError("something else")


def test_a_link_is_replaced(tmp_path):
    for name in ("state_1.pt", "state_2.pt"):
        (tmp_path / name).write_text(name)
        link(tmp_path / "checkpoint.pt", name)
    assert (tmp_path / "checkpoint.pt").read_text() == "state_2.pt"
    assert (tmp_path / "checkpoint.pt").is_symlink()
