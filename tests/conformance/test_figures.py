"""The laws of a figure, over every figure there is."""

import io
import pickle
from copy import deepcopy

import numpy as np
import pytest

from map2map.fields import Field
from map2map.figures import Case
from map2map.gallery import figures_available
from map2map.inks import PAPER, styled

FIGURES = list(figures_available().values())
METHODS = ("emulator", "$baseline$_1")
KINDS = {
    "line": (Field("line", "1", "scalar", 1), (9,)),
    "columns": (Field("drag_u", "m s-2", "scalar", 6), (20,)),
    "plane": (Field("t", "K", "scalar", 1), (4, 7)),
    "planes of levels": (Field("t", "K", "scalar", 5), (4, 7)),
    "vector": (Field("$w$", "m/s", "vector", 2), (4, 7)),
    "box": (Field("sigma", "1/m", "scalar", 1), (4, 3, 5)),
    "vector in a box": (Field("v", "km/s", "vector", 3), (4, 3, 5)),
}


def made(kind, runs=2, change=None):
    field, space = KINDS[kind]
    rng = np.random.default_rng(0)
    found = []
    for run in range(runs):
        truth = rng.normal(size=(field.channels, *space)).astype(np.float32)
        predictions = {m: truth + rng.normal(size=truth.shape) for m in METHODS}
        counts = np.ones(space, bool) if run else rng.random(space) < 0.7
        if change:
            change(truth, predictions, counts)
        found.append(Case(field, f"run_$_{run}", truth, predictions, counts, METHODS))
    return found


def taken_in(figure, given):
    for case in given:
        figure.add(case)
    return figure


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
class TestEveryFigure:
    def test_what_does_not_count_changes_nothing(self, figure, kind):
        def spoil(truth, predictions, counts):
            truth[:, ~counts] = np.nan
            for values in predictions.values():
                values[:, ~counts] = np.inf

        clean = pickle.dumps(taken_in(figure(), made(kind)))
        assert pickle.dumps(taken_in(figure(), made(kind, change=spoil))) == clean

    def test_it_leaves_what_it_is_given_alone(self, figure, kind):
        given = made(kind)
        before = deepcopy(given)
        taken_in(figure(), given)
        for old, new in zip(before, given, strict=True):
            np.testing.assert_array_equal(old.truth, new.truth)
            for name in METHODS:
                np.testing.assert_array_equal(old.predictions[name], new.predictions[name])

    def test_it_is_drawn_of_perfect_predictions_in_a_single_cell(self, figure, kind):
        def one(truth, predictions, counts):
            truth[:] = 3.0
            for values in predictions.values():
                values[:] = 3.0
            counts[:] = False
            counts.ravel()[0] = True

        with styled(PAPER):
            given = made(kind, 1, one)
            for drawn in taken_in(figure(), given).draw(given[0].field, PAPER).values():
                drawn.savefig(io.BytesIO(), format="png", dpi=20)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
def test_every_figure_is_drawn_of_some_kind_of_field_and_says_of_what(figure):
    drawn = 0
    for kind in KINDS:
        given = made(kind)
        field = given[0].field
        for picture in taken_in(figure(), given).draw(field, PAPER).values():
            drawn += 1
            box = picture.legends[0].get_title() if picture.legends else picture._suptitle
            assert box.get_text().startswith(field.name.replace("$", r"\$"))
    assert drawn


def held(thing, seen):
    """How many numbers are kept in arrays, however deep."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        return thing.size if thing.base is None else held(thing.base, seen)
    parts = list(thing) if isinstance(thing, list | tuple | set) else []
    parts += thing.values() if isinstance(thing, dict) else []
    parts += vars(thing).values() if hasattr(thing, "__dict__") else []
    return sum(held(part, seen) for part in parts)


def remembered(figure, runs, rows):
    """What a figure holds of so many runs of so many rows of cells."""
    one, rng = figure(), np.random.default_rng(0)
    field, counts = Field("t", "K", "scalar", 4), np.ones((rows, 40), bool)
    for run in range(runs):
        truth = rng.uniform(-1, 1, size=(4, rows, 40))
        # the same range in all runs
        truth.ravel()[:2] = -1, 1
        one.add(Case(field, str(run), truth, {"emulator": truth / 2}, counts, METHODS))
    return held(one, set())


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
def test_a_figure_remembers_what_is_drawn_and_not_what_it_was_given(figure):
    few = remembered(figure, 3, 50)
    # six numbers of a run are a box
    assert remembered(figure, 9, 50) - few <= 6 * 6
    drawn_cell_by_cell = {"CrossSection": 3 * 2 * 40, "LayerProfile": 3 * 8}
    each = drawn_cell_by_cell.get(figure.__name__, 0)
    assert remembered(figure, 3, 150) - few <= 100 * each
