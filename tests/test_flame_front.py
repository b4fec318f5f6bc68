"""Simulated flames have the layout that they promise, and what is known of flames holds."""

import json

import h5py
import numpy as np
import pytest
import yaml

from map2map.errors import GeometryError, RecipeError, SaveError
from map2map.physics.flames import flame_profile
from map2map.synthetic.flame_front import Case, Flame, Setting, filtered_flame, fronts, simulate

SMALL = Setting(size=12, every=2, thickness=2e-4, integral=0.25)
TINY = Setting(size=8, every=2, thickness=2e-4, integral=0.2)
NAMES = ("filt_8", "filt_grad_8", "grad_filt_8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("flames")
    files = simulate(out, snapshots=2, setting=SMALL, seed=5)
    assert [str(path.relative_to(out)) for path in files] == [
        f"raw/DNS{n}_0000{k}000.h5" for n in (1, 2, 3) for k in (1, 2)
    ]
    return out


def every(folder, pattern="*"):
    """The fields of each file, without the copies of planes."""
    for path in sorted((folder / "raw").glob(f"{pattern}.h5")):
        with h5py.File(path) as file:
            yield path.stem, *(file[name][1:, 1:, 1:] for name in NAMES)


def test_files_hold_what_they_promise(folder):
    for path in (folder / "raw").iterdir():
        with h5py.File(path) as file:
            assert set(file) == {*NAMES}
            assert file.attrs["time"] > 0
            for name, units in zip(NAMES, ("1", "1/m", "1/m"), strict=True):
                item = file[name]
                assert (item.shape, item.dtype, item.chunks) == ((25, 13, 13), np.float64, None)
                # a plane more on each axis, a copy of the last
                for axis in range(3):
                    planes = np.moveaxis(item[...], axis, 0)
                    np.testing.assert_array_equal(planes[0], planes[-1])
                assert item.attrs["units"] == units
                assert item.attrs["cell_size"] == pytest.approx(2e-4)
                assert item.attrs["filter_width"] == pytest.approx(8e-4)
    record = json.loads((folder / "simulation.json").read_text())
    assert record["parameters"] | {"size": 12, "layout": "cnf", "seed": 5} == record["parameters"]


def test_gas_burns_towards_the_start_of_the_first_axis(folder):
    for _, c, surface, resolved in every(folder):
        assert -1e-12 <= c.min() < c.max() <= 1 + 1e-12
        assert c[0].max() < 0.1
        assert c[-1].min() > 0.9
        assert np.isfinite(surface).all()
        # steepest if neither filtered nor wrinkled: 1 / 0.2 mm
        assert 0 <= resolved.min() <= surface.max() < 1 / 2e-4
        assert surface.max() > 0.15 / 2e-4


def test_the_filtered_gradient_is_at_least_that_of_the_filtered(folder):
    for _, _, surface, resolved in every(folder):
        assert (surface >= resolved - 1e-9 * surface.max()).all()
        # and more where the filter has hidden wrinkles
        assert surface.sum() > 1.02 * resolved.sum()


def test_turbulence_makes_a_flame_larger_and_the_flame_of_the_transient_is_between(folder):
    area = {}
    for name, c, surface, _ in every(folder):
        area[name] = surface.sum() * 2e-4 / c[0].size
        # lines across a flame cross it once or more
        assert (surface.sum(axis=0) * 2e-4).min() > 0.75
    assert min(area.values()) > 1.05
    levels = {}
    for path in (folder / "raw").iterdir():
        with h5py.File(path) as file:
            levels[path.stem] = file.attrs["rms"] / 0.36
    assert [round(levels[name], 6) for name in sorted(levels)] == [4, 4, 8, 8, 12, 6]


def test_flames_are_those_of_their_seed(folder, tmp_path):
    simulate(tmp_path / "again", snapshots=1, setting=SMALL, seed=5)
    first = {name: c for name, c, *_ in every(folder)}
    for name, c, *_ in every(tmp_path / "again"):
        np.testing.assert_array_equal(c, first[name])
    simulate(tmp_path / "other", snapshots=1, setting=SMALL, seed=6)
    for name, c, *_ in every(tmp_path / "other"):
        assert np.abs(c - first[name]).max() > 0.1


def plane(setting, place):
    n = setting.size * setting.every
    x = (np.arange(2 * n) + 0.5) * setting.spacing - place
    return np.broadcast_to(x[:, None, None], (2 * n, n, n))


def test_a_plane_front_is_the_laminar_flame_and_its_surface_the_cross_section():
    setting = Setting(size=8, every=4, width=0)
    x = plane(setting, 2.71e-3)
    c, surface, resolved = filtered_flame(x, setting)
    here = slice(2, None, 4)
    np.testing.assert_array_equal(c, flame_profile(x, 4e-4)[here, here, here])
    np.testing.assert_array_equal(surface, resolved)
    every_cell = Setting(size=16, every=2, width=8)
    x = plane(every_cell, 3.3e-3)
    c, surface, resolved = filtered_flame(x, every_cell)
    np.testing.assert_allclose(surface, resolved, atol=1e-9 * surface.max())
    volume, side = (2 * 1e-4) ** 3, 16 * 2 * 1e-4
    assert surface.sum() * volume == pytest.approx(side**2, rel=1e-3)
    np.testing.assert_allclose(surface.sum(axis=0) * 2e-4, 1, rtol=1e-3)


def test_a_calm_flame_stays_plane_in_its_place_at_the_laminar_speed():
    case = Case("calm", intensity=1e-6)
    flame = Flame(SMALL, case, np.random.default_rng(0))
    flame.burn(1e-4, 1.0)
    distance = flame.distance()
    assert flame.carried > 1
    np.testing.assert_allclose(distance, plane(SMALL, 24e-4), atol=2e-7)
    assert flame.wind * flame.cell == pytest.approx(0.36, rel=1e-3)


def test_the_front_is_a_distance_and_stays_where_it_is():
    found = list(fronts(SMALL, Case("x", 4.0), 2, np.random.default_rng(1)))
    times = [time for time, _, _ in found]
    turnover = 0.25 * 24e-4 / (4 * 0.36)
    np.testing.assert_allclose(times, [1.25 * turnover, 1.5 * turnover])
    for _, rms, level in found:
        assert rms == pytest.approx(4 * 0.36)
        assert level.shape == (48, 24, 24)
        assert abs((level < 0).mean() * 48 - 24) < 1.5
        slopes = np.gradient(level, 1e-4)
        steepness = np.linalg.norm(slopes, axis=0)[:, 1:-1, 1:-1]
        near = (np.abs(level) < 3e-4)[:, 1:-1, 1:-1]
        # but for ridges, where two parts of the front are as near
        assert np.median(np.abs(steepness[near] - 1)) < 0.1
        assert np.quantile(np.abs(steepness[near] - 1), 0.9) < 0.35


def test_the_other_layout_has_other_names_axes_and_a_list_of_files(tmp_path):
    setting = Setting(size=8, every=4, integral=0.15)
    files = simulate(tmp_path, snapshots=1, setting=setting, layout="r2")
    assert [path.name for path in files] == ["R2_00001000.h5", "R3_00001000.h5"]
    assert yaml.safe_load((tmp_path / "filenames.yaml").read_text()) == ["R2_00001000.h5"]
    shapes = []
    for path in files:
        with h5py.File(path) as file:
            assert set(file) == {"c_filt", "c_grad_filt", "c_filt_grad"}
            c, surface, resolved = (
                file[name][...] for name in ("c_filt", "c_grad_filt", "c_filt_grad")
            )
            assert file["c_filt"].chunks is None
            assert c.dtype == np.float64
        shapes.append(c.shape)
        # along z, y, x
        assert c[..., 0].max() < 0.1
        assert c[..., -1].min() > 0.9
        assert (surface >= resolved - 1e-9 * surface.max()).all()
        assert surface.sum() > 1.02 * resolved.sum()
    assert shapes == [(8, 8, 16), (10, 10, 20)]


def test_nothing_is_replaced_or_mixed_unless_asked_for(tmp_path):
    setting = TINY
    (path, *_) = simulate(tmp_path, snapshots=1, setting=setting)
    before = path.read_bytes()
    for change in ({"seed": 1}, {"layout": "r2"}):
        with pytest.raises(SaveError, match=r"simulation.json.* would be replaced; choose another"):
            simulate(tmp_path, snapshots=1, setting=setting, **change)
    assert path.read_bytes() == before
    with pytest.raises(SaveError, match=r"holds DNS1_00001000.h5, .* would be read with the new"):
        simulate(tmp_path, snapshots=1, setting=setting, layout="r2", overwrite=True)
    simulate(tmp_path, snapshots=1, setting=setting, seed=1, overwrite=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 3}, "flames need size >= 4"),
        ({"every": 3}, "an even `every`"),
        ({"width": -1}, "width >= 0"),
        ({"speed": 0.0}, "`speed` must be positive, not 0.0"),
        ({"thickness": np.inf}, "`thickness` must be positive"),
        ({"thickness": 1e-4}, "not resolved by cells of 0.0001 m"),
        ({"integral": 0.6}, "eddies of 0.6 of the box do not fit"),
        ({"markstein": -0.1}, "`markstein` must be 0 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, message):
    with pytest.raises(RecipeError, match=message):
        Setting(**setting)


def test_arguments_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="simulate needs snapshots >= 1 and seed >= 0"):
        simulate(tmp_path, snapshots=0)
    with pytest.raises(RecipeError, match="simulate needs snapshots >= 1 and seed >= 0"):
        simulate(tmp_path, seed=-1)
    with pytest.raises(RecipeError, match="unknown layout 'cfn'; did you mean 'cnf'"):
        simulate(tmp_path, layout="cfn")
    assert not list(tmp_path.iterdir())


def test_a_flame_that_does_not_fit_into_its_box_is_told(tmp_path):
    thick = Setting(size=4, every=2, thickness=6e-4, integral=0.3)
    with pytest.raises(GeometryError, match="the flame DNS1 reaches an end of its box after"):
        simulate(tmp_path, snapshots=1, setting=thick)


def test_the_command_simulates_and_inspects(tmp_path, m2m, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["--out=flames", "--snapshots=1", "--setting.size=8", "--setting.every=2"]
    argv += ["--setting.thickness=2e-4", "--setting.integral=0.2"]
    assert m2m("simulate", "flame_front", *argv)[0] == 0
    status, out, _ = m2m("inspect", "flames/raw/DNS1_00001000.h5", "--ndim", "3")
    assert (status, "filt_grad_8" in out, "1/m" in out) == (0, True, True)
    status, _, err = m2m("simulate", "flame_front", *argv)
    assert (status, "would be replaced" in " ".join(err.split())) == (2, True)
