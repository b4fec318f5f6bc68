import netCDF4
import numpy as np
import pytest
import xarray as xr

from map2map.errors import RecipeError, SaveError
from map2map.physics.basin import Basin, Waves, beside_smooth, fetch, peak_wave_speed
from map2map.physics.bulk_fluxes import Air, Sea, saturation_humidity, turbulent_fluxes
from map2map.regridding import Axes, Regridder
from map2map.sources import open_source
from map2map.synthetic import air_sea_fluxes
from map2map.synthetic.air_sea_fluxes import Setting, Weather, coupled_fluxes, simulate

SMALL = Setting(cells=(24, 36), ratio=3, days=1)


def flat(sea, spacing=0.1):
    """A basin on the given cells, at 40 degrees north."""
    rows, columns = sea.shape
    return Basin(40 + spacing * np.arange(rows), spacing * np.arange(columns), sea)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("sea")
    simulate(out, train=2, test=1, setting=SMALL, seed=4)
    return out


def runs(folder, kind, split="train", number=4):
    return xr.open_dataset(folder / split / f"{kind}_{number:02d}.nc")


class TestBasin:
    def test_currents_hold_the_slope_of_the_surface(self):
        sea = flat(np.ones((20, 30), bool))
        x, y = sea.xy
        f = 2 * 7.2921e-5 * np.sin(np.radians(sea.lat.mean()))
        u, v = sea.currents(2e-6 * x - 3e-6 * y)
        np.testing.assert_allclose(f * u, 9.81 * 3e-6)
        np.testing.assert_allclose(f * v, 9.81 * 2e-6)
        # around a hill in the north water turns with the clock
        u, v = sea.currents(np.exp(-(x**2 + y**2) / 30e3**2))
        assert u[15, 15] > 0 > u[4, 15]
        assert v[10, 5] > 0 > v[10, 25]

    def test_eddies_end_at_coasts(self):
        wide = np.ones((20, 30), bool)
        wide[:, :4] = False
        sea = flat(wide)
        assert (sea.openness[:, :4] == 0).all()
        assert (np.diff(sea.openness[:, 3:], axis=1) > 0).all()

    def test_waves_have_the_deviation_and_the_slopes_they_say(self):
        rng = np.random.default_rng(0)
        x, y = rng.uniform(0, 1e7, (2, 4000))
        waves = Waves.draw(300, (50e3, 300e3), 2.5, rng, drift=(3.0, -4.0))
        np.testing.assert_allclose(waves(x, y).std(), 2.5, rtol=0.1)
        lengths = 2 * np.pi / np.hypot(*waves.numbers)
        assert lengths.min() > 50e3
        assert lengths.max() < 300e3
        to_east, to_north = waves.slopes(x, y, 1e4)
        h = 10.0
        np.testing.assert_allclose(
            to_east, (waves(x + h, y, 1e4) - waves(x - h, y, 1e4)) / 2 / h, atol=1e-9
        )
        np.testing.assert_allclose(
            to_north, (waves(x, y + h, 1e4) - waves(x, y - h, 1e4)) / 2 / h, atol=1e-9
        )

    def test_waves_that_deviate_in_nothing_drift_as_they_are(self):
        rng = np.random.default_rng(1)
        drawn = Waves.draw(30, (50e3, 300e3), 1.0, rng, drift=(3.0, -4.0))
        rigid = Waves(drawn.amplitudes, drawn.numbers, [3, -4] @ drawn.numbers, drawn.phases)
        x, y = rng.uniform(0, 1e6, (2, 100))
        np.testing.assert_allclose(rigid(x, y, 5e3), rigid(x - 15e3, y + 20e3), atol=1e-9)
        np.testing.assert_allclose(drawn.frequencies, rigid.frequencies, atol=1.2e-3)

    @pytest.mark.parametrize(
        ("wind", "axis", "order"),
        [((5, 0), 1, 1), ((-5, 0), 1, -1), ((0, 5), 0, 1), ((0, -5), 0, -1)],
    )
    def test_fetch_counts_the_cells_upwind(self, wind, axis, order):
        wide = np.zeros((11, 11), bool)
        wide[1:-1, 1:-1] = True
        # cells as wide as they are high
        sea = flat(wide)
        sea = Basin(sea.lat, sea.lon / np.cos(np.radians(sea.lat.mean())), wide)
        step = sea.sizes[0]
        u, v = (np.full(wide.shape, float(w)) for w in wind)
        found = fetch(sea, u, v)
        assert np.isnan(found[~wide]).all()
        inner = found[1:-1, 1:-1]
        expected = (np.arange(9) + 0.5)[::order] * step
        along = inner if axis == 1 else inner.T
        np.testing.assert_allclose(along, np.broadcast_to(expected, (9, 9)), rtol=1e-9)

    def test_waves_grow_with_fetch_until_they_run_before_the_wind(self):
        # at 10 m/s over 10 km: f = 3.5 (9.81 / 10) (981)^-0.33 = 0.3535 / s, c = g / (2 pi f)
        np.testing.assert_allclose(peak_wave_speed(np.array(10.0), np.array(1e4)), 4.416, rtol=2e-3)
        np.testing.assert_allclose(peak_wave_speed(np.array(10.0), np.array(1e8)), 12.0)

    def test_a_smooth_field_has_nothing_beside_it_up_to_the_coast(self):
        sea = np.ones((30, 30), bool)
        sea[:, 20:] = False
        values = np.where(sea, 288.0, np.nan)
        np.testing.assert_allclose(beside_smooth(values, sea, 4.0), 0, atol=1e-10)
        values[10, 10] += 1
        rest = beside_smooth(values, sea, 4.0)
        assert rest[10, 10] > 0.9
        assert (rest[:, 20:] == 0).all()

    def test_it_is_mostly_sea_and_closed(self):
        lat, lon = 37 + np.arange(72) / 12, 2 + np.arange(96) / 12
        sea = Basin.draw(lat, lon, np.random.default_rng(0)).sea
        assert 0.6 < sea.mean() < 0.64
        rim = np.concatenate([sea[0], sea[-1], sea[:, 0], sea[:, -1]])
        assert rim.mean() < 0.1


