"""Files of null tests: what is equal afterwards, what is kept, and what is refused."""

import h5py
import numpy as np
import pytest

from map2map.errors import FieldError, RecipeError, SaveError, SourceError
from map2map.physics.matched_spectra import replace_phases, shell_power
from map2map.physics.spectra import cross_correlation
from map2map.synthetic import potential_pairs
from map2map.synthetic.matched_pairs import simulate
from map2map.synthetic.potential_pairs import Setting

SETTING = Setting(size=8, box=160.0, difference=20000.0)


def contents(path):
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


@pytest.fixture
def source(tmp_path):
    return potential_pairs.simulate(tmp_path / "data", runs=2, setting=SETTING, seed=9)[0]


def test_afterwards_the_cubes_of_a_pair_have_one_spectrum_and_still_differ(source, tmp_path):
    made = contents(simulate(source, tmp_path / "matched.h5"))
    before = contents(source)
    for seed in ("0009", "0010"):
        gr, newton = made[f"gr_seed{seed}"], made[f"newton_seed{seed}"]
        powers = [shell_power(before[f"{name}_seed{seed}"]) for name in ("gr", "newton")]
        mean = np.mean(powers, axis=0)
        # the corners have no power but single precision's rounding
        real = mean > 1e-12 * mean.sum()
        assert real.sum() >= 5
        for cube in (gr, newton):
            np.testing.assert_allclose(shell_power(cube)[real], mean[real], rtol=1e-6)
        assert np.abs(powers[0] / mean - 1)[real].max() > 0.01
        assert np.std(gr - newton) > 0.1 * np.std(newton)
        _, r = cross_correlation(gr, before[f"gr_seed{seed}"], 1.0)
        np.testing.assert_allclose(r, 1, atol=1e-6)


def test_without_phases_each_cube_keeps_its_spectrum_and_a_pair_has_the_same_noise(
    source, tmp_path
):
    made = contents(simulate(source, tmp_path / "noise.h5", keep="spectra"))
    before = contents(source)
    for name, cube in made.items():
        expected = replace_phases(before[name].astype(float), int(name[-4:]))
        np.testing.assert_array_equal(cube, expected.astype(np.float32))
        power = shell_power(before[name])
        np.testing.assert_allclose(shell_power(cube), power, rtol=1e-6, atol=1e-12 * power.sum())
    assert not np.allclose(made["gr_seed0009"], made["newton_seed0009"], rtol=1e-3)


@pytest.mark.parametrize("keep", ["phases", "spectra"])
def test_the_layout_is_that_of_the_source(source, tmp_path, keep):
    target = simulate(source, tmp_path / "new" / "matched.h5", keep=keep)
    with h5py.File(source) as old, h5py.File(target) as new:
        assert list(new) == list(old)
        addresses = [
            new[name].id.get_offset()
            for name in ("gr_seed0009", "newton_seed0009", "gr_seed0010", "newton_seed0010")
        ]
        assert addresses == sorted(addresses)
        for name in new:
            assert (new[name].dtype, new[name].shape) == (np.float32, (8, 8, 8))
            assert new[name].chunks is new[name].compression is None
            assert not new[name].attrs


def test_other_classes_are_named(tmp_path):
    cubes = np.random.default_rng(0).normal(size=(2, 4, 4, 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["cold_seed7"], file["warm_dm_seed7"] = cubes
        file["notes"] = 1.0
        file.create_group("cold_seed8")
    made = contents(simulate(tmp_path / "a.h5", tmp_path / "b.h5", classes=("cold", "warm_dm")))
    assert list(made) == ["cold_seed7", "warm_dm_seed7"]
    with pytest.raises(SourceError, match=r"no data set gr_seedNNNN .* but cold_seed7, cold_seed8"):
        simulate(tmp_path / "a.h5", tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


def test_files_are_replaced_only_if_told_and_the_source_never(source, tmp_path):
    target = simulate(source, tmp_path / "matched.h5")
    before = target.read_bytes()
    with pytest.raises(SaveError, match=r"matched.h5 would be replaced"):
        simulate(source, target, keep="spectra")
    assert target.read_bytes() == before
    simulate(source, target, keep="spectra", overwrite=True)
    assert target.read_bytes() != before
    before = source.read_bytes()
    with pytest.raises(SaveError, match="not the source"):
        simulate(source, source, overwrite=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("gr_seed0011", (8, 8, 8), r"of seed 0011, but no newton_seed0011"),
        ("newton_seed0011", (8, 8, 8), r"of seed 0011, but no gr_seed0011"),
    ],
)
def test_a_cube_without_its_partner_is_refused(source, tmp_path, name, shape, says):
    with h5py.File(source, "a") as file:
        file[name] = np.zeros(shape)
    with pytest.raises(SourceError, match=says):
        simulate(source, tmp_path / "matched.h5")
    assert not (tmp_path / "matched.h5").exists()


def test_unequal_shapes_values_that_are_not_finite_and_other_files_are_refused(source, tmp_path):
    target = tmp_path / "matched.h5"
    with h5py.File(source, "a") as file:
        file["gr_seed0010"][0, 0, 0] = np.nan
    with pytest.raises(FieldError, match=r"'/gr_seed0010' of .* not finite"):
        simulate(source, target)
    with h5py.File(source, "a") as file:
        del file["gr_seed0010"]
        file["gr_seed0010"] = np.zeros((4, 4, 4))
    with pytest.raises(SourceError, match=r"seed 0010 of different shapes: \[\(4, 4, 4\), \(8"):
        simulate(source, target)
    with pytest.raises(SourceError, match="cannot read pairs from"):
        simulate(tmp_path / "none.h5", target)
    with pytest.raises(RecipeError, match="unknown keep 'phase'; did you mean 'phases'"):
        simulate(source, target, keep="phase")
    assert not target.exists()
    assert not list(tmp_path.glob(".*"))
