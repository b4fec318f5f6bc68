"""Files of cloudy columns: layout, plausible numbers, heating that fits the fluxes."""

from datetime import date

import netCDF4
import numpy as np
import pytest

from map2map.column_stack import assemble_inputs, assemble_outputs
from map2map.errors import RecipeError, SaveError
from map2map.synthetic.radiation_columns import Group, Setting, columns, groups_of, simulate

SHAPES = {
    "sca_inputs": (17,),
    "col_inputs": (137, 27),
    "hl_inputs": (138, 2),
    "inter_inputs": (136, 1),
    "pressure_hl": (138, 1),
    "lat": (),
    "lon": (),
    "flux_dn_sw": (138,),
    "flux_up_sw": (138,),
    "flux_dn_lw": (138,),
    "flux_up_lw": (138,),
    "hr_sw": (137,),
    "hr_lw": (137,),
}

FLUXES = [name for name in SHAPES if name.startswith("flux")]

COUNT = 60


def contents(paths):
    found = {}
    for path in paths:
        with netCDF4.Dataset(path) as file:
            for name, variable in file.variables.items():
                variable.set_auto_mask(False)
                found[name] = variable[:]
    return found


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    out = tmp_path_factory.mktemp("radiation")
    return out, simulate(out, columns_per_group=COUNT, groups=4, seed=2)


@pytest.fixture(scope="module")
def noon():
    return columns(Group(date(2020, 1, 1), 0, 8), 150)


def test_a_group_is_a_pair_of_files_with_the_arrays_of_the_data_set(simulated):
    _, files = simulated
    names = ["2020010100_0c8", "2020013100_0c13", "2019013100_0c8", "2019053100_0c8"]
    assert [path.name for path in files] == [
        f"{kind}_{name}.nc" for name in names for kind in ("rad4NN_inputs", "3dcorrection_outputs")
    ]
    for pair in zip(files[::2], files[1::2], strict=True):
        arrays = contents(pair)
        assert set(arrays) == set(SHAPES)
        for name, shape in SHAPES.items():
            assert arrays[name].shape == (COUNT, *shape)
            assert arrays[name].dtype == np.float32
            assert np.isfinite(arrays[name]).all()
        assert set(contents(pair[1:])) == {*FLUXES, "hr_sw", "hr_lw"}
    with netCDF4.Dataset(files[1]) as file:
        assert {file[name].units for name in FLUXES} == {"W m-2"}
        assert file["hr_lw"].units == "K d-1"
    with netCDF4.Dataset(files[0]) as file:
        assert file["pressure_hl"].units == "Pa"
        assert file["col_inputs"].dimensions == ("column", "level", "col_inputs_feature")


def test_inputs_are_plausible_and_in_the_order_of_the_data_set(noon):
    skin, mu, *_ = noon["sca_inputs"].T
    albedos, emissivity, sun = np.split(noon["sca_inputs"], [2, 14, 16], axis=1)[1:]
    assert 200 < skin.min() < skin.max() < 330
    assert 0 <= mu.min() < mu.max() <= 1
    assert 0 < albedos.min() < albedos.max() < 1
    assert 0.9 < emissivity.min() < emissivity.max() < 1
    assert ((sun > 1300) & (sun < 1420)).all()
    half = noon["hl_inputs"][..., 1]
    np.testing.assert_array_equal(half, noon["pressure_hl"][..., 0])
    assert (np.diff(half, axis=1) > 0).all()
    assert 150 < noon["hl_inputs"][..., 0].min() < noon["hl_inputs"][..., 0].max() < 320
    assert 0 < noon["inter_inputs"].min() < noon["inter_inputs"].max() < 1
    mass = np.diff(half, axis=1) / 9.80665
    q, o3, co2, _, ch4, o2 = (noon["col_inputs"][..., i] for i in range(6))
    assert 5 < (q * mass).sum(axis=1).mean() < 45
    dobson = (o3 * mass).sum(axis=1) / 2.1415e-5
    assert 180 < dobson.min() < dobson.max() < 450
    np.testing.assert_allclose(co2, 6.3e-4, rtol=0.05)
    assert 3e-7 < ch4.min() < ch4.max() < 1.2e-6
    np.testing.assert_allclose(o2, 0.2314, rtol=0.04)
    fraction = noon["col_inputs"][..., 10]
    assert fraction.min() == 0
    assert 0.8 < fraction.max() <= 1
    liquid, ice, drop, crystal = (noon["col_inputs"][..., i] for i in range(23, 27))
    assert ((liquid + ice > 0) == (fraction > 0)).all()
    assert 1e-4 < liquid.max() < 5e-3
    assert 5e-6 < drop.min() < crystal.max() < 1e-4
    # cold clouds are ice
    layer = (noon["hl_inputs"][:, 1:, 0] + noon["hl_inputs"][:, :-1, 0]) / 2
    assert (liquid[layer < 248] == 0).all()
    assert (ice[layer > 275] == 0).all()