class TestWeather:
    def test_without_friction_the_wind_is_geostrophic(self, monkeypatch):
        monkeypatch.setattr(air_sea_fluxes, "FRICTION", 1.0)
        monkeypatch.setattr(air_sea_fluxes, "TURN", 0.0)
        sea = flat(np.ones((40, 50), bool), 0.02)
        air = Weather.draw(sea, np.random.default_rng(0)).at(7e4)
        to_north, to_east = np.gradient(air["pressure"], *sea.sizes)
        inside = (slice(1, -1),) * 2
        f = sea.coriolis
        np.testing.assert_allclose(air["u"][inside], -(to_north / 1.2 / f)[inside], atol=0.05)
        np.testing.assert_allclose(air["v"][inside], (to_east / 1.2 / f)[inside], atol=0.05)

    def test_friction_turns_the_wind_towards_low_pressure_and_land_slows_it(self):
        wide = np.ones((40, 50), bool)
        wide[:, 25:] = False
        sea = flat(wide, 0.02)
        air = Weather.draw(sea, np.random.default_rng(0)).at(0.0)
        to_north, to_east = np.gradient(air["pressure"], *sea.sizes)
        down = -(air["u"] * to_east + air["v"] * to_north)
        assert (down[1:-1, 1:-1] > 0).all()
        open_sea = flat(np.ones((40, 50), bool), 0.02)
        free = Weather.draw(open_sea, np.random.default_rng(0)).at(0.0)
        slower = np.where(wide, 1.0, 0.6)
        np.testing.assert_allclose(air["u"], slower * free["u"])
        np.testing.assert_allclose(air["v"], slower * free["v"])


