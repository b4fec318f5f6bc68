"""The laws of a metric, over every metric there is."""

import inspect
import re

import numpy as np
import pytest
import torch
import xarray as xr

import map2map.metrics
from map2map.errors import FieldError, GeometryError
from map2map.metrics import Pointwise
from map2map.symmetry import Symmetries

METRICS = [
    metric
    for metric in (getattr(map2map.metrics, name) for name in map2map.metrics.__all__)
    if inspect.isfunction(metric)
]
# of what lies along the first axis, which symmetries and shifts must leave alone
ALONG = {map2map.metrics.profile_scores}
SHAPES = {1: (16,), 2: (10, 12), 3: (6, 8, 7)}
SPACING = {1: (0.5,), 2: (0.5, 0.7), 3: (0.5, 0.7, 0.6)}
FIELDS = [(ndim, vector) for ndim in SHAPES for vector in (False, True) if ndim > 1 or not vector]


def fields(ndim, vector, channels=2):
    """A prediction and a truth that is not Gaussian, with a mean."""
    rng = np.random.default_rng(0)
    truth = rng.gamma(2.0, size=(ndim if vector else channels, *SHAPES[ndim])) - 0.5
    return truth + 0.3 * rng.normal(size=truth.shape) + 0.1, truth


def same(found, expected, rtol=1e-7):
    assert set(found.variables) == set(expected.variables)
    for name, value in expected.variables.items():
        scale = np.abs(value.values[np.isfinite(value.values)]).max(initial=0)
        np.testing.assert_allclose(found[name], value, rtol, rtol * scale, err_msg=name)


def exponents(units):
    """The powers of field and length in units."""
    found = {"field": 0, "L": 0}
    for part in [] if units in ("1", "%") else units.split():
        for factor, sign in zip(part.split("/"), (1, -1), strict=False):
            name, _, power = factor.partition("^")
            if name != "rad":
                found[name] += sign * int(power or 1)
    return found["field"], found["L"]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize(("ndim", "vector"), FIELDS)
