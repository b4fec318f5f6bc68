"""Drag of gravity waves against what is known of it, and the files of their columns."""

import h5py
import numpy as np
import pytest
import yaml

from map2map.errors import GeometryError, RecipeError, SaveError
from map2map.physics.gravity_waves import Air, Spectrum, rising_fluxes, saturated_flux, wave_drag
from map2map.synthetic.gravity_waves import Setting, simulate

LEVELS, LAUNCH = 40, 36
HALF = np.geomspace(2.0, 9e4, LEVELS + 1)[None]
SPECTRUM = Spectrum(flux=5e-3, azimuths=4, speeds=15)


def windy(columns=6, seed=0):
    """Winds, temperatures and half levels of smooth random columns."""
    rng = np.random.default_rng(seed)
    z = -np.log(HALF[:, 1:] / HALF[:, -1:])
    waves = [
        sum(
            rng.normal(0, 12, (columns, 1)) * np.cos(k * z + rng.uniform(0, 6, (columns, 1)))
            for k in (0.2, 0.5, 1.1)
        )
        for _ in range(2)
    ]
    warmth = 240 + 15 * np.cos(0.4 * z + rng.uniform(0, 6, (columns, 1)))
    return (*waves, warmth, np.repeat(HALF, columns, axis=0))


def test_without_waves_there_is_no_drag():
    drag = wave_drag(*windy(), Spectrum(flux=0.0), LAUNCH)
    assert all((part == 0).all() for part in drag)


def test_the_column_gains_exactly_the_momentum_that_does_not_leave_at_the_top():
    u, v, warmth, half = windy()
    drag = wave_drag(u, v, warmth, half, SPECTRUM, LAUNCH)
    mass = np.diff(half, axis=1) / 9.80665
    for gained, flux in ((drag.x, drag.flux_x), (drag.y, drag.flux_y)):
        column = (gained * mass).sum(axis=1)
        np.testing.assert_allclose(column, flux[:, LAUNCH] - flux[:, 0], rtol=1e-11, atol=1e-18)
        assert np.abs(column).max() > 1e-4
        # and none of it is below the launch
        assert (gained[:, LAUNCH:] == 0).all()


def test_fluxes_of_all_waves_add_up_to_those_of_the_column():
    u, v, warmth, half = windy()
    drag = wave_drag(u, v, warmth, half, SPECTRUM, LAUNCH)
    fluxes = np.stack(list(rising_fluxes(Air.of(u, v, warmth, half), SPECTRUM, LAUNCH)))[::-1]
    angles = 2 * np.pi * np.arange(4) / 4
    for flux, parts in ((drag.flux_x, np.cos(angles)), (drag.flux_y, np.sin(angles))):
        expected = np.einsum("hasc,a->ch", fluxes, parts)
        np.testing.assert_allclose(flux[:, : LAUNCH + 1], expected, rtol=1e-9, atol=1e-15)


def test_in_air_at_rest_waves_in_opposite_directions_cancel():
    _, _, warmth, half = windy()
    still = np.zeros_like(warmth)
    drag = wave_drag(still, still, warmth, half, Spectrum(azimuths=6), LAUNCH)
    assert all((part == 0).all() for part in drag)
    # nor is any wave weaker below the level where it saturates
    weak = Spectrum(flux=1e-9, slowest=20.0)
    fluxes = list(rising_fluxes(Air.of(still, still, warmth, half), weak, LAUNCH))
    np.testing.assert_array_equal(fluxes[3], fluxes[0])


