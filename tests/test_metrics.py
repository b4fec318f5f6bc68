"""Scores against numpy."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import wasserstein_distance

from map2map.errors import GeometryError
from map2map.metrics import (
    Pointwise,
    base,
    bispectrum_scores,
    conservation_scores,
    distribution_scores,
    pointwise_scores,
    profile_scores,
    spectral_scores,
    vector_scores,
)
from map2map.physics.bispectra import bispectrum
from map2map.physics.operators import divergence
from map2map.physics.operators import gradient as physics_gradient
from map2map.physics.spectra import cross_correlation, power_spectrum, transfer


def pair(offset=0.0):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3, 6, 5)) * np.array([1, 2, 3])[:, None, None] + offset
    return truth + rng.normal(size=truth.shape), truth


@pytest.mark.parametrize("parts", [1, 2, 6])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_scores_are_numpys_however_the_field_is_cut(parts, offset):
    prediction, truth = pair(offset)
    scores = Pointwise()
    for p, t in zip(np.split(prediction, parts, 1), np.split(truth, parts, 1), strict=True):
        scores.add(p, t)
    found, error = scores.result(), prediction - truth
    mean = truth.mean(axis=(1, 2), keepdims=True)
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert found["mae"] == pytest.approx(np.abs(error).mean())
    assert found["bias"] == pytest.approx(error.mean())
    assert found["max_error"] == pytest.approx(np.abs(error).max())
    relative = np.linalg.norm(error) / np.linalg.norm(truth)
    assert found["relative_error"] == pytest.approx(relative, rel=1e-9)
    r2 = 1 - (error**2).sum() / ((truth - mean) ** 2).sum()
    assert found["r2"] == pytest.approx(r2, rel=1e-6)


def test_a_perfect_prediction_gets_perfect_scores():
    _, truth = pair()
    scores = Pointwise()
    scores.add(truth, truth)
    assert scores.result()["r2"] == 1
    assert scores.result()["rmse"] == scores.result()["max_error"] == 0


def test_cells_that_are_not_finite_are_left_out():
    prediction, truth = pair()
    holed = truth.copy()
    holed[0, 2, 3] = np.nan
    scores, kept = Pointwise(), Pointwise()
    scores.add(prediction, holed)
    keep = np.ones((6, 5), bool)
    keep[2, 3] = False
    kept.add(prediction[:, keep], truth[:, keep])
    assert scores.result() == pytest.approx(kept.result())


def test_without_cells_scores_are_not_defined():
    assert np.isnan(list(Pointwise().result().values())).all()


# --- the functions that give a Dataset -----------------------------------------------------------


def test_scores_of_cells_are_numpys(monkeypatch):
    # several parts
    monkeypatch.setattr("map2map.metrics.base.SLAB", 10)
    prediction, truth = pair(5.0)
    found, error = pointwise_scores(prediction, truth), prediction - truth
    assert float(found.rmse) == pytest.approx(np.sqrt((error**2).mean()))
    assert float(found.mae) == pytest.approx(np.abs(error).mean())
    assert float(found.bias) == pytest.approx(error.mean())
    assert float(found.max_error) == pytest.approx(np.abs(error).max())
    assert float(found.relative_l2) == pytest.approx(np.linalg.norm(error) / np.linalg.norm(truth))
    mean = truth.mean(axis=(1, 2), keepdims=True)
    assert float(found.r2) == pytest.approx(1 - (error**2).sum() / ((truth - mean) ** 2).sum())


def test_the_bias_of_vectors_is_that_of_their_lengths():
    _, truth = pair()
    assert float(pointwise_scores(1.5 * truth[:2], truth[:2], vector=True).bias) == pytest.approx(
        0.5 * np.hypot(truth[0], truth[1]).mean()
    )
    shifted = truth[:2] + np.array([30.0, 40.0])[:, None, None]
    assert float(conservation_scores(shifted, truth[:2], vector=True).mean_error) == pytest.approx(
        50
    )


def test_the_distance_of_distributions_is_scipys():
    prediction, truth = pair()
    expected = np.mean(
        [wasserstein_distance(p.ravel(), t.ravel()) for p, t in zip(prediction, truth, strict=True)]
    )
    assert float(distribution_scores(prediction, truth).wasserstein) == pytest.approx(expected)
    # blind to where the values are
    rng = np.random.default_rng(1)
    moved = rng.permuted(truth.reshape(3, -1), axis=1).reshape(truth.shape)
    assert float(distribution_scores(moved, truth).wasserstein) == 0
    assert float(distribution_scores(truth + 0.25, truth).wasserstein) == pytest.approx(0.25)


def test_percentiles_are_numpys_of_the_error_or_of_its_length():
    prediction, truth = pair()
    found = distribution_scores(prediction, truth).error_percentile
    for q in (1.0, 50.0, 99.9):
        assert float(found.sel(percentile=q)) == pytest.approx(np.percentile(prediction - truth, q))
    length = np.hypot(*(prediction - truth)[:2])
    found = distribution_scores(prediction[:2], truth[:2], vector=True).error_percentile
    assert float(found.sel(percentile=95.0)) == pytest.approx(np.percentile(length, 95))


def test_a_tenth_more_mass_is_an_integral_error_of_a_tenth():
    density = np.random.default_rng(0).gamma(1.0, size=(1, 8, 8))
    found = conservation_scores(1.1 * density, density)
    assert float(found.integral_error) == pytest.approx(0.1)
    assert float(found.mean_error) == pytest.approx(0.1 * density.mean())
    moved = np.roll(density, 3, axis=1)
    assert float(conservation_scores(moved, density).mean_error) == pytest.approx(0, abs=1e-12)


def potential_and_whirl(n=24, size=0.5):
    """A vector field without curl, and one without divergence, of equal wavenumber and norm."""
    x, y = size * np.mgrid[:n, :n]
    k = 2 * np.pi / (n * size)
    gradient = np.stack([np.cos(k * x), np.cos(k * y)])
    whirl = np.stack([np.cos(k * y), np.cos(k * x)])
    return gradient, whirl, size


def test_divergence_and_curl_errors_tell_sources_from_whirls():
    gradient, whirl, size = potential_and_whirl()
    found = vector_scores(gradient + 0.2 * whirl, gradient, size, vector=True)
    assert float(found.divergence_error) == pytest.approx(0, abs=1e-12)
    assert float(found.curl_error) == pytest.approx(0.2)
    found = vector_scores(whirl + 0.3 * gradient, whirl, size, vector=True)
    assert float(found.divergence_error) == pytest.approx(0.3)
    assert float(found.curl_error) == pytest.approx(0, abs=1e-12)
    assert np.isnan(vector_scores(whirl, gradient, size).curl_error)


@pytest.mark.parametrize("ndim", [2, 3])
def test_divergence_and_curl_errors_add_to_that_of_all_derivatives(ndim):
    rng = np.random.default_rng(0)
    truth, error = rng.normal(size=(2, ndim, *(9, 8, 7)[:ndim]))
    found = vector_scores(truth + error, truth, 1.0, vector=True)

    def slopes(v):
        axes = range(1, ndim + 1)
        return sum(((np.roll(v, -1, a) - np.roll(v, 1, a)) ** 2).sum() for a in axes)

    total = float(found.divergence_error**2 + found.curl_error**2)
    assert total == pytest.approx(slopes(error) / slopes(truth))


def test_derivatives_reach_neither_over_an_edge_nor_into_a_mask():
    # linear fields: the derivatives are exact wherever they are not taken around the box
    x, y = np.mgrid[:8, :9].astype(float)
    truth, error = np.stack([x, y]), np.stack([x, 0 * y])
    mask = np.ones((8, 9), bool)
    mask[3, 4] = False
    for options in ({}, {"mask": mask}):
        found = vector_scores(truth + error, truth, 1.0, vector=True, periodic=False, **options)
        assert float(found.divergence_error) == pytest.approx(0.5)
    wrapped = vector_scores(truth + error, truth, 1.0, vector=True)
    assert float(wrapped.divergence_error) != pytest.approx(0.5)


def test_spectra_are_those_of_physics():
    prediction, truth = pair(2.0)
    found = spectral_scores(prediction, truth, (0.5, 0.7))
    k, power = power_spectrum(truth, (0.5, 0.7), 2)
    np.testing.assert_allclose(found.k, k)
    np.testing.assert_allclose(found.power_truth, power)
    np.testing.assert_allclose(found.power, power_spectrum(prediction, (0.5, 0.7), 2)[1])
    np.testing.assert_allclose(found.transfer, transfer(prediction, truth, (0.5, 0.7), 2)[1])
    r = cross_correlation(prediction, truth, (0.5, 0.7), 2)[1]
    np.testing.assert_allclose(found.correlation, r)
    np.testing.assert_allclose(found.error_power, 1 - r**2)
    assert found.k.units == "rad/L"


def test_spectra_need_a_periodic_field_without_mask():
    prediction, truth = pair()
    mask = np.ones((6, 5), bool)
    mask[0, 0] = False
    for options in ({"periodic": (True, False)}, {"mask": mask}):
        assert np.isnan(spectral_scores(prediction, truth, 1.0, **options).transfer).all()
        assert np.isnan(bispectrum_scores(prediction, truth, 1.0, **options).bispectrum).all()


def test_a_constant_has_no_power_and_no_correlation():
    _, truth = pair()
    constant = np.broadcast_to(np.float32([[[0.1]], [[0.2]], [[0.3]]]), truth.shape)
    found = spectral_scores(constant, truth.astype(np.float32), 1.0)
    assert (found.power == 0).all()
    assert np.isnan(found.correlation).all()


def test_the_bispectrum_of_a_vector_is_that_of_its_divergence():
    rng = np.random.default_rng(0)
    potential = rng.gamma(1.0, size=(9, 9, 9))
    gradient = physics_gradient(torch.from_numpy(potential)[None, None], 0.5)[0]
    density = divergence(gradient[None], 0.5)[0, 0]
    found = bispectrum_scores(gradient, gradient, 0.5, vector=True)
    k, expected = bispectrum(density, 0.5)
    np.testing.assert_allclose(found.kb, k)
    np.testing.assert_allclose(found.bispectrum_truth, expected)
    assert (found.bispectrum_truth.units, found.kb.units) == ("field^3 L^3", "rad/L")
    assert not bispectrum_scores(np.ones((1, 8)), np.ones((1, 8))).data_vars


def test_scores_of_nothing_in_particular_are_not_a_number():
    zeros = np.zeros((2, 4, 4))
    assert np.isnan(vector_scores(zeros, zeros, vector=True).curl_error)
    assert np.isnan(conservation_scores(zeros, zeros).integral_error)
    with pytest.raises(GeometryError, match="1 to 3 axes of space"):
        pointwise_scores(np.zeros(4), np.zeros(4))


def test_whole_numbers_and_halves_are_scored_in_double_precision():
    truth = np.arange(8, dtype=np.int16).reshape(1, 8)
    found = pointwise_scores(truth.astype(np.float16) + np.float16(0.5), truth)
    assert float(found.bias) == 0.5


def test_uneven_coordinates_give_no_spacing():
    values = xr.DataArray(np.ones((3, 4)), dims=("x", "y"), coords={"x": [0.0, 1.0, 3.0]})
    assert base.spacing_of(values) is None
    even = values.assign_coords(x=[0.0, 2.0, 4.0], y=[0.0, -1.0, -2.0, -3.0])
    assert base.spacing_of(even) == (2.0, 1.0)


# --- profiles ------------------------------------------------------------------------------------


def test_the_profile_is_the_integral_over_the_layers_across_the_first_axis():
    rng = np.random.default_rng(0)
    truth = rng.gamma(2.0, size=(1, 5, 4, 3))
    prediction = truth + 0.1
    found = profile_scores(prediction, truth, (9.0, 0.5, 0.2))
    expected = np.array([layer.sum() for layer in truth[0]]) * 0.5 * 0.2
    np.testing.assert_allclose(found.profile_truth, expected)
    np.testing.assert_allclose(found.profile, expected + 0.1 * 12 * 0.1)
    assert found.profile.attrs["units"] == "field L^2"
    norm = np.sqrt((expected**2).sum())
    assert float(found.profile_error) == pytest.approx(np.sqrt(5 * 0.12**2) / norm)


def test_errors_within_a_layer_are_none_of_the_profile_and_lost_layers_are():
    truth = np.zeros((1, 4, 6))
    truth[0, 1] = 1
    shuffled = np.zeros_like(truth)
    shuffled[0, 1, ::2] = 2
    assert float(profile_scores(shuffled, truth).profile_error) == 0
    assert float(profile_scores(0 * truth, truth).profile_error) == 1
    elsewhere = np.roll(truth, 1, axis=1)
    assert float(profile_scores(elsewhere, truth).profile_error) == pytest.approx(np.sqrt(2))


def test_a_vector_has_an_error_but_no_profile():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2, 4, 6))
    found = profile_scores(truth + 1, truth, vector=True)
    assert np.isnan(found.profile).all()
    assert float(found.profile_error) > 0.1
