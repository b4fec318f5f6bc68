"""Samples against a reference that gathers cell by cell from whole arrays."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from map2map.batches import Batch, Batches
from map2map.crops import Augment, Crops, Where
from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.order import Order
from map2map.runs import Runs
from map2map.samples import SampleDataset


def write(folder, name, shape, runs=2, scale=1, seed=0):
    rng = np.random.default_rng([seed, *map(ord, name)])
    arrays = []
    for i in range(runs):
        values = rng.normal(size=(shape[0], *(scale * n for n in shape[1:]))).astype(np.float32)
        np.save(folder / f"{name}_{i}.npy", values)
        arrays.append(values)
    return arrays


@pytest.fixture
def box(tmp_path):
    """Two runs of a vector and a scalar in, a vector out, on a grid of unequal sides."""
    arrays = {
        "v": write(tmp_path, "v", (3, 6, 7, 8)),
        "rho": write(tmp_path, "rho", (1, 6, 7, 8)),
        "d": write(tmp_path, "d", (3, 6, 7, 8)),
    }
    patterns = {name: str(tmp_path / f"{name}_*.npy") for name in arrays}
    return Runs([Field("v"), Field("rho")], [Field("d")], patterns), arrays


def gather(array, start, shape):
    """Cells ``start + i`` modulo the size, one axis at a time."""
    for axis, (a, n) in enumerate(zip(start, shape, strict=True)):
        array = array.take(range(a, a + n), axis=1 + axis, mode="wrap")
    return array


def test_a_sample_is_the_crop_with_its_halo_wrapped(box):
    runs, arrays = box
    crops = Crops(size=[2, 3, 4], halo=[1, 2, 0, 3, 5, 1], target_halo=1, step=[2, 3, 4])
    dataset = SampleDataset(runs, crops)
    anchors = [(i, j, k) for i in (0, 2, 4) for j in (0, 3, 6) for k in (0, 4)]
    assert len(dataset) == 2 * len(anchors)
    for index in range(len(dataset)):
        run, (i, j, k) = divmod(index, len(anchors))[0], anchors[index % len(anchors)]
        sample = dataset.read(index)
        inputs = np.concatenate([arrays["v"][run], arrays["rho"][run]])
        expected = gather(inputs, (i - 1, j - 0, k - 5), (2 + 3, 3 + 3, 4 + 6))
        np.testing.assert_array_equal(sample.input, expected)
        expected = gather(arrays["d"][run], (i - 1, j - 1, k - 1), (4, 5, 6))
        np.testing.assert_array_equal(sample.target, expected)


def turned(array, flips, axes, vectors):
    """Reverse axes and components, then reorder both, as map2map specifies it."""
    array = array.copy()
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, 1 + axis)
            for first in vectors:
                array = (
                    array
                    * np.where(np.arange(len(array)) == first + axis, -1, 1)[:, None, None, None]
                )
    array = array.transpose(0, *(1 + a for a in axes))
    order = np.arange(len(array))
    for first in vectors:
        order[first : first + 3] = [first + a for a in axes]
    return array[order]


@pytest.mark.parametrize("epoch", range(12))
def test_a_symmetry_turns_input_and_target_alike_also_with_uneven_halos(box, epoch):
    """Map2map misaligned input and target in half of such samples."""
    runs, arrays = box
    crops = Crops(size=[2, 3, 4], halo=[1, 2, 0, 3, 5, 1], target_halo=[0, 1, 2, 0, 1, 1])
    augment = Augment(symmetries="all", shift=[6, 7, 8])
    dataset = SampleDataset(runs, crops, augment, seed=5)
    index = 3 * epoch % len(dataset)
    batch = Batch(dataset, [index])
    batch.fill(0, epoch)
    x, y = (side[0].numpy() for side in batch.settle())
    assert x.shape == (4, 2 + 3, 3 + 3, 4 + 6)
    draw = batch.draws[0]
    flips, axes = draw.symmetry.flips, draw.symmetry.axes
    anchor = np.add(dataset.anchor(index), draw.shift)
    # turn the whole field, find where the crop's first cell went, and cut there
    n = np.array([6, 7, 8])
    back = np.argsort(axes)
    size = np.array([2, 3, 4])[back]
    corner = np.array(
        [
            (m - 1) - (a + s - 1) if flip else a
            for a, s, m, flip in zip(anchor, size, n, flips, strict=True)
        ]
    )[list(axes)]
    run = index // dataset.ncrop
    inputs = np.concatenate([arrays["v"][run], arrays["rho"][run]])
    whole = turned(inputs, flips, axes, vectors=[0])
    expected = gather(whole, corner - [1, 0, 5], x.shape[1:])
    np.testing.assert_array_equal(x, expected)
    expected = gather(turned(arrays["d"][run], flips, axes, [0]), corner - [0, 2, 1], y.shape[1:])
    np.testing.assert_array_equal(y, expected)


def test_a_stack_of_scalars_is_not_a_vector_if_declared_so(tmp_path):
    write(tmp_path, "a", (2, 4, 4), runs=1)
    pattern = {"a": str(tmp_path / "a_*.npy"), "b": str(tmp_path / "a_*.npy")}
    runs = Runs([Field("a", kind="scalar")], [Field("b", kind="vector")], pattern)
    dataset = SampleDataset(runs, Crops(halo=0), Augment(symmetries=[0]))
    seen = set()
    for epoch in range(8):
        batch = Batch(dataset, [0])
        batch.fill(0, epoch)
        x, y = (side[0] for side in batch.settle())
        assert torch.equal(x[1], y[1])
        seen.add(bool(torch.equal(x[0], -y[0])))
    assert seen == {True, False}


def test_draws_are_keyed_by_seed_epoch_and_sample_and_anchors_do_not_drift(box):
    """Map2map's anchors walked at random from epoch to epoch."""
    runs, _ = box
    dataset = SampleDataset(runs, Crops(halo=0, size=2), Augment(shift=3, symmetries="all"))
    before = [dataset.anchor(i) for i in range(len(dataset))]
    first = [dataset.draw(4, epoch) for epoch in range(40)]
    again = [dataset.draw(4, epoch) for epoch in reversed(range(40))][::-1]
    assert first == again
    assert len(set(first)) > 10
    assert {s for draw in first for s in draw.shift} == {0, 1, 2}
    for i in range(len(dataset)):
        dataset.read(i, epoch=i)
    assert [dataset.anchor(i) for i in range(len(dataset))] == before
    other = SampleDataset(runs, Crops(halo=0, size=2), Augment(shift=3, symmetries="all"), seed=1)
    assert [other.draw(4, epoch) for epoch in range(40)] != first