class TestCoupledFluxes:
    def air(self, shape, **changes):
        whole = {"u": 8.0, "v": 0.0, "temperature": 286.0, "relative": 0.7, "pressure": 101500.0}
        return {k: np.full(shape, v) for k, v in (whole | changes).items()}

    def test_over_even_water_far_from_coasts_they_are_those_of_a_grown_sea(self):
        sea = flat(np.ones((10, 200), bool))
        still = np.zeros(sea.sea.shape)
        air = self.air(still.shape)
        found = coupled_fluxes(sea, air, still + 288.0, (still, still))
        humidity = 0.7 * saturation_humidity(286.0, 101500.0)
        expected = turbulent_fluxes(
            Air(8.0, 0.0, 286.0, humidity, 101500.0), Sea(288.0, wave_speed=1.2 * 8.0)
        )
        for name in ("stress_x", "sensible", "latent"):
            np.testing.assert_allclose(getattr(found, name)[5, -1], getattr(expected, name))
        # by the western coast waves are young and rough
        assert found.stress_x[5, 0] > 1.15 * found.stress_x[5, -1]

    def test_above_a_warm_eddy_the_wind_pushes_more(self):
        sea = flat(np.ones((60, 60), bool), 0.5)
        still = np.zeros(sea.sea.shape)
        sst = still + 288.0
        sst[30, 40] += 2.0
        found = coupled_fluxes(sea, self.air(still.shape), sst, (still, still))
        even = coupled_fluxes(sea, self.air(still.shape), still + 288.0, (still, still))
        warmth = beside_smooth(sst, sea.sea, 8.0)[30, 40]
        # drag grows faster than the square of the wind, and warm water stirs the air
        least = (1 + 0.4 * warmth / 8.0) ** 2
        assert found.stress_x[30, 40] / even.stress_x[30, 40] > least > 1.15
        np.testing.assert_allclose(found.stress_x[5, 40], even.stress_x[5, 40], rtol=1e-4)


