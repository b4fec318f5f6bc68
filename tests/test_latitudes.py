"""Scores weighted by latitude: closed forms on a sphere, and sums written out."""

import numpy as np
import pytest
import torch
import xarray as xr

from map2map.errors import FieldError, GeometryError
from map2map.metrics.latitudes import (
    LatitudeScores,
    forecast_scores,
    latitude_scores,
    latitude_weights,
)

COSINE = np.pi / 180
LAT = np.linspace(-90, 90, 7)


def fields(samples=3, channels=2, longitudes=5):
    rng = np.random.default_rng(0)
    shape = (samples, channels, len(LAT), longitudes)
    return rng.normal(2, 1, shape), rng.normal(2, 1, shape), rng.normal(2, 1, shape)


def test_weights_are_areas_of_cells_with_a_mean_of_one():
    weights = latitude_weights(LAT)
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(weights / weights[3], np.cos(np.deg2rad(LAT)), atol=1e-15)
    # of cells that do not touch the poles, the area of the band between their edges
    step = 0.25
    middles = np.arange(-90 + step / 2, 90, step)
    edges = np.deg2rad(np.arange(-90, 90 + step / 2, step))
    area = np.diff(np.sin(edges))
    np.testing.assert_allclose(latitude_weights(middles), len(area) * area / 2, rtol=1e-5)


def test_scores_are_the_sums_of_their_definition():
    p, t, c = fields()
    found = forecast_scores(p, t, LAT, c)
    cos = [np.cos(x * np.pi / 180) for x in LAT]
    for channel in range(2):
        squares, accs, absolute, bias = [], [], [], []
        for sample in range(3):
            sums = np.zeros(6)
            for i, j in np.ndindex(len(LAT), 5):
                w = len(LAT) * cos[i] / sum(cos) / (len(LAT) * 5)
                f, y, u = (float(x[sample, channel, i, j]) for x in (p, t, c))
                terms = (
                    (f - y) ** 2,
                    abs(f - y),
                    f - y,
                    (f - u) * (y - u),
                    (f - u) ** 2,
                    (y - u) ** 2,
                )
                sums += [w * term for term in terms]
            squares.append(sums[0])
            absolute.append(sums[1])
            bias.append(sums[2])
            accs.append(sums[3] / (sums[4] * sums[5]) ** 0.5)
        # the root comes after the mean over samples
        assert found.rmse[channel].item() == pytest.approx(np.mean(squares) ** 0.5)
        assert found.mae[channel].item() == pytest.approx(np.mean(absolute))
        assert found.bias[channel].item() == pytest.approx(np.mean(bias))
        assert found.acc[channel].item() == pytest.approx(np.mean(accs))


def test_an_error_of_the_sine_of_latitude_has_an_rmse_of_one_over_root_three():
    """The mean of sin² over a sphere is 1/3, of |sin| 1/2; the plain mean would be 1/2 and 2/π."""
    lat = np.linspace(-89.75, 89.75, 360)
    error = np.sin(np.deg2rad(lat))[None, :, None] * np.ones((1, 1, 4))
    found = forecast_scores(error[None] + 3, np.full((1, 1, 360, 4), 3.0), lat)
    assert found.rmse.item() == pytest.approx(3**-0.5, rel=1e-4)
    assert found.mae.item() == pytest.approx(0.5, rel=1e-4)
    assert found.bias.item() == pytest.approx(0, abs=1e-12)
    assert "acc" not in found


def test_anomalies_of_orthogonal_waves_have_the_correlation_of_their_angle():
    lon = np.deg2rad(np.arange(0, 360, 10))
    lat = np.linspace(-80, 80, 9)
    rng = np.random.default_rng(1)
    usual = rng.normal(100, 30, (1, 9, 1))
    amplitude = rng.uniform(1, 2, (1, 9, 1))
    truth = usual + amplitude * np.cos(3 * lon)
    for angle in (0.0, 0.4, np.pi / 2, np.pi):
        forecast = usual + 7 * amplitude * np.cos(3 * lon - angle)
        scores = LatitudeScores(lat)
        scores.add(forecast, truth, np.broadcast_to(usual, truth.shape))
        assert scores.result().acc.item() == pytest.approx(np.cos(angle), abs=1e-12)


def test_a_perfect_forecast_is_perfect_and_the_climatology_has_no_correlation():
    _, t, c = fields()
    found = forecast_scores(t, t, LAT, c)
    for name in ("rmse", "mae", "bias", "acc"):
        np.testing.assert_allclose(found[name], found[name].attrs["perfect"], atol=1e-12)
    assert np.isnan(forecast_scores(c, t, LAT, c).acc).all()
    assert found.rmse.attrs["units"] == "field"
    assert found.acc.attrs["units"] == "1"


