"""Figures of labels and parameters show the numbers that they are given, where they belong."""

import io
import re

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.text import Text

from map2map import label_plots
from map2map.metrics.labels import label_scores
from map2map.metrics.parameters import parameter_scores

CLASSES = {2: ["newton", "gr"], 3: ["a", "b$_$", "c$d"]}
FIGURES = [
    label_plots.confusion,
    label_plots.roc,
    label_plots.reliability,
    label_plots.group_logits,
]


def scores(number=2):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), 6)
    label = np.where(group < 7, 0, group % number)
    logits = rng.normal(size=(72, 1 if number == 2 else number))
    return label_scores(logits, label, group + 100, classes=CLASSES[number])


def png(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=40)


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_names_that_matplotlib_would_take_for_mathematics_are_drawn(draw):
    png(draw(scores(3)))


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_a_single_class_is_drawn_too(draw):
    png(draw(label_scores([[1.0], [-2.0]], [1, 1], classes=CLASSES[2])))


@pytest.mark.parametrize("number", [2, 3])
def test_the_confusion_matrix_has_its_numbers_upright_in_the_right_cells(number):
    """Truth downwards, prediction to the right."""
    found = scores(number)
    assert (found.confusion != found.confusion.transpose("per", "predicted", "truth").values).any()
    figure = label_plots.confusion(found)
    for axis, per in zip(figure.axes[:2], ("image", "group"), strict=True):
        table = found.confusion.sel(per=per)
        assert axis.get_xlabel() == "predicted"
        assert len(axis.texts) == number**2
        for text in axis.texts:
            x, y = text.get_position()
            names = [
                [tick.get_text().replace(r"\$", "$") for tick in ticks][round(place)]
                for place, ticks in ((x, axis.get_xticklabels()), (y, axis.get_yticklabels()))
            ]
            cases = int(table.sel(predicted=names[0], truth=names[1]))
            row = int(table.sel(truth=names[1]).sum())
            assert text.get_text() == f"{cases}\n{100 * cases / row:.1f} %"
            assert text.get_rotation() == 0
        # rows begin at the top
        assert axis.get_ylim()[0] > axis.get_ylim()[1]
    assert figure.axes[0].get_ylabel() == "truth"


def test_roc_and_reliability_are_of_the_second_of_two_classes():
    found = scores()
    axis = label_plots.roc(found).axes[0]
    for line, per in zip(axis.lines[1:], ("image", "group"), strict=True):
        part = found.sel({"class": "gr", "per": per})
        np.testing.assert_array_equal(line.get_xdata(), part.roc_fpr)
        np.testing.assert_array_equal(line.get_ydata(), part.roc_tpr)
        word = {"image": "image", "group": "run"}[per]
        assert f"per {word}: AUC {float(part.auc):.3f}" == line.get_label()
    top, bottom = label_plots.reliability(found).axes
    for line, steps, per in zip(top.lines[1:], bottom.patches, ("image", "group"), strict=True):
        part = found.sel({"class": "gr", "per": per})
        counts = part.reliability_count.values
        np.testing.assert_array_equal(steps.get_data().values, counts)
        np.testing.assert_array_equal(line.get_xdata(), part.reliability_predicted[counts > 0])
        np.testing.assert_array_equal(line.get_ydata(), part.reliability_observed[counts > 0])


def draw(name, found):
    more = [["kg"]] if name == "parameters" else []
    return getattr(label_plots, name)(found, *more)


