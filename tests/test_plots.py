"""Figures show what they are given, and survive what fields may hold."""

import io

import numpy as np
import pytest

from map2map import plots

rng = np.random.default_rng(0)


def drawn(figure):
    figure.savefig(io.BytesIO(), format="png")
    return [axis for axis in figure.axes if axis.images]


def test_slices_are_the_middle_planes_whole_on_one_color_scale_per_row():
    """Map2map showed only a corner of fields of 22 to 63 cells."""
    a, b = rng.normal(size=(2, 32, 44, 63)), 3 * rng.normal(size=(2, 32, 44, 63))
    axes = drawn(plots.slices([("a", a), ("b", b)], [("b - a", b - a)]))
    assert len(axes) == 6
    for row in range(2):
        for axis, values in zip(axes[3 * row : 3 * row + 3], (a, b, b - a), strict=True):
            np.testing.assert_array_equal(axis.images[0].get_array(), values[row, 16])
        first, second, difference = (x.images[0].get_clim() for x in axes[3 * row : 3 * row + 3])
        assert first == second
        assert difference[0] == -difference[1]


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan])
@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (2, 8, 8), (1, 8)])
def test_fields_that_are_constant_or_not_finite_are_drawn_too(value, shape):
    """Map2map crashed at the end of the epoch."""
    values = np.full(shape, value)
    figure = plots.slices([("a", values)], [("zero", values - values)])
    figure.savefig(io.BytesIO(), format="png")
    plots.spectra(("a", values), [("b", values)], 1.0).savefig(io.BytesIO(), format="png")


def test_inputs_of_fewer_channels_leave_a_blank():
    figure = plots.slices([("a", rng.normal(size=(1, 4, 4))), ("b", rng.normal(size=(2, 4, 4)))])
    assert len(drawn(figure)) == 3


def test_an_input_with_its_halo_is_cut_to_the_cells_of_the_target():
    x, y = rng.normal(size=(1, 10, 12)), rng.normal(size=(1, 4, 6))
    axes = drawn(plots.slices([("input", x), ("target", y)]))
    np.testing.assert_array_equal(axes[0].images[0].get_array(), x[0, 3:7, 3:9])


def test_axes_are_in_units_of_length_if_the_cell_size_is_known():
    figure = plots.slices([("a", rng.normal(size=(1, 4, 8)))], spacing=2.0, length="Mpc/h")
    assert drawn(figure)[0].images[0].get_extent() == [0, 16, 0, 8]
    assert "Mpc/h" in drawn(figure)[0].get_xlabel()


def test_spectra_show_power_its_ratio_and_the_correlation():
    """A copy scaled by 1/2 has half the amplitude and correlates perfectly."""
    truth = rng.normal(size=(3, 12, 12, 12))
    figure = plots.spectra(("truth", truth), [("half", truth / 2)], 2.0, length="Mpc/h")
    top, ratio, correlation = figure.axes
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["truth", "half"]
    curves = [np.asarray(axis.lines[0].get_ydata()) for axis in (ratio, correlation)]
    np.testing.assert_allclose(curves[0], 0.5)
    np.testing.assert_allclose(curves[1], 1.0)
    np.testing.assert_allclose(
        np.asarray(top.lines[1].get_ydata()), np.asarray(top.lines[0].get_ydata()) / 4
    )


def test_a_learning_curve_has_a_line_per_split():
    figure = plots.history({"train": [3.0, 2.0], "val": [4.0, 3.0]})
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[3, 2], [4, 3]]


def test_single_cells_are_drawn_channel_by_channel():
    truth, output = np.arange(6.0).reshape(6, 1), np.ones((6, 1))
    figure = plots.columns([("target", truth), ("output", output)], "m/s")
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["target", "output"]
    np.testing.assert_array_equal(axis.lines[0].get_xdata(), truth[:, 0])
    np.testing.assert_array_equal(axis.lines[1].get_ydata(), np.arange(6))
    assert axis.get_xlabel() == "[m/s]"


@pytest.mark.parametrize("hole", [None, float("nan")])
def test_epochs_with_a_value_are_joined_over_those_without_and_marked(hole):
    figure = plots.history({"train": [3.0, 2.0, 1.5, 1.0], "val": [hole, 3.0, hole, 2.0]})
    train, val = figure.axes[0].lines
    assert list(train.get_xdata()) == [1, 2, 3, 4]
    assert train.get_marker() == "None"
    assert (list(val.get_xdata()), list(val.get_ydata())) == ([2, 4], [3, 2])
    assert (val.get_linestyle(), val.get_marker()) == ("-", "o")
