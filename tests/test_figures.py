"""The numbers behind every figure against loops over cells, and what is drawn of them."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import LogNorm

from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.fields import Field
from map2map.figures import (
    Boxplot,
    Case,
    CrossSection,
    Dispersion,
    Histogram,
    Histogram2d,
    LayerProfile,
    Profiles,
    Samples,
)
from map2map.figures.base import Levels
from map2map.inks import PAPER, tint

FLAME = Field("sigma", "1/m", "scalar", 1)
DRAG = Field("drag", "m s-2", "scalar", 6)
METHODS = ("emulator", "none", "mean")


def cases(field=FLAME, space=(6, 3, 5), runs=3, masked=True, sizes=None):
    """Runs on a grid that is no cube, of which some cells do not count."""
    rng = np.random.default_rng(0)
    found = []
    for run in range(runs):
        truth = rng.gamma(1.5, size=(field.channels, *space)).astype(np.float32) * 2**run - 1
        made = {
            "emulator": (truth + 0.1 * rng.normal(size=truth.shape)).astype(np.float32),
            "mean": np.broadcast_to(truth.mean(), truth.shape),
        }
        counts = np.ones(space, bool)
        if masked:
            counts = rng.random(space) < 0.8
            truth[:, ~counts] = np.nan
            made["emulator"][:, ~counts] = 1e9
        found.append(Case(field, f"run {run}", truth, made, counts, METHODS, sizes))
    return found


def pairs(method, given):
    """True and predicted values, one after another."""
    for case in given:
        prediction = case.predictions[method]
        for channel, *cell in np.ndindex(case.truth.shape):
            if case.counts[*cell]:
                yield float(case.truth[channel, *cell]), float(prediction[channel, *cell])


def taken_in(figure, given):
    for case in given:
        figure.add(case)
    return figure


# --- numbers -------------------------------------------------------------------------------------


def test_the_dispersion_is_mean_and_deviation_of_errors_by_bin_of_the_truth():
    given = cases()
    figure = taken_in(Dispersion(bins=7), given)
    for method in ("emulator", "mean"):
        edges, count, mean, deviation = figure.curves(method)
        truth = np.array([t for t, _ in pairs(method, given)])
        # over the data's own range
        assert edges[0] <= truth.min() < edges[1]
        assert edges[-2] <= truth.max() < edges[-1]
        assert 4 <= len(count) <= 7
        for i in range(len(count)):
            errors = [abs(p - t) for t, p in pairs(method, given) if edges[i] <= t < edges[i + 1]]
            assert count[i] == len(errors)
            if errors:
                assert mean[i] == pytest.approx(np.mean(errors), rel=1e-6)
                assert deviation[i] == pytest.approx(np.std(errors), rel=1e-5, abs=1e-7)
    assert figure.curves("mean")[2][-1] > 1


def test_histograms_count_values_of_truth_and_predictions_on_the_same_bins():
    given = cases()
    figure = taken_in(Histogram(bins=9), given)
    for method in (None, "emulator", "mean"):
        edges, counts = figure.counts(method)
        of = [t if method is None else p for t, p in pairs(method or "emulator", given)]
        expected = [sum(a <= x < b for x in of) for a, b in pairwise(edges)]
        assert counts.tolist() == expected
        assert sum(expected) == len(of)


def test_histograms_of_two_dimensions_count_pairs_truth_first():
    given = cases()
    figure = taken_in(Histogram2d(bins=8), given)
    for method in ("emulator", "mean"):
        edges, counts = figure.counts(method)
        expected = np.zeros((len(edges) - 1,) * 2, int)
        for pair in pairs(method, given):
            expected[tuple(max(i for i, e in enumerate(edges[:-1]) if e <= x) for x in pair)] += 1
        np.testing.assert_array_equal(counts, expected)
    assert (counts != counts.T).any()


def test_boxes_are_percentiles_and_mean_of_the_errors_of_each_run():
    given = cases()
    figure = taken_in(Boxplot(), given)
    for method in ("emulator", "mean"):
        for box, case in zip(figure.boxes(method), given, strict=True):
            errors = [abs(p - t) for t, p in pairs(method, [case])]
            expected = [*np.percentile(errors, [5, 25, 50, 75, 95]), np.mean(errors)]
            np.testing.assert_allclose(box, expected, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sizes", [None, (0.5, 2.0, 3.0)])
def test_layer_profiles_sum_up_each_layer_of_a_grid_that_is_no_cube(axis, sizes):
    given = cases(sizes=sizes)
    figure = taken_in(LayerProfile(axis), given)
    area = np.prod([s for i, s in enumerate(sizes) if i != axis]) if sizes else 1
    sums = {name: np.zeros((3, (6, 3, 5)[axis])) for name in (None, "emulator")}
    for run, case in enumerate(given):
        for cell in np.ndindex(*case.space):
            if case.counts[cell]:
                sums[None][run, cell[axis]] += case.truth[0][cell] * area
                sums["emulator"][run, cell[axis]] += case.predictions["emulator"][0][cell] * area
    for name, expected in sums.items():
        np.testing.assert_allclose(figure.profile(name)[0], expected.mean(axis=0), rtol=1e-6)
    mean, low, high = figure.difference("emulator")
    gaps = sums["emulator"] - sums[None]
    np.testing.assert_allclose(mean[0], gaps.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(low[0], gaps.min(axis=0), atol=1e-4)
    np.testing.assert_allclose(high[0], gaps.max(axis=0), atol=1e-4)


@pytest.mark.parametrize("space", [(40,), (5, 8)])
def test_profiles_are_scores_of_each_level_over_all_cells_of_all_runs(space):
    given = cases(DRAG, space)
    figure = taken_in(Profiles(), given)
    bias, mae, rmse = figure.scores("emulator")
    for level in range(6):
        errors = np.concatenate(
            [
                (c.predictions["emulator"][level].astype(float) - c.truth[level])[c.counts]
                for c in given
            ]
        )
        assert bias[level] == pytest.approx(errors.mean(), rel=1e-6)
        assert mae[level] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
        assert rmse[level] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)
        expected = np.percentile(errors, [5, 25, 75, 95])
        np.testing.assert_allclose(figure.bands("emulator")[:, level], expected, rtol=0.05)


def test_columns_are_drawn_from_all_runs_alike_and_only_where_cells_count():
    seen = np.zeros((2, 12), int)
    rng = np.random.default_rng(1)
    truth = [rng.normal(size=(6, 12)).astype(np.float32) for _ in range(2)]
    counts = np.arange(12) % 3 > 0
    for seed in range(400):
        figure = Samples(columns=3, seed=seed)
        for run in range(2):
            figure.add(Case(DRAG, str(run), truth[run], {"emulator": -truth[run]}, counts, METHODS))
        assert len({(c.run, c.cell) for _, c in figure.drawn}) == 3
        for _, column in figure.drawn:
            (cell,) = column.cell
            seen[int(column.run), cell] += 1
            np.testing.assert_array_equal(column.truth, truth[int(column.run)][:, cell])
            np.testing.assert_array_equal(column.predictions["emulator"], -column.truth)
    assert (seen[:, ~counts] == 0).all()
    # 1200 draws of 16 cells: 75 each, with a deviation of about 8
    assert 45 < seen[:, counts].min() <= seen[:, counts].max() < 105
    assert abs(seen[0].sum() - 600) < 80


def test_the_same_seed_draws_the_same_columns():
    one, same, other = (
        taken_in(Samples(seed=seed), cases(DRAG, (5, 8))).drawn for seed in (1, 1, 2)
    )
    assert [c.cell for _, c in one] == [c.cell for _, c in same] != [c.cell for _, c in other]


@pytest.mark.parametrize(("axis", "index"), [(0, None), (1, 0), (2, -1), (1, 2)])
def test_a_cross_section_is_the_plane_that_was_asked_for(axis, index):
    given = cases(masked=False)
    plane = taken_in(CrossSection(axis, index), given).planes[""]
    place = (6, 3, 5)[axis] // 2 if index is None else index
    chosen = tuple(place if i == axis else slice(None) for i in range(3))
    np.testing.assert_array_equal(plane.truth, given[0].truth[0][chosen])
    np.testing.assert_array_equal(
        plane.predictions["mean"], given[0].predictions["mean"][0][chosen]
    )
    assert plane.run == "run 0"
    others = [i for i in range(3) if i != axis]
    assert [name.split(" [")[0] for name in plane.axes] == [f"axis {i}" for i in others]


# --- what is drawn -------------------------------------------------------------------------------


def test_a_cross_section_has_a_common_scale_and_a_difference_about_zero():
    given = cases(sizes=(1.0, 2.0, 3.0))
    figure = taken_in(CrossSection(axis=1), given).draw(FLAME, PAPER)[""]
    images = [axis.images[0] for axis in figure.axes if axis.images]
    assert [image.axes.get_title() for image in images] == [
        "truth", "emulator", "mean", "emulator - truth", "mean - truth"
    ]  # fmt: skip
    assert len({image.get_clim() for image in images[:3]}) == 1
    low, high = images[3].get_clim()
    assert low == -high < 0
    assert images[4].get_clim() == (low, high)
    expected = np.where(given[0].counts, given[0].predictions["emulator"][0], np.nan)[:, 1, :]
    np.testing.assert_array_equal(images[1].get_array().filled(np.nan), expected)
    # axis 0 upwards, axis 2 to the right, in units of length
    assert images[0].get_extent() == [0, 15, 0, 6]
    assert images[0].axes.get_xlabel() == "axis 2 [length]"
    assert images[0].axes.get_ylabel() == "axis 0 [length]"


def test_histograms_of_two_dimensions_have_the_truth_to_the_right_and_cover_all():
    given = cases()
    given[0].predictions["mean"] = given[0].predictions["mean"] + 40
    figure = taken_in(Histogram2d(bins=8), given)
    drawn = figure.draw(FLAME, PAPER)[""]
    edges, counts = figure.counts("emulator")
    panel = drawn.axes[0]
    (mesh,) = panel.collections
    np.testing.assert_array_equal(mesh.get_array().filled(0), counts.T)
    assert isinstance(mesh.norm, LogNorm)
    assert edges[-2] <= max(p for _, p in pairs("mean", given)) < edges[-1]
    assert panel.get_xlim() == panel.get_ylim() == (edges[0], edges[-1])
    (line,) = panel.lines
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    assert panel.get_xlabel() == "truth [1/m]"


def test_profiles_are_drawn_downwards_or_upwards_as_told():
    given = cases(DRAG, (40,))
    for downwards in (True, False):
        figure = taken_in(Profiles(downwards=downwards), given)
        axes = figure.draw(DRAG, PAPER)[""].axes
        bottom, top = axes[0].get_ylim()
        assert (bottom > top) == downwards
        assert [a.get_title() for a in axes] == [
            "error of emulator", "error of mean", "MAE", "RMSE"
        ]  # fmt: skip
        line = axes[0].lines[-1]
        np.testing.assert_allclose(line.get_xdata(), figure.scores("emulator")[0])
        np.testing.assert_array_equal(line.get_ydata(), range(6))


def test_features_are_drawn_apart_in_either_order():
    assert [x.tolist() for x in Levels(2).split(np.arange(6))] == [[0, 1, 2], [3, 4, 5]]
    assert [x.tolist() for x in Levels(2, True).split(np.arange(6))] == [[0, 2, 4], [1, 3, 5]]
    given = cases(DRAG, (40,))
    figure = taken_in(Samples(features=2, level_first=True), given)
    drawn = figure.draw(DRAG, PAPER)
    assert list(drawn) == ["0", "1"]
    line = drawn["1"].axes[0].lines[0]
    np.testing.assert_array_equal(line.get_xdata(), figure.drawn[0][1].truth[1::2])
    with pytest.raises(FieldError, match="6 channels are not 4 profiles"):
        Profiles(features=4).add(given[0])


def test_a_method_has_its_color_though_others_are_missing():
    given = cases()
    figure = taken_in(Dispersion(), given).draw(FLAME, PAPER)[""]
    colors = {line.get_color() for line in figure.axes[0].lines}
    assert colors == {tint(PAPER, 0), tint(PAPER, 2)}
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ["emulator", "mean"]
    assert figure.axes[1].get_xlabel() == "true sigma [1/m]"


def test_curves_that_differ_a_lot_are_drawn_on_a_logarithmic_axis():
    given = cases(masked=False)
    for case in given:
        case.predictions["emulator"][:] = case.truth + 1
    axis = taken_in(Boxplot(), given).draw(FLAME, PAPER)[""].axes[0]
    assert (axis.get_yscale(), axis.get_ylim()[0]) == ("linear", 0)
    for case in given:
        case.predictions["emulator"][:] = case.truth * 1.0001
    axis = taken_in(Boxplot(), given).draw(FLAME, PAPER)[""].axes[0]
    assert axis.get_yscale() == "log"


def test_many_runs_are_bands_instead_of_boxes():
    given = cases(runs=5)
    figure = taken_in(Boxplot(most=4), given)
    axis = figure.draw(FLAME, PAPER)[""].axes[0]
    assert axis.get_xlabel() == "run, in the order given"
    np.testing.assert_allclose(axis.lines[0].get_ydata(), figure.boxes("emulator")[:, 2])


def test_runs_of_other_sizes_have_no_layers_and_it_is_told(caplog):
    figure = LayerProfile()
    figure.add(cases()[0])
    figure.add(cases(space=(7, 3, 5))[0])
    assert figure.draw(FLAME, PAPER) == {}
    assert "runs have 6 and 7 layers along axis 0" in caplog.text


def test_options_that_cannot_be_are_refused():
    with pytest.raises(RecipeError, match="bins of a figure is a whole number from 1 on, not 0"):
        Histogram(bins=0)
    with pytest.raises(RecipeError, match="not 'two'"):
        CrossSection(runs="two")
    with pytest.raises(GeometryError, match=r"the plane 9 across axis 0 was asked for, .* 6 cells"):
        CrossSection(index=9).add(cases()[0])
    with pytest.raises(GeometryError, match="across axis 3 was asked for"):
        CrossSection(axis=3).add(cases()[0])
    with pytest.raises(GeometryError, match=r"sums along axis 2 .* the axes 0 to 1"):
        LayerProfile(axis=2).add(cases(space=(4, 5))[0])