def test_heating_is_the_divergence_of_the_fluxes_that_are_written(noon):
    pressure = noon["pressure_hl"][..., 0].astype(float)
    for kind in ("sw", "lw"):
        net = noon[f"flux_dn_{kind}"].astype(float) - noon[f"flux_up_{kind}"]
        thick = np.diff(pressure, axis=1)
        expected = -843.9188844621514 * np.diff(net, axis=1) / thick
        # of fluxes rounded to single precision
        rounding = 843.9 * 4 * 2**-24 * 60 / thick + 1e-6
        assert (np.abs(noon[f"hr_{kind}"] - expected) < rounding).all()
        assert np.abs(expected).max() > 0.1


def test_differences_have_both_signs_and_are_nothing_without_clouds_or_sun(noon):
    cloudy = noon["col_inputs"][..., 10].max(axis=1) > 0
    assert 5 < (~cloudy).sum() < 100
    for name in (*FLUXES, "hr_sw", "hr_lw"):
        assert (noon[name][~cloudy] == 0).all()
    up = noon["flux_up_sw"][cloudy, 0]
    assert up.max() > 5
    assert up.min() < -0.5
    # nothing comes from space but the sun, and sides of clouds warm the ground
    assert np.abs(noon["flux_dn_sw"][:, 0]).max() < 1e-4
    assert (noon["flux_dn_lw"][:, 0] == 0).all()
    assert noon["flux_dn_lw"][cloudy, -1].max() > 3
    night = columns(Group(date(2020, 1, 1), 0, 0), 40)
    dark = night["sca_inputs"][:, 1] == 0
    assert dark.any()
    assert all((night[name][dark] == 0).all() for name in ("flux_dn_sw", "flux_up_sw", "hr_sw"))


def test_larger_clouds_have_less_sides():
    group = Group(date(2020, 1, 1), 0, 8)
    effect = [
        np.abs(columns(group, 40, Setting(size))["flux_up_sw"][:, 0]).mean()
        for size in (500.0, 2000.0, 1e7)
    ]
    assert effect == sorted(effect, reverse=True)
    assert effect[2] < 1e-2 * effect[0]


def test_a_group_depends_on_its_name_and_the_seed_not_on_how_many_there_are(simulated, tmp_path):
    _, files = simulated
    known = {path.name: path for path in files}
    for path in simulate(tmp_path, columns_per_group=COUNT, groups=3, seed=2):
        first, second = contents([path]), contents([known[path.name]])
        assert all((first[name] == second[name]).all() for name in first)
    other = columns(Group(date(2020, 1, 1), 0, 8), COUNT, seed=3)
    assert not np.allclose(other["hl_inputs"], contents(files[:1])["hl_inputs"], rtol=1e-3)


def test_the_stack_holds_the_columns_of_the_files_in_order(simulated, tmp_path):
    _, files = simulated
    made = simulate(tmp_path, columns_per_group=COUNT, groups=4, seed=2, layout="stack", shards=7)
    folder = tmp_path / "processed"
    assert made == [folder / part / f"{i}.npy" for part in "xy" for i in range(8)]
    raw = [contents(pair) for pair in zip(files[::2], files[1::2], strict=True)]
    for part, assemble in (("x", assemble_inputs), ("y", assemble_outputs)):
        shards = [np.load(folder / part / f"{i}.npy") for i in range(8)]
        assert [len(shard) for shard in shards] == [34] * 7 + [2]
        expected = np.concatenate([assemble(arrays) for arrays in raw])
        np.testing.assert_array_equal(np.concatenate(shards), expected)
        with np.load(folder / "stats.npz") as stats:
            np.testing.assert_allclose(stats[f"{part}_mean"], expected.mean(0, float), rtol=1e-6)
    # and nothing that runs code when it is read
    assert not list(folder.rglob("info"))


def test_names_of_groups_differ_and_keep_splits_apart():
    for count in (3, 18, 200, 2789):
        found = groups_of(count)
        assert len({group.name for group in found}) == len(found) == count
        years = [group.day.year for group in found]
        assert years == sorted(years, reverse=True)
        val = [g for g in found if g.day == date(2019, 1, 31)]
        assert len(val) == max(1, count // 6)
    assert len({group.patch for group in groups_of(18)}) > 8


def test_data_are_replaced_only_if_told(tmp_path):
    simulate(tmp_path, columns_per_group=2, groups=4)
    with pytest.raises(SaveError, match=r"holds 8 files, .* allow to overwrite"):
        simulate(tmp_path, columns_per_group=2, groups=3, layout="stack", shards=1)
    files = simulate(tmp_path, columns_per_group=2, groups=3, overwrite=True)
    assert sorted((tmp_path / "raw").iterdir()) == sorted(files)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"columns_per_group": 0}, "columns_per_group >= 1"),
        ({"seed": -1}, "seed >= 0"),
        ({"groups": 2}, "from 3 to 2789 groups, not 2"),
        ({"groups": 3000}, "from 3 to 2789 groups"),
        ({"layout": "raws"}, "did you mean 'raw'"),
        ({"layout": "stack", "columns_per_group": 1, "groups": 3}, "cannot be 8 shards"),
    ],
)
def test_impossible_options_are_refused(tmp_path, wrong, says):
    with pytest.raises(RecipeError, match=says):
        simulate(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
    with pytest.raises(RecipeError, match="size of clouds must be positive"):
        Setting(size=0.0)