@pytest.mark.parametrize("name", ["confusion", "roc", "reliability", "group_logits", "parameters"])
def test_figures_say_run_as_tables_do_where_the_file_has_groups(name):
    truth = np.repeat(np.arange(3.0), 2)[:, None]
    of_parameters = parameter_scores(truth + 0.1, truth, np.arange(6) // 2, names=["m"])
    found = of_parameters if name == "parameters" else scores()
    texts = [text.get_text() for text in draw(name, found).findobj(Text)]
    assert not [text for text in texts if "group" in text]
    assert [text for text in texts if re.search(r"\bruns?\b", text)]


def test_more_classes_have_a_curve_each():
    found = scores(3)
    lines = label_plots.roc(found).axes[0].lines[1:]
    assert len(lines) == 6
    np.testing.assert_array_equal(lines[4].get_xdata(), found.roc_fpr.values[0, 2])
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()


@pytest.mark.parametrize("number", [2, 3])
def test_groups_stand_over_their_truth_right_and_wrong_ones_apart(number):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 1 if number == 2 else number))
    label = np.arange(40) % number
    found = label_scores(logits, label, classes=CLASSES[number])
    axis = label_plots.group_logits(found).axes[0]
    right, wrong = axis.lines[:2]
    if number == 2:
        value, is_right = logits[:, 0], (logits[:, 0] > 0) == label
    else:
        others = np.where(np.eye(3, dtype=bool)[label], -np.inf, logits).max(axis=1)
        value = logits[np.arange(40), label] - others
        is_right = value > 0
    assert 0 < is_right.sum() < 40
    for dots, chosen in ((right, is_right), (wrong, ~is_right)):
        np.testing.assert_allclose(dots.get_ydata(), value[chosen])
        np.testing.assert_array_equal(np.round(dots.get_xdata()), label[chosen])
    assert right.get_label() == f"right: {is_right.sum()}"


@pytest.mark.parametrize("signed", [True, False])
def test_the_strongest_cells_are_those_at_or_above_the_percentile(signed):
    rng = np.random.default_rng(0)
    image, values = rng.normal(size=(2, 20, 30))
    values = values if signed else np.abs(values)
    axes = label_plots.saliency(image, values, units="Mpc/h").axes
    np.testing.assert_array_equal(axes[0].images[0].get_array(), image)
    np.testing.assert_array_equal(axes[1].images[0].get_array(), values)
    low, high = axes[1].images[0].get_clim()
    assert low == (-high if signed else 0)
    for axis, kept in zip(axes[2:4], (30, 6), strict=True):
        drawn = axis.images[1].get_array().filled(np.nan)
        strongest = np.sort(np.abs(values), axis=None)[-kept:]
        np.testing.assert_array_equal(np.sort(np.abs(drawn[np.isfinite(drawn)])), strongest)
        assert axis.images[1].get_clim() == (low, high)
        assert axis.images[0].get_clim()[1] >= image.max() * 0.5


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_saliency_that_is_nothing_is_drawn_too(value):
    png(label_plots.saliency(np.zeros((4, 5)), np.full((4, 5), value)))


@pytest.mark.parametrize("predicted", [True, False])
def test_parameters_are_drawn_against_the_truth_with_bars(predicted):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(9), 4)
    truth = rng.normal(size=(9, 4))[group]
    output = truth + rng.normal(size=truth.shape)
    std = np.full(4, 0.7) if predicted else None
    found = parameter_scores(output, truth, group, names=list("abcd"), std=std)
    figure = label_plots.parameters(found, ["", "1", "km", "s"])
    png(figure)
    for number in range(4):
        axis = figure.axes[number]
        dots, _, (bars,) = axis.containers[0]
        np.testing.assert_allclose(dots.get_xdata(), found.group_truth[:, number])
        np.testing.assert_allclose(dots.get_ydata(), found.group_output[:, number])
        lengths = [part[1, 1] - part[0, 1] for part in bars.get_segments()]
        expected = found.group_std if predicted else found.group_spread
        np.testing.assert_allclose(lengths, 2 * expected[:, number])
        line = axis.lines[0]
        assert line.get_slope() == 1
        assert line.get_xy1()[0] == line.get_xy1()[1]
    assert [axis.get_xlabel() for axis in figure.axes[:4]] == [
        "true a",
        "true b",
        "true c [km]",
        "true d [s]",
    ]
    assert not figure.axes[4].axison
    words = "predicted deviation" if predicted else "spread of samples"
    assert words in figure.get_supxlabel()


def test_lines_of_truth_have_the_color_of_letters():
    """On a dark page they would not be seen otherwise."""
    with mpl.rc_context({"text.color": "#123456"}):
        lines = label_plots.group_logits(scores()).axes[0].collections
        assert {mpl.colors.to_hex(line.get_edgecolor()[0]) for line in lines} == {"#123456"}
        found = parameter_scores([[1.0], [2.0]], [[1.0], [3.0]], names=["a"])
        assert label_plots.parameters(found).axes[0].lines[0].get_color() == "#123456"