def test_mirrored_wind_gives_mirrored_drag():
    u, v, warmth, half = windy()
    drag = wave_drag(u, v, warmth, half, SPECTRUM, LAUNCH)
    mirrored = wave_drag(-u, v, warmth, half, SPECTRUM, LAUNCH)
    np.testing.assert_allclose(mirrored.x, -drag.x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(mirrored.y, drag.y, rtol=1e-9, atol=1e-12)
    turned = wave_drag(-v, u, warmth, half, SPECTRUM, LAUNCH)
    np.testing.assert_allclose(turned.x, -drag.y, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(turned.y, drag.x, rtol=1e-9, atol=1e-12)
    assert np.abs(drag.x).max() > 1e-6


def test_no_flux_passes_a_critical_level_and_other_waves_do():
    still = np.zeros((1, LEVELS))
    wind = still.copy()
    wind[:, 15:20] = 30.0
    air = Air.of(wind, still, np.full((1, LEVELS), 250.0), HALF)
    fluxes = np.stack(list(rising_fluxes(air, SPECTRUM, LAUNCH)))[::-1, :, :, 0]
    slow = SPECTRUM.phase_speeds <= 30
    assert slow.any()
    assert not slow.all()
    assert (fluxes[:18, 0, slow] == 0).all()
    assert (fluxes[21:, 0, slow] > 0).all()
    assert (fluxes[5, 0, ~slow] > 0).all()
    # westward waves see a wind against them, and northward ones none
    assert (fluxes[5, 1:, slow] > 0).all()
    # what is filtered pushes the air towards the phase speed
    drag = wave_drag(wind, still, np.full((1, LEVELS), 250.0), HALF, SPECTRUM, LAUNCH)
    assert drag.x[0, 18:21].max() > 0


def test_waves_grow_until_they_saturate_and_then_follow_the_formula():
    # isothermal air at rest: N^2 = g^2 / (cp T), density p / (R T)
    warmth, still = np.full((1, LEVELS), 240.0), np.zeros((1, LEVELS))
    spectrum = Spectrum(flux=1e-4, azimuths=2, speeds=1, slowest=20.0, fastest=20.0)
    air = Air.of(still, still, warmth, HALF)
    fluxes = np.stack(list(rising_fluxes(air, spectrum, LEVELS)))[::-1, 0, 0, 0]
    buoyancy = 9.80665 / np.sqrt(1004.0 * 240.0)
    density = HALF[0] / (287.06 * 240.0)
    k = 2 * np.pi / 200e3
    most = 0.01 * density * k * 20.0**3 / (2 * buoyancy)
    np.testing.assert_allclose(fluxes, np.minimum(1e-4, most), rtol=1e-10)
    assert (fluxes == 1e-4).sum() > 5
    assert (fluxes < 1e-4).sum() > 5
    # where it breaks, u' equals c: u' w' rho e / 2 with w' = u' k c / N
    np.testing.assert_allclose(
        saturated_flux(np.array([20.0, 0.0, -3.0]), np.array(1.2), np.array(0.02), spectrum),
        [0.01 * 1.2 * 20.0 * (20.0 * k * 20.0 / 0.02) / 2, 0, 0],
        rtol=1e-12,
    )


def test_a_spectrum_carries_its_flux_and_peaks_where_it_should():
    spectrum = Spectrum(flux=2e-3, speeds=4001, slowest=0.1, fastest=200.0, peak=12.0)
    np.testing.assert_allclose(spectrum.launched.sum(), 2e-3)
    per_speed = spectrum.launched / np.gradient(spectrum.phase_speeds)
    # x / (1 + x^4) is largest at 3^(-1/4)
    np.testing.assert_allclose(
        spectrum.phase_speeds[per_speed.argmax()], 12.0 * 3**-0.25, rtol=3e-3
    )
    np.testing.assert_allclose(Spectrum(azimuths=8).directions[:, 3], [-(0.5**0.5), 0.5**0.5])


def test_columns_that_do_not_fit_are_refused():
    u, v, warmth, half = windy()
    with pytest.raises(GeometryError, match=r"half levels \(6, 40\); all need the same levels"):
        wave_drag(u, v, warmth, half[:, 1:], SPECTRUM, LAUNCH)
    with pytest.raises(GeometryError, match="must increase from the top"):
        wave_drag(u, v, warmth, half[:, ::-1], SPECTRUM, LAUNCH)
    with pytest.raises(GeometryError, match="must increase from the top, where they are above 0"):
        wave_drag(u, v, warmth, half - 2.0, SPECTRUM, LAUNCH)
    for launch in (0, LEVELS + 1):
        with pytest.raises(GeometryError, match=f"launched at half level {launch}; .* 1 to 40"):
            wave_drag(u, v, warmth, half, SPECTRUM, launch)


@pytest.mark.parametrize(
    "wrong",
    [{"azimuths": 3}, {"speeds": 0}, {"flux": -1.0}, {"slowest": 0.0}, {"fastest": 0.5}]
    + [{name: 0.0} for name in ("peak", "wavelength", "presence")],
)
def test_impossible_waves_are_refused(wrong):
    with pytest.raises(RecipeError):
        Spectrum(**wrong)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    out = tmp_path_factory.mktemp("waves")
    return out, simulate(out, rows=300, shards=6, seed=3)


def test_shards_have_the_layout_of_the_data_set_and_a_list_of_splits(simulated):
    out, files = simulated
    split = yaml.safe_load((out / "filenames-split.yaml").read_text())
    assert split == {
        "train": ["2015-01-01.h5", "2015-01-31.h5", "2015-03-02.h5", "2015-04-01.h5"],
        "val": ["2016-02-25.h5"],
        "test": ["2017-02-19.h5"],
    }
    assert sorted(p.name for p in (out / "raw").iterdir()) == sorted(p.name for p in files)
    for path in files:
        with h5py.File(path) as file:
            assert set(file) == {"x", "y"}
            assert (file["x"].shape, file["x"].dtype) == ((191, 300), np.float32)
            assert (file["y"].shape, file["y"].dtype) == ((126, 300), np.float32)
            x, y = file["x"][:], file["y"][:]
        assert np.isfinite(x).all()
        assert np.isfinite(y).all()
        u, v, warmth, pressure, ground = np.split(x, [63, 126, 189, 190])
        assert 8 < u.std() < 40
        assert 2 < v.std() < 20
        assert 150 < warmth.min() < warmth.max() < 320
        assert 5e4 < pressure.min() < pressure.max() < 1.07e5
        assert ground.min() == 0 < ground.max() < 5e4
        # neighbors in the row are neighbors on the planet
        assert np.corrcoef(warmth[30, 1:], warmth[30, :-1])[0, 1] > 0.7
        assert (y.std(axis=1) > 0).all()


def test_increments_are_the_drag_of_the_columns_that_are_written(simulated):
    _, files = simulated
    setting = Setting()
    with h5py.File(files[0]) as file:
        x, y = file["x"][:].astype(float), file["y"][:]
    u, v, warmth = (x[i : i + 63].T for i in (0, 63, 126))
    half = setting.grid.half(x[189])
    drag = wave_drag(u, v, warmth, half, setting.spectrum, 63)
    expected = 1800 * np.concatenate([drag.x, drag.y], axis=1).T
    # rounding of the inputs moves critical levels a little
    error = np.abs(y - expected).max(axis=1)
    assert (error < 1e-3 * np.abs(expected).max(axis=1) + 1e-7).all()


def test_a_shard_depends_on_its_date_and_the_seed_not_on_how_many_there_are(simulated, tmp_path):
    _, files = simulated
    again = simulate(tmp_path / "a", rows=300, shards=3, seed=3)
    other = simulate(tmp_path / "b", rows=300, shards=3, seed=4)
    known = {path.name: path for path in files}
    for path, different in zip(again, other, strict=True):
        with h5py.File(path) as a, h5py.File(known[path.name]) as b, h5py.File(different) as c:
            np.testing.assert_array_equal(a["x"][:], b["x"][:])
            np.testing.assert_array_equal(a["y"][:], b["y"][:])
            assert not np.allclose(a["x"][:], c["x"][:], rtol=1e-3)
    with h5py.File(again[0]) as a, h5py.File(again[1]) as b:
        assert not np.allclose(a["x"][:63], b["x"][:63], rtol=1e-3)


def test_data_are_replaced_only_if_told_and_only_if_they_are_simulated(tmp_path):
    simulate(tmp_path, rows=8, shards=4)
    with pytest.raises(SaveError, match=r"holds 5 files, .* allow to overwrite"):
        simulate(tmp_path, rows=8, shards=3)
    files = simulate(tmp_path, rows=9, shards=3, overwrite=True)
    assert sorted((tmp_path / "raw").iterdir()) == sorted(files)
    (tmp_path / "simulation.json").unlink()
    with pytest.raises(SaveError, match="may be no simulation, and are not removed"):
        simulate(tmp_path, rows=8, shards=3, overwrite=True)
    assert all(path.exists() for path in files)


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"shards": 2}, {"shards": 19}, {"seed": -1}])
def test_impossible_numbers_are_refused(tmp_path, wrong):
    with pytest.raises(RecipeError, match="simulate needs rows >= 1"):
        simulate(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
    for setting in ({"levels": 1}, {"step": 0.0}, {"mountains": 2000.0}, {"launch": 0.5}):
        with pytest.raises(RecipeError):
            Setting(**setting)
