"""Windows remembered where they lie in memory: what they hold is what files hold, today."""

import h5py
import numpy as np
import pytest

from map2map import kept
from map2map.crops import Augment, Crops
from map2map.fields import Field
from map2map.grids import Domain
from map2map.patterns import Files
from map2map.runs import Runs
from map2map.samples import SampleDataset

RNG = np.random.default_rng(5)


def contiguous(path, values, dtype):
    with h5py.File(path, "w") as file:
        file["phi"] = values.astype(dtype)


def chunked(path, values, dtype):
    with h5py.File(path, "w") as file:
        file.create_dataset("phi", data=values.astype(dtype), chunks=True)


def npy(path, values, dtype):
    np.save(path, values.astype(dtype))


def fortran(path, values, dtype):
    np.save(path, np.asfortranarray(values.astype(dtype)))


@pytest.mark.parametrize("in_memory", [0, "1GiB"])
@pytest.mark.parametrize("dtype", ["f4", ">f4", "f8", "i2"])
@pytest.mark.parametrize(
    ("write", "name"),
    [(contiguous, "a.h5"), (chunked, "a.h5"), (npy, "a.npy"), (fortran, "a.npy")],
)
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_samples_read_again_are_the_same(tmp_path, write, name, dtype, leading, in_memory):
    values = RNG.integers(-9, 9, (*leading, 8, 9))
    write(tmp_path / name, values, dtype)
    channels = values.reshape(-1, 8, 9)
    runs = Runs(
        [Field("phi", kind="scalar")],
        [Field("phi", kind="scalar")],
        {"phi": str(tmp_path / name)},
        Domain(2),
    )
    crops = Crops(4, halo=[1, 0], step=[4, 3])
    dataset = SampleDataset(runs, crops, Augment(shift=2), in_memory=in_memory)
    for epoch in (None, None, 0, 0, 1):  # the second time from where they were found
        for i in range(len(dataset)):
            sample = dataset.read(i, epoch)
            rows, columns = (
                np.arange(a, b) % n
                for a, b, n in zip(sample.crop.start, sample.crop.stop, (8, 9), strict=True)
            )
            np.testing.assert_array_equal(sample.target, channels[:, rows][:, :, columns])
            wide = np.arange(rows[0] - 1, rows[0] + 5) % 8
            np.testing.assert_array_equal(sample.input, channels[:, wide][:, :, columns])


def test_frames_and_planes_are_remembered_apart(tmp_path):
    values = RNG.normal(size=(3, 4, 5, 6)).astype("f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["phi"] = values
    one, domain = [Field("phi")], Domain(2, frames=1, planes=[0], periodic=True)
    dataset = SampleDataset(Runs(one, one, {"phi": str(tmp_path / "a.h5")}, domain), Crops(halo=0))
    for _ in range(2):
        for i in range(len(dataset)):
            frame, plane = divmod(i, 4)
            np.testing.assert_array_equal(dataset.read(i).input[0], values[frame, plane])


def test_a_file_that_is_replaced_is_read_anew(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    contiguous(path, np.full((4, 4), 1), "f4")
    one = [Field("phi")]
    dataset = SampleDataset(Runs(one, one, {"phi": Files(str(path))}, Domain(2)), Crops(halo=0))
    monkeypatch.setattr(kept, "AGE", -1.0)
    assert [dataset.read(0).input.max() for _ in range(2)] == [1, 1]
    contiguous(tmp_path / "b.h5", np.full((4, 4), 2), "f4")
    (tmp_path / "b.h5").replace(path)
    assert [dataset.read(0).input.max() for _ in range(2)] == [2, 2]


def test_windows_that_are_put_together_are_not_remembered(tmp_path):
    contiguous(tmp_path / "a.h5", RNG.normal(size=(8, 8)), "f4")
    one = [Field("phi")]
    runs = Runs(one, one, {"phi": str(tmp_path / "a.h5")}, Domain(2))
    views = kept.Views(runs, None, most=1)
    out, grid = np.empty((1, 4, 4), np.float32), Domain(2).grid((8, 8))
    window = kept.Window((6, 0), (10, 4))
    views.remember(0, 0, window, grid)
    assert not views.copy(0, 0, window, out), "it wraps"
    for start, held in (((4, 4), True), ((0, 0), False)):  # one is the most
        window = kept.Window(start, tuple(n + 4 for n in start))
        views.remember(0, 0, window, grid)
        assert views.copy(0, 0, window, out) is held