def test_a_climatology_without_samples_is_that_of_all():
    p, t, c = fields()
    same = np.stack([c[0]] * 3)
    xr.testing.assert_identical(forecast_scores(p, t, LAT, c[0]), forecast_scores(p, t, LAT, same))


def test_samples_tensors_and_dataarrays_give_what_arrays_give():
    p, t, c = fields()
    expected = forecast_scores(p, t, LAT, c)
    scores = LatitudeScores(LAT)
    for i in range(3):
        truth = xr.DataArray(t[i], dims=("channel", "lat", "lon"), attrs={"units": "K"})
        scores.add(torch.from_numpy(p[i]), truth.transpose("lat", "lon", "channel"), c[i])
    xr.testing.assert_allclose(scores.result(), expected, rtol=1e-12)


def test_cells_that_are_not_finite_do_not_count():
    p, t, c = fields()
    holed, junk = t.copy(), p.copy()
    holed[1, 0, 3, 2] = np.nan
    junk[1, 0, 3, 2] = 1e9
    found = forecast_scores(junk, holed, LAT, c)
    # as if that cell had been right: its weight is missing in the mean, too
    w = latitude_weights(LAT)[:, None] * np.ones((7, 5))
    w[3, 2] = 0
    squares = [((p[i, 0] - t[i, 0]) ** 2 * latitude_weights(LAT)[:, None]).mean() for i in (0, 2)]
    squares.append((w * (p[1, 0] - t[1, 0]) ** 2).sum() / w.sum())
    assert found.rmse[0].item() == pytest.approx(np.mean(squares) ** 0.5)
    np.testing.assert_allclose(found.acc[1], forecast_scores(p, t, LAT, c).acc[1])
    # a sample without a cell counts for nothing
    holed[1, 0] = np.nan
    expected = forecast_scores(p[[0, 2]], t[[0, 2]], LAT, c[[0, 2]])
    np.testing.assert_allclose(forecast_scores(p, holed, LAT, c).acc[0], expected.acc[0])
    np.testing.assert_allclose(forecast_scores(p, holed, LAT, c).rmse[0], expected.rmse[0])


def test_what_does_not_fit_is_refused():
    p, t, c = fields()
    for wrong in ([91.0, 0.0], [np.nan], [], [[1.0]]):
        with pytest.raises(GeometryError, match="latitudes are numbers from -90 to 90"):
            latitude_weights(wrong)
    with pytest.raises(GeometryError, match="no area"):
        latitude_weights([90.0, -90.0])
    with pytest.raises(GeometryError, match=r"\(3, 2, 7, 4\).* must have the same"):
        forecast_scores(p[..., 1:], t, LAT)
    with pytest.raises(GeometryError, match="with 6 latitudes"):
        forecast_scores(p, t, LAT[1:])
    scores = LatitudeScores(LAT)
    with pytest.raises(FieldError, match="nothing to score"):
        scores.result()
    with pytest.raises(GeometryError, match="climatology has shape"):
        scores.add(p[0], t[0], c[0, :, 1:])
    scores.add(p[0], t[0])
    with pytest.raises(FieldError, match="a sample has 1 channels, but the ones before it 2"):
        scores.add(p[0, :1], t[0, :1])
    one, other = (xr.DataArray(p[0], dims=("channel", "y", "x"), attrs={"units": u}) for u in "ab")
    with pytest.raises(FieldError, match="in units of 'a', but the truth in 'b'"):
        scores.add(one, other)


# --- the metric of one field ------------------------------------------------------------------