class TestFiles:
    def test_grids_share_their_edges_and_have_land_of_their_own(self, folder):
        ocean, air = runs(folder, "ocean"), runs(folder, "atmosphere")
        assert ocean.sst.shape == (4, 24, 36)
        assert air.u10.shape == (4, 8, 12)
        for name in ("lat_bnds", "lon_bnds"):
            np.testing.assert_allclose(
                [air[name].min(), air[name].max()], [ocean[name].min(), ocean[name].max()]
            )
        sea = ocean["mask"].to_numpy() == 1
        for name in ("sst", "uo", "vo", "zos"):
            np.testing.assert_array_equal(
                np.isfinite(ocean[name]), np.broadcast_to(sea, (4, 24, 36))
            )
        for values in runs(folder, "fluxes").drop_vars(["lat_bnds", "lon_bnds"]).values():
            np.testing.assert_array_equal(np.isfinite(values), np.broadcast_to(sea, (4, 24, 36)))
        for name in ("u10", "t2m", "q2m", "sp"):
            assert np.isfinite(air[name]).all()
        # the share of land is that of the fine cells in a coarse one
        share = Regridder(Axes.of(ocean, ocean), Axes.of(air, air), 1.0)(1 - ocean["mask"])
        np.testing.assert_allclose(air.land, share, atol=1e-6)
        assert ((air.land > 0) & (air.land < 1)).any()

    def test_increments_are_what_the_heat_does_to_the_mixed_layer(self, folder):
        fluxes, ocean = runs(folder, "fluxes"), runs(folder, "ocean")
        heat = (fluxes.sensible + fluxes.latent) * 6 * 3600
        np.testing.assert_allclose(
            fluxes.sst_increment, heat / (1025 * 3990 * ocean.mld), rtol=1e-4, atol=1e-8
        )

    def test_numbers_are_those_of_a_sea(self, folder):
        ocean, air, fluxes = (runs(folder, kind) for kind in ("ocean", "atmosphere", "fluxes"))
        assert 280 < ocean.sst.min() < ocean.sst.max() < 297
        assert np.hypot(ocean.uo, ocean.vo).max() < 2
        assert np.hypot(air.u10, air.v10).max() < 30
        assert 95000 < air.sp.min() < air.sp.max() < 106000
        assert 0.001 < air.q2m.min() < air.q2m.max() < 0.02
        assert -600 < fluxes.latent.min() < fluxes.latent.mean() < -20
        assert abs(fluxes.sensible.mean()) < 60
        assert np.hypot(fluxes.taux, fluxes.tauy).max() < 2

    def test_bulk_formulae_of_the_forecasts_are_close_but_not_the_truth(self, folder):
        ocean, air, fluxes = (runs(folder, kind) for kind in ("ocean", "atmosphere", "fluxes"))
        regrid = Regridder(Axes.of(air, air), Axes.of(ocean, ocean))
        fine = [regrid(air[name]) for name in ("u10", "v10", "t2m", "q2m", "sp")]
        bulk = turbulent_fluxes(Air(*fine), Sea(ocean.sst, ocean.uo, ocean.vo))
        for name, values in (("latent", bulk.latent), ("taux", bulk.stress_x)):
            truth = fluxes[name].to_numpy()
            at_sea = np.isfinite(truth)
            unexplained = np.mean((values - truth)[at_sea] ** 2) / truth[at_sea].var()
            assert 0.005 < unexplained < 0.4

    def test_attributes_follow_the_conventions(self, folder):
        with netCDF4.Dataset(folder / "test" / "fluxes_04.nc") as file:
            assert file["latent"].standard_name == "surface_downward_latent_heat_flux"
            assert file["latent"].units == "W m-2"
            assert file["time"].units == "hours since 2000-01-01 00:00:00"
            assert (file["lat"].units, file["lat"].bounds) == ("degrees_north", "lat_bnds")
        source = open_source(folder / "train" / "ocean_04.nc", ndim=2, framed=True)
        assert source.stored("sst").frames == 4
        assert source.stored("sst").units == "K"
        assert source.stored("mask").frames is None

    def test_a_run_depends_on_its_seed_and_split_alone(self, folder, tmp_path):
        simulate(tmp_path, train=1, test=0, setting=SMALL, seed=5)
        for kind in ("atmosphere", "ocean", "fluxes"):
            again = xr.open_dataset(tmp_path / "train" / f"{kind}_05.nc")
            xr.testing.assert_identical(again, runs(folder, kind, number=5))
        for other in (runs(folder, "ocean", number=4), runs(folder, "ocean", "test", 4)):
            np.testing.assert_array_equal(other["mask"], runs(folder, "ocean", number=5)["mask"])
        assert not np.allclose(
            runs(folder, "ocean", "test").sst, runs(folder, "ocean").sst, equal_nan=True
        )

    def test_coasts_are_drawn_anew_for_another_basin(self, tmp_path):
        setting = Setting(cells=(24, 36), days=0.25, basin=1)
        simulate(tmp_path, train=1, test=0, setting=setting)
        other = air_sea_fluxes.grids(SMALL)[0].sea
        assert (runs(tmp_path, "ocean", number=0)["mask"] != other).any()

    def test_existing_runs_are_not_replaced(self, folder):
        before = (folder / "train" / "ocean_04.nc").stat().st_mtime_ns
        with pytest.raises(SaveError, match=r"ocean_04\.nc|atmosphere_04\.nc"):
            simulate(folder, train=1, test=0, setting=SMALL, seed=4)
        assert (folder / "train" / "ocean_04.nc").stat().st_mtime_ns == before

    @pytest.mark.parametrize(
        "wrong", [{"cells": (25, 36)}, {"ratio": 0}, {"spacing": 0.0}, {"hours": 48.0, "days": 1}]
    )
    def test_settings_that_cannot_be_are_refused(self, wrong):
        with pytest.raises(RecipeError):
            Setting(**({"cells": (24, 36)} | wrong))

    def test_no_runs_are_refused(self, tmp_path):
        with pytest.raises(RecipeError, match="at least one run"):
            simulate(tmp_path, train=0, test=0)