def test_numbers_to_add_and_multiply_have_the_declared_spread(tmp_path):
    write(tmp_path, "a", (2, 4), runs=1)
    patterns = {"a": str(tmp_path / "a_*.npy"), "b": str(tmp_path / "a_*.npy")}
    runs = Runs([Field("a")], [Field("b")], patterns)
    dataset = SampleDataset(runs, Crops(halo=0), Augment(add=0.5, mul=0.1))
    draws = [dataset.draw(0, epoch) for epoch in range(4000)]
    add, mul = np.array([d.add for d in draws]), np.array([d.mul for d in draws])
    assert add.shape == mul.shape == (4000, 2)
    np.testing.assert_allclose(add.std(axis=0), 0.5, rtol=0.05)
    np.testing.assert_allclose(np.log(mul).std(axis=0), 0.1, rtol=0.05)
    np.testing.assert_allclose([add.mean(), np.log(mul).mean()], 0, atol=0.02)


def test_noise_needs_fields_of_equally_many_channels(box):
    with pytest.raises(FieldError, match="equally many channels"):
        SampleDataset(box[0], Crops(halo=0), Augment(add=0.1))


@given(st.integers(1, 3), st.integers(0, 2), st.integers(-3, 9))
def test_targets_on_a_finer_grid_cover_the_same_box(factor, halo, anchor):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, "x", (1, 8), runs=1)
        fine = write(folder, "y", (1, 8), runs=1, scale=factor)[0]
        patterns = {n: str(folder / f"{n}_*.npy") for n in "xy"}
        runs = Runs([Field("x")], [Field("y")], patterns, scale_factor=factor)
        crops = Crops(size=4, start=anchor, stop=anchor + 1, halo=0, target_halo=halo,
                      scale_factor=factor)  # fmt: skip
        dataset = SampleDataset(runs, crops)
        expected = gather(fine, (factor * anchor - halo,), (factor * 4 + 2 * halo,))
        np.testing.assert_array_equal(dataset.read(0).target, expected)


def test_without_periodic_edges_crops_stay_inside_and_nothing_is_lost(tmp_path):
    values = write(tmp_path, "a", (1, 10), runs=1)[0]
    patterns = {"a": str(tmp_path / "a_*.npy"), "b": str(tmp_path / "a_*.npy")}
    runs = Runs([Field("a")], [Field("b")], patterns)
    dataset = SampleDataset(runs, Crops(size=3, halo=1), Augment(shift=5), Domain(periodic=False))
    seen = set()
    for i in range(len(dataset)):
        sample = dataset.read(i)
        seen |= set(sample.target.ravel().tolist())
        for epoch in range(20):
            dataset.read(i, epoch)
    assert seen == set(values[0, 1:-1].tolist())