class TestEveryMetric:
    def test_a_perfect_prediction_gets_the_perfect_score(self, metric, ndim, vector):
        _, truth = fields(ndim, vector)
        found = metric(truth.copy(), truth, SPACING[ndim], vector=vector)
        for name, value in found.data_vars.items():
            defined = value.values[np.isfinite(value.values)]
            if "perfect" in value.attrs:
                np.testing.assert_allclose(defined, value.attrs["perfect"], atol=1e-12)
            else:
                of_truth = found[name if name.endswith("_truth") else f"{name}_truth"]
                np.testing.assert_array_equal(value, of_truth)

    def test_an_imperfect_one_does_not(self, metric, ndim, vector):
        found = metric(*fields(ndim, vector), SPACING[ndim], vector=vector)
        for name, value in found.data_vars.items():
            if "perfect" in value.attrs and np.isfinite(value).any():
                assert (np.abs(value - value.attrs["perfect"]) > 1e-4).any(), name

    def test_symmetries_of_the_grid_change_nothing(self, metric, ndim, vector):
        pair = fields(ndim, vector)
        expected = metric(*pair, SPACING[ndim], vector=vector)
        symmetries, rng = Symmetries.declared("all", ndim), np.random.default_rng(0)
        drawn = [symmetries.draw(ndim, rng) for _ in range(8 if metric not in ALONG else 200)]
        if metric in ALONG:
            drawn = [one for one in drawn if one.axes[0] == 0 and not one.flips[0]]
            assert len({*drawn}) >= (1, 2, 8)[ndim - 1]
        for symmetry in drawn:
            turned = [
                symmetry.apply(torch.from_numpy(x), [range(ndim)] if vector else []) for x in pair
            ]
            same(metric(*turned, symmetry.shape(SPACING[ndim]), vector=vector), expected)

    def test_a_periodic_shift_changes_nothing(self, metric, ndim, vector):
        pair = fields(ndim, vector)
        axes = tuple(range(1, ndim + 1))
        steps = (3 if metric not in ALONG else 0, 1, 2)[:ndim]
        rolled = [np.roll(x, steps, axes) for x in pair]
        expected = metric(*pair, SPACING[ndim], vector=vector)
        same(metric(*rolled, SPACING[ndim], vector=vector), expected)

    def test_other_units_do_what_the_units_of_the_score_say(self, metric, ndim, vector):
        pair = fields(ndim, vector)
        before = metric(*pair, SPACING[ndim], vector=vector)
        longer = [4 * size for size in SPACING[ndim]]
        after = metric(*(8 * x for x in pair), longer, vector=vector)
        for name, value in before.variables.items():
            field, length = exponents(value.attrs["units"])
            expected = value.values * 8.0**field * 4.0**length
            np.testing.assert_allclose(after[name], expected, rtol=1e-9, err_msg=name)

    def test_every_score_says_what_it_is(self, metric, ndim, vector):
        found = metric(*fields(ndim, vector), SPACING[ndim], vector=vector)
        for value in found.data_vars.values():
            assert value.dtype == np.float64
            assert len(value.attrs["long_name"]) > 10
            assert re.fullmatch(r"1|(field|L|rad)(\^\d)?([ /](field|L)(\^\d)?)*", value.units)

    def test_masked_cells_do_not_count(self, metric, ndim, vector):
        prediction, truth = fields(ndim, vector)
        mask = np.random.default_rng(1).random(SHAPES[ndim]) < 0.9
        expected = metric(prediction, truth, SPACING[ndim], vector=vector, mask=mask)
        spoilt = [np.where(mask, x, junk) for x, junk in ((prediction, -1e9), (truth, 1e7))]
        same(metric(*spoilt, SPACING[ndim], vector=vector, mask=mask), expected)
        holed = np.where(mask, truth, np.nan)
        same(metric(prediction, holed, SPACING[ndim], vector=vector), expected)
        same(
            metric(np.where(mask, prediction, np.inf), truth, SPACING[ndim], vector=vector),
            expected,
        )
        whole = metric(prediction, truth, SPACING[ndim], vector=vector)
        defined = [name for name, value in whole.data_vars.items() if value.notnull().any()]
        assert not defined or any(not whole[name].equals(expected[name]) for name in defined)

    def test_arrays_tensors_and_dataarrays_give_the_same(self, metric, ndim, vector):
        pair = fields(ndim, vector)
        expected = metric(*pair, SPACING[ndim], vector=vector)
        tensors = [torch.from_numpy(x).requires_grad_() for x in pair]
        same(metric(*tensors, SPACING[ndim], vector=vector), expected)
        axes = ("x", "y", "z")[:ndim]
        coords = {
            name: np.arange(n) * size
            for name, n, size in zip(axes, SHAPES[ndim], SPACING[ndim], strict=True)
        }
        arrays = [xr.DataArray(x, dims=("channel", *axes), coords=coords) for x in pair]
        arrays[0] = arrays[0].transpose(..., "channel")
        same(metric(*arrays, vector=vector), expected)

    def test_single_precision_is_enough(self, metric, ndim, vector):
        pair = fields(ndim, vector)
        single = [x.astype(np.float32) for x in pair]
        expected = metric(*pair, SPACING[ndim], vector=vector)
        same(metric(*single, SPACING[ndim], vector=vector), expected, 1e-4)

    def test_it_leaves_its_arguments_alone(self, metric, ndim, vector):
        pair = fields(ndim, vector)
        before = [x.copy() for x in pair]
        for mask in (None, np.random.default_rng(1).random(SHAPES[ndim]) < 0.9):
            metric(*pair, SPACING[ndim], vector=vector, mask=mask)
        for x, y in zip(pair, before, strict=True):
            np.testing.assert_array_equal(x, y)

    def test_what_does_not_fit_is_refused(self, metric, ndim, vector):
        prediction, truth = fields(ndim, vector)
        with pytest.raises(GeometryError, match=r"prediction has shape .* but the truth"):
            metric(prediction[..., :-1], truth)
        with pytest.raises(FieldError, match=r"no cell .* all are masked or not finite"):
            metric(prediction, np.full_like(truth, np.nan))
        with pytest.raises(GeometryError, match="the mask has shape"):
            metric(prediction, truth, mask=np.ones(3))
        with pytest.raises(GeometryError, match="`spacing` needs 1 or"):
            metric(prediction, truth, (1.0,) * 5)
        with pytest.raises(GeometryError, match="`periodic` needs 1 or"):
            metric(prediction, truth, periodic=(True,) * 5)
        with pytest.raises(FieldError, match="one component per axis"):
            metric(*fields(ndim, vector=False, channels=ndim + 1), vector=True)
        one, other = (
            xr.DataArray(x, attrs={"units": u}) for x, u in zip(fields(1, False), "ab", strict=True)
        )
        with pytest.raises(FieldError, match="in units of 'a', but the truth in 'b'"):
            metric(one.rename(dim_0="channel"), other.rename(dim_0="channel"))


def test_every_metric_is_a_function_but_pointwise():
    others = {getattr(map2map.metrics, name) for name in map2map.metrics.__all__} - {*METRICS}
    assert len(METRICS) >= 6
    assert others == {Pointwise}