def written_out(p, t, u, lat, counts):
    """Sums of one channel, cell by cell in Python's floats."""
    sums = dict.fromkeys(("w", "squared", "absolute", "bias", "both", "one", "other"), 0.0)
    for i, j in np.ndindex(*t.shape):
        if not counts[i, j]:
            continue
        w = np.cos(float(lat[i]) * COSINE)
        f, y, c = float(p[i, j]), float(t[i, j]), float(u[i, j])
        terms = {"w": 1, "squared": (f - y) ** 2, "absolute": abs(f - y), "bias": f - y}
        terms |= {"both": (f - c) * (y - c), "one": (f - c) ** 2, "other": (y - c) ** 2}
        for name, term in terms.items():
            sums[name] += w * term
    return sums


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_metric_is_a_loop_over_the_cells_that_count(dtype):
    p, t, c = (x[0].astype(dtype) for x in fields())
    mask = np.random.default_rng(3).random(t.shape[1:]) < 0.8
    t[0, 2, 3] = np.nan
    counts = mask.copy()
    counts[2, 3] = False
    found = latitude_scores(p, t, latitude=LAT[:, None], climatology=c, mask=mask)
    sums = [written_out(p[k], t[k], c[k], LAT, counts) for k in range(2)]
    squared, absolute, bias = (
        [s[name] / s["w"] for s in sums] for name in ("squared", "absolute", "bias")
    )
    accs = [s["both"] / (s["one"] * s["other"]) ** 0.5 for s in sums]
    expected = {
        "latitude_rmse": np.mean(squared) ** 0.5,
        "latitude_mae": np.mean(absolute),
        "latitude_bias": np.mean(bias),
        "acc": np.mean(accs),
        "level_latitude_rmse": np.sqrt(squared),
        "level_latitude_bias": bias,
        "level_acc": accs,
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def test_vectors_are_correlated_as_wholes_and_biased_by_their_lengths():
    p, t, c = (x[0] for x in fields())
    about = {"latitude": LAT[:, None], "climatology": c, "vector": True}
    found = latitude_scores(p, t, **about)
    sums = [written_out(p[k], t[k], c[k], LAT, np.ones((7, 5))) for k in range(2)]
    both, one, other = (sum(s[name] for s in sums) for name in ("both", "one", "other"))
    assert found.acc.item() == pytest.approx(both / (one * other) ** 0.5)
    w = np.cos(LAT * COSINE)[:, None] * np.ones((7, 5))
    longer = np.hypot(*p) - np.hypot(*t)
    assert found.latitude_bias.item() == pytest.approx((w * longer).sum() / w.sum())
    assert "level_acc" not in found


def test_latitudes_may_lie_along_any_axis_and_be_told_by_coordinates():
    p, t, c = (x[0] for x in fields())
    expected = latitude_scores(p, t, latitude=LAT[:, None], climatology=c)
    turned = [np.swapaxes(x, 1, 2) for x in (p, t, c)]
    found = latitude_scores(turned[0], turned[1], latitude=LAT, climatology=turned[2])
    xr.testing.assert_allclose(found, expected, rtol=1e-12)
    for name, attrs in (("lat", {}), ("y", {"units": "degrees_north"})):
        coords = {name: (name, LAT, attrs)}
        arrays = [xr.DataArray(x, coords, ("channel", "lon", name)) for x in turned]
        found = latitude_scores(arrays[0], arrays[1], climatology=arrays[2])
        xr.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("units", ["m", "radian", "K"])
def test_an_axis_that_is_only_called_so_is_none_of_latitudes(units):
    p, t, c = (np.swapaxes(x[0], 1, 2) for x in fields())
    coords = {"lat": ("lat", LAT, {"units": units})}
    arrays = [xr.DataArray(x, coords, ("channel", "lon", "lat")) for x in (p, t)]
    assert not latitude_scores(*arrays, climatology=c).data_vars


def test_without_latitudes_there_is_nothing_and_without_a_climatology_no_correlation():
    p, t, c = (x[0] for x in fields())
    assert not latitude_scores(p, t, climatology=c).data_vars
    assert "acc" not in latitude_scores(p, t, latitude=LAT[:, None])
    # the climatology has no anomaly, and unknown cells of it count for the correlation alone
    assert np.isnan(latitude_scores(c, t, latitude=LAT[:, None], climatology=c).acc)
    holed = c.copy()
    holed[:, 3, :] = np.nan
    found = latitude_scores(p, t, latitude=LAT[:, None], climatology=holed)
    counts = np.ones((7, 5), bool)
    counts[3] = False
    sums = [written_out(p[k], t[k], c[k], LAT, counts) for k in range(2)]
    expected = [s["both"] / (s["one"] * s["other"]) ** 0.5 for s in sums]
    np.testing.assert_allclose(found.level_acc, expected)
    assert found.latitude_rmse == latitude_scores(p, t, latitude=LAT[:, None]).latitude_rmse
    with pytest.raises(GeometryError, match="the climatology has shape"):
        latitude_scores(p, t, climatology=c[:, 1:])
    for wrong, message in ((LAT * 2, "from -90 to 90"), (LAT[:, None, None], "are not those of")):
        with pytest.raises(GeometryError, match=message):
            latitude_scores(p, t, latitude=wrong)