def test_what_lies_beyond_an_edge_is_made_up_only_if_declared(tmp_path):
    values = write(tmp_path, "a", (1, 6), runs=1)[0]
    patterns = {"a": str(tmp_path / "a_*.npy"), "b": str(tmp_path / "a_*.npy")}
    runs = Runs([Field("a")], [Field("b")], patterns)
    dataset = SampleDataset(runs, Crops(halo=2), domain=Domain(periodic=False, pad="reflect"))
    np.testing.assert_array_equal(
        dataset.read(0).input, np.pad(values, ((0, 0), (2, 2)), mode="reflect")
    )
    with pytest.raises(GeometryError, match="not periodic, too few"):
        SampleDataset(runs, Crops(halo=2), domain=Domain(periodic=False))


@pytest.mark.parametrize("pad", ["refuse", "reflect", "edge", "zero"])
def test_a_target_is_never_made_up(tmp_path, pad):
    """Only the input's halo is; crops stay inside, all cells are learnt, whatever the shift."""
    values = 1 + np.arange(20.0, dtype=np.float32)[None]
    np.save(tmp_path / "a_0.npy", values)
    patterns = {"a": str(tmp_path / "a_*.npy"), "b": str(tmp_path / "a_*.npy")}
    runs = Runs([Field("a")], [Field("b")], patterns)
    crops = Crops(size=8, halo=0 if pad == "refuse" else 3)
    domain = Domain(periodic=False, pad=pad)
    dataset = SampleDataset(runs, crops, Augment(shift=20), domain)
    seen = set()
    for i in range(len(dataset)):
        for epoch in (None, *range(30)):
            target = dataset.read(i, epoch).target[0]
            np.testing.assert_array_equal(np.diff(target), 1)
            seen |= set(target.tolist()) if epoch is None else set()
    assert seen == set(values[0].tolist())


def test_a_nan_is_refused_with_its_place_or_let_through(box, tmp_path):
    runs, _ = box
    path = tmp_path / "d_1.npy"
    values = np.load(path)
    values[2, 5, 0, 7] = np.nan
    values[1, 5, 1, 7] = np.inf
    np.save(path, values)
    dataset = SampleDataset(runs, Crops(size=[2, 7, 8], halo=0))
    dataset.read(0)
    with pytest.raises(FieldError, match=r"d_1.npy holds 2 NaN.*channel 1, cell \[5, 1, 7\]"):
        dataset.read(5)
    allowed = SampleDataset(runs, Crops(size=[2, 7, 8], halo=0), allow_nonfinite=True)
    assert np.isfinite(allowed.read(5).target).sum() == 3 * 2 * 7 * 8 - 2


@pytest.mark.parametrize("pad", ["refuse", "reflect"])
def test_fields_in_memory_give_the_samples_that_files_give(tmp_path, pad):
    write(tmp_path, "v", (3, 8, 9), seed=1)
    write(tmp_path, "rho", (1, 16, 18), seed=2)
    patterns = {"v": str(tmp_path / "v*.npy"), "rho": str(tmp_path / "rho*.npy")}
    domain = Domain(2, [True, False], pad)

    def dataset(in_memory):
        runs = Runs([Field("v", kind="scalar")], [Field("rho")], patterns, domain, scale_factor=2)
        halo = [2, 1, 0, 0] if pad == "refuse" else [2, 1, 2, 0]
        crops = Crops(4, halo=halo, scale_factor=2)
        return SampleDataset(runs, crops, Augment("flips", shift=3), domain, in_memory=in_memory)

    # 3 channels of 8 x 9 cells, and 1 of 16 x 18, of two runs
    size = 2 * 4 * (3 * 8 * 9 + 16 * 18)
    from_files, too_small, kept = dataset(0), dataset(size - 1), dataset(size)
    expected = [[d.read(i, epoch) for i in range(len(d))] for epoch in (0, 1) for d in [from_files]]
    for epoch, samples in enumerate(expected):
        for i, sample in enumerate(samples):
            for other in (too_small, kept):
                mine = other.read(i, epoch)
                np.testing.assert_array_equal(mine.input, sample.input)
                np.testing.assert_array_equal(mine.target, sample.target)
    for path in tmp_path.glob("v*.npy"):  # memory maps see this, memory does not
        np.load(path, mmap_mode="r+")[:] = 0
    assert not too_small.read(0).input.any()
    np.testing.assert_array_equal(kept.read(0, 0).input, expected[0][0].input)


@pytest.mark.parametrize(
    ("crops", "match"),
    [
        (Crops(size=[2, 8, 2], halo=0), "no larger than the field"),
        (Crops(size=0, halo=0), "at least one"),
        (Crops(step=0, halo=0), "crop_step"),
        (Crops(halo=[1, 2]), "a halo on 3 axes"),
        (Crops(size=2, halo=-1), "holds no cell"),
        (Crops(size=[2, 2], halo=0), "`crop` has 2 values"),
        (Crops(), "still 'auto'"),
    ],
)
def test_crops_that_do_not_fit_are_refused(box, crops, match):
    with pytest.raises(GeometryError, match=match):
        SampleDataset(box[0], crops)


