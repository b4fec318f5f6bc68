"""Laws of windows, against plain modular indexing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from map2map.errors import GeometryError
from map2map.grids import Grid
from map2map.windows import Halo, Window, anchors, bounds, crop_window, per_axis, pieces

NUMPY_MODES = {"periodic": "wrap", "reflect": "reflect", "edge": "edge", "zero": "constant"}


def read(values, window, grid):
    """A window as the sources read it: piece by piece."""
    out = np.full(window.shape, np.nan)
    for piece in pieces(window, grid):
        block = 0.0 if piece.is_zero else np.flip(values[piece.source], piece.reverse)
        assert np.isnan(out[piece.target]).all(), "a cell is written twice"
        out[piece.target] = block
    return out


@st.composite
def windows(draw):
    ndim = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 6)) for _ in range(ndim))
    start = tuple(draw(st.integers(-15, 15)) for _ in range(ndim))
    size = tuple(draw(st.integers(1, 14)) for _ in range(ndim))
    return shape, Window(start, tuple(a + n for a, n in zip(start, size, strict=True)))


@given(windows(), st.sampled_from(["periodic", "reflect", "edge", "zero"]))
def test_every_window_equals_the_slice_of_a_field_padded_by_numpy(case, beyond):
    shape, window = case
    values = np.random.default_rng(0).normal(size=shape)
    periodic = beyond == "periodic"
    grid = Grid(shape, periodic=periodic, pad="refuse" if periodic else beyond)
    around = 32
    padded = np.pad(values, around, mode=NUMPY_MODES[beyond])
    inside = tuple(
        slice(a + around, b + around) for a, b in zip(window.start, window.stop, strict=True)
    )
    np.testing.assert_array_equal(read(values, window, grid), padded[inside])


@given(windows())
def test_a_window_no_larger_than_a_periodic_grid_is_at_most_two_slices_per_axis(case):
    shape, window = case
    stop = tuple(a + min(n, m) for a, n, m in zip(window.start, window.shape, shape, strict=True))
    assert len(pieces(Window(window.start, stop), Grid(shape))) <= 2 ** len(shape)


def test_beyond_an_edge_that_is_not_periodic_nothing_is_made_up_unasked():
    grid = Grid((4, 4), periodic=(True, False))
    assert len(pieces(Window((-1, 0), (3, 4)), grid)) == 2
    with pytest.raises(GeometryError, match="not periodic"):
        pieces(Window((0, -1), (4, 3)), grid)


@pytest.mark.parametrize(
    ("value", "ndim", "low", "high"),
    [
        (2, 3, (2, 2, 2), (2, 2, 2)),
        ((1, 2), 2, (1, 2), (1, 2)),
        ((1, 2), 1, (1,), (2,)),
        ((1, 2, 3, 4), 2, (1, 3), (2, 4)),
        ([-1, 0], 2, (-1, 0), (-1, 0)),
    ],
)
def test_the_three_formats_of_a_halo(value, ndim, low, high):
    assert Halo.parse(value, ndim) == Halo(low, high)


@pytest.mark.parametrize("value", [(1, 2, 3), (1,) * 5, (0.5, 1), "12"])
def test_another_format_of_a_halo_is_refused(value):
    with pytest.raises(GeometryError, match="halo"):
        Halo.parse(value, 2)


def test_a_negative_halo_must_leave_something():
    with pytest.raises(GeometryError, match="holds no cell"):
        Window((0,), (4,)).grow(Halo.parse(-2, 1))


def test_anchors_are_numpy_ranges_and_refuse_a_step_of_zero():
    axes = anchors((0, 5), (7, -1), (3, -2), (9, 9))
    assert [list(a) for a in axes] == [[0, 3, 6], [5, 3, 1]]
    assert [list(a) for a in anchors((0,), None, (3,), (9,))] == [[0, 3, 6]]
    with pytest.raises(GeometryError, match="crop_step"):
        anchors((0,), (4,), (0,), (9,))
    with pytest.raises(GeometryError, match="no crop starts"):
        anchors((4,), (4,), (1,), (9,))


@given(st.integers(1, 5), st.integers(0, 3), st.integers(0, 3), st.integers(1, 6))
def test_anchors_within_bounds_read_only_what_is_there_and_lose_nothing(crop, low, high, step):
    grid = Grid((12,), periodic=False)
    halo = Halo((low,), (high,))
    within = bounds(grid, (crop,), halo)
    (cells,) = anchors((0,), None, (min(step, crop),), (12,), within)
    assert min(cells) - low >= 0
    assert max(cells) + crop + high <= 12
    covered = {a + i for a in cells for i in range(crop)}
    assert covered == set(range(low, 12 - high))


def test_a_crop_that_a_symmetry_may_turn_fits_either_way():
    grid = Grid((12, 12), periodic=False)
    halo = Halo((1, 0), (2, 0))
    assert bounds(grid, (3, 5), halo) == ((1, 7), (0, 7))
    assert bounds(grid, (3, 5), halo, flips=True) == ((2, 7), (0, 7))
    assert bounds(grid, (3, 5), halo, permute=True) == ((1, 5), (1, 5))
    assert bounds(Grid((12, 12)), (3, 5), halo) == (None, None)


def test_values_per_axis_broadcast_or_are_refused_by_name():
    assert per_axis(3, (9, 9), "crop") == (3, 3)
    assert per_axis(None, (9, 8), "crop") == (9, 8)
    with pytest.raises(GeometryError, match="`crop` has 3 values"):
        per_axis((1, 2, 3), (9, 9), "crop")


@given(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_a_crop_read_for_a_symmetry_holds_crop_and_halo_where_they_belong(axes, flips):
    """After the symmetry, cutting the halo off leaves exactly the crop, whatever its sides."""
    crop, halo = (2, 3, 4), Halo((1, 0, 2), (0, 3, 1))
    window = crop_window((5, 6, 7), crop, halo, tuple(axes), flips)
    cells = np.stack(
        np.meshgrid(
            *[np.arange(a, b) for a, b in zip(window.start, window.stop, strict=True)],
            indexing="ij",
        )
    )
    turned = np.flip(cells, [1 + i for i in range(3) if flips[i]])
    turned = turned.transpose(0, *(1 + a for a in axes))
    inner = turned[
        :, *(slice(a, n - b) for a, b, n in zip(halo.low, halo.high, turned.shape[1:], strict=True))
    ]
    assert inner.shape[1:] == crop
    assert inner.min(axis=(1, 2, 3)).tolist() == [5, 6, 7]
