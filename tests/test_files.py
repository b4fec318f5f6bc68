"""Nothing is half-written."""

import errno

import pytest

from map2map.errors import SaveError
from map2map.files import link, refuse_existing, replacing


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


def test_files_that_are_there_are_refused_by_name_unless_they_may_be_replaced(tmp_path):
    files = [tmp_path / f"{name}.nc" for name in "abcde"]
    refuse_existing(files, overwrite=False)
    files[1].touch()
    files[4].mkdir()
    with pytest.raises(SaveError) as refused:
        refuse_existing(files, overwrite=False, choose="another seed")
    assert str(refused.value) == (
        f"{files[1]}, {files[4]} would be replaced; choose another seed, or allow to overwrite"
    )
    refuse_existing(files, overwrite=True)
    for path in (files[0], files[2]):
        path.touch()
    with pytest.raises(SaveError, match=r"c.nc, … would be replaced; choose another folder, or"):
        refuse_existing(iter(files), overwrite=False)