def test_impossible_variations_are_refused(box):
    with pytest.raises(RecipeError, match="deviation"):
        Augment(add=-1.0)
    with pytest.raises(RecipeError, match="shift"):
        SampleDataset(box[0], Crops(halo=0), Augment(shift=-1))
    with pytest.raises(GeometryError, match="scale factor"):
        Crops(scale_factor=0)


def test_there_is_no_sample_beyond_the_last(box):
    dataset = SampleDataset(box[0], Crops(halo=0))
    with pytest.raises(IndexError):
        dataset.read(len(dataset))


@pytest.fixture
def islands(tmp_path):
    """Runs of unequal shape; ``h`` is above 1 on an island, and nowhere in the last run."""
    shapes, arrays = [(12, 9), (7, 10), (8, 8)], []
    for k, shape in enumerate(shapes):
        h = np.random.default_rng(k).uniform(0, 1, shape).astype(np.float32)
        if k < 2:
            h[2:6, 3:7] += 1.5
        np.save(tmp_path / f"h_{k}.npy", h)
        np.save(tmp_path / f"u_{k}.npy", -h)
        arrays.append(h)
    patterns = {name: str(tmp_path / f"{name}_*.npy") for name in "hu"}
    domain = Domain(2, periodic=False, same_shape=False)
    return Runs([Field("h")], [Field("u")], patterns, domain), domain, arrays


def test_runs_of_unequal_shape_have_crops_of_their_own(islands):
    runs, domain, arrays = islands
    dataset = SampleDataset(runs, Crops(size=4, halo=0), domain=domain)
    counts = [3 * 3, 2 * 3, 2 * 2]
    assert [layout.count for layout in dataset.layouts] == counts
    assert dataset.ncrop is None
    seen = [np.zeros(h.shape) for h in arrays]
    for index in range(len(dataset)):
        sample = dataset.read(index)
        seen[sample.run][sample.crop.slices] += 1
        np.testing.assert_array_equal(sample.input[0], arrays[sample.run][sample.crop.slices])
        np.testing.assert_array_equal(sample.target, -sample.input)
    assert len(dataset) == sum(counts)
    assert all((cells > 0).all() for cells in seen)
    order = Batches(dataset, Order(), 5, vary=True)
    assert sorted(i for batch in order for i in batch.indices) == list(range(len(dataset)))
    with pytest.raises(RecipeError, match="local only if all runs have as many crops"):
        len(Batches(dataset, Order(local=True), 5))


def test_crops_are_drawn_where_their_middle_is_of_interest(islands):
    runs, domain, arrays = islands
    crops = Crops(size=[3, 4], halo=0, where=Where("h", above=1.0))
    dataset = SampleDataset(runs, crops, Augment("none"), domain, seed=3)
    # as many as would tile the grid; none in the run without an island
    assert [layout.count for layout in dataset.layouts] == [4 * 3, 3 * 3, 0]
    middles = [set(), set()]
    for epoch in range(30):
        for index in range(len(dataset)):
            sample = dataset.read(index, epoch)
            middle = tuple(a + n // 2 for a, n in zip(sample.crop.start, (3, 4), strict=True))
            assert arrays[sample.run][middle] > 1
            middles[sample.run].add(middle)
    for run in range(2):
        h = arrays[run]
        inside = {
            (i, j)
            for i, j in zip(*np.nonzero(h > 1), strict=True)
            if 1 <= i <= h.shape[0] - 2 and 2 <= j <= h.shape[1] - 2
        }
        # the whole island in the course of time, and the same crop for the same epoch
        assert middles[run] == inside
    same = [dataset.read(0, 7).crop for _ in range(2)]
    assert same[0] == same[1]
    still = {dataset.read(index).crop for index in range(len(dataset))}
    assert len(still) > len(dataset) // 2


def test_crops_of_interest_are_refused_where_there_are_none(islands):
    runs, domain, _ = islands
    with pytest.raises(FieldError, match=r"no crop of .* has a middle where 'h' is above 9"):
        SampleDataset(runs, Crops(size=3, halo=0, where=Where("h", above=9)), domain=domain)
    with pytest.raises(FieldError, match="not 'H'; did you mean 'h'"):
        SampleDataset(runs, Crops(size=3, halo=0, where=Where("H")), domain=domain)
    with pytest.raises(RecipeError, match="either on a lattice"):
        Crops(size=3, start=1, where=Where("h"))
