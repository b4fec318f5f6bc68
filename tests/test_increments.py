"""Increments and the mixed layer's heat budget, against numbers by hand and the simulated sea."""

import numpy as np
import pytest
import xarray as xr

from map2map.cli import main
from map2map.derived import Box, Combination, Increment, MixedLayerWarming
from map2map.errors import FieldError, RecipeError
from map2map.synthetic import air_sea_fluxes
from map2map.synthetic.air_sea_fluxes import Setting, simulate

BOX = Box((1.0,))


def test_an_increment_is_the_difference_and_nothing_on_land():
    later, earlier = np.array([[3.0, 5.0, np.nan]]), np.array([[1.0, 9.0, 1.0]])
    mask = np.array([[1.0, 0.0, 1.0]])
    found = Increment("b", "a").compute({"a": earlier, "b": later}, BOX)
    np.testing.assert_array_equal(found, [[2.0, -4.0, np.nan]])
    made = Increment("b", "a", mask="m")
    assert made.needs == ("b", "a", "m")
    found = made.compute({"a": earlier, "b": later, "m": mask}, BOX)
    np.testing.assert_array_equal(found, [[2.0, np.nan, np.nan]])
    with pytest.raises(FieldError, match=r"of 1 channels .* 'b' has 1 and 'a' 2"):
        Increment("b", "a").compute({"a": np.ones((2, 3)), "b": later}, BOX)
    with pytest.raises(FieldError, match="mask 'm' has 2 channels"):
        made.compute({"a": earlier, "b": later, "m": np.ones((2, 3))}, BOX)


def test_a_layer_warms_by_its_heat_over_its_capacity():
    """100 W/m^2 for a day are 8.64 MJ/m^2, which warm 50 m by 8.64e6 / (1025 x 3990 x 50) K."""
    values = {"q": np.array([[150.0, np.nan, 1.0]]), "r": np.array([[-50.0, 1.0, 1.0]])}
    values["h"] = np.array([[50.0, 50.0, 0.0]])
    found = MixedLayerWarming(["q", "r"], "h", "1 day").compute(values, BOX)
    np.testing.assert_allclose(found, [[0.0422516, np.nan, np.nan]], rtol=1e-5)
    twice = MixedLayerWarming(["q", "r"], 25.0, "24h", heat_capacity=1995.0)
    assert twice.needs == ("q", "r")
    np.testing.assert_allclose(twice.compute(values, BOX)[0, 0], 4 * 0.0422516, rtol=1e-5)
    with pytest.raises(FieldError, match="'q' has 2"):
        twice.compute(values | {"q": np.ones((2, 3))}, BOX)
    for wrong in ({"fluxes": []}, {"density": 0.0}, {"step": "6"}):
        with pytest.raises(RecipeError):
            MixedLayerWarming(**({"fluxes": ["q"], "depth": 1.0, "step": "6h"} | wrong))


def test_a_combination_is_the_sum_of_fields_times_their_weights():
    values = {"a": np.array([[1.0, 2.0]]), "b": np.array([[10.0, np.nan]])}
    found = Combination(["a", "b", "a"], [2, -1, 0.5]).compute(values, BOX)
    np.testing.assert_array_equal(found, [[-7.5, np.nan]])
    np.testing.assert_array_equal(Combination(["a", "b"]).compute(values, BOX), [[11.0, np.nan]])
    with pytest.raises(RecipeError, match="a weight for each of its fields"):
        Combination(["a", "b"], [1.0])
    with pytest.raises(FieldError, match="of 2 channels is asked for, but 'a' has 1"):
        Combination(["a"], channels=2).compute(values, BOX)


def test_the_simulated_sea_keeps_the_heat_budget(tmp_path, monkeypatch):
    """Without heat only currents change it; what the heat adds is the sum of the increments."""
    setting = Setting(cells=(24, 36), days=1.5)
    simulate(tmp_path / "warm", train=1, test=0, setting=setting)
    monkeypatch.setattr(air_sea_fluxes, "SEA_HEAT", np.inf)
    simulate(tmp_path / "inert", train=1, test=0, setting=setting)
    fluxes, sea, inert = (
        xr.open_dataset(tmp_path / folder / "train" / f"{kind}_00.nc")
        for folder, kind in (("warm", "fluxes"), ("warm", "ocean"), ("inert", "ocean"))
    )
    heat = (fluxes.sensible + fluxes.latent).values[:-1].astype(np.float64) * 6 * 3600
    added = np.diff((sea.sst - inert.sst).values.astype(np.float64), axis=0)
    expected = heat / (1025 * 3990 * sea.mld.values)
    # files are in single precision, 3e-5 K of 290 K
    np.testing.assert_allclose(added, expected, atol=2e-4)
    assert np.nanstd(expected) > 5e-3
    # what currents carry is of that size, too, so that neither alone tells the increment
    carried = np.diff(inert.sst.values.astype(np.float64), axis=0)
    assert 0.2 < np.nanstd(carried) / np.nanstd(np.diff(sea.sst.values, axis=0)) < 1.2


def test_the_recipe_learns_increments_and_is_scored_beside_what_is_simple(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = ["--setting.days=1.5", "--setting.cells=[24,48]"]
    assert main(["simulate", "air_sea_fluxes", "--train=1", "--test=1", *size, "--out=data"]) == 0
    assert main(["prepare", "ocean_surface_increment"]) == 0
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.logger=false",
             "--trainer.precision=32", "--model.model.init_args.width=2",
             "--trainer.accelerator=cpu"]  # fmt: skip
    assert main(["train", "ocean_surface_increment", *short]) == 0
    budget = (
        "budget:increment=MixedLayerWarming(fluxes=[bulk_sensible, bulk_latent], depth=mld, "
        "step='6h')"
    )
    trend = "trend:increment=Increment(later=sst, earlier=sst_before)"
    both = "both:increment=Combination(of=[trend, warming, warming_before], weights=[1, 1, -1])"
    scored = ["--metrics", "latitude", "--climatology"]
    scored += [part for formula in (budget, trend, both) for part in ("--formula", formula)]
    assert main(["evaluate", "emulator.safetensors", "--split", "test", *scored]) == 0
    ocean = xr.open_dataset("data/test/ocean_00.nc")
    sst, mask = ocean.sst.values.astype(np.float64), ocean["mask"].values == 1
    with xr.open_dataset("scores.nc") as scores:
        methods = ["emulator", "persistence", "training mean", "climatology"]
        methods += ["budget", "trend", "both"]
        assert list(scores["method"].values) == methods
        # six frames, of which the first has none before and the last none behind it
        assert scores.sizes["run"] == 4
        np.testing.assert_allclose(scores.masked[:, 0], 1 - mask.mean())
        for k in range(4):
            change = (sst[k + 2] - sst[k + 1])[mask]
            row = scores.isel(run=k, field=0)
            rmse = row.rmse.sel({"method": "persistence"})
            np.testing.assert_allclose(rmse, np.sqrt(np.mean(change**2)), rtol=1e-3)
            of_trend = change - (sst[k + 1] - sst[k])[mask]
            rmse = row.rmse.sel({"method": "trend"})
            np.testing.assert_allclose(rmse, np.sqrt(np.mean(of_trend**2)), rtol=1e-2)
        rmse = scores.rmse.mean("run").squeeze()
        order = ["both", "trend", "budget", "persistence"]
        assert (np.diff([float(rmse.sel({"method": name})) for name in order]) > 0).all()
        assert np.isfinite(scores.acc.sel({"method": "emulator"})).all()
