"""Pairs of potentials: their physics, and files as they are read elsewhere."""

import json

import h5py
import numpy as np
import pytest
import torch

from map2map.errors import RecipeError, SaveError
from map2map.physics.cosmology import growth_factor
from map2map.physics.perturbations import gaussian_field
from map2map.physics.potentials import relativistic_correction
from map2map.physics.spectra import cross_correlation, mode_counts, power_spectrum, transfer
from map2map.synthetic import potential_pairs
from map2map.synthetic.potential_pairs import UNIVERSE, Setting, pair, simulate

SMALL = Setting(size=8, box=160.0)
MOMENTS = "redshifts_[1.0]_mean_std_var.npy"


def laplacian(values, spacing):
    k = 2 * np.pi * np.fft.fftfreq(len(values), spacing)
    k2 = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
    return np.fft.ifftn(-k2 * np.fft.fftn(values)).real


@pytest.mark.parametrize("z", [0.0, 10.0])
def test_the_laplacian_of_newtons_potential_is_the_linear_density(z):
    setting = Setting(size=16, box=320.0, z=z)
    newton, _ = pair(setting, 3)
    density = gaussian_field(16, 320.0, 3, UNIVERSE.power) * float(growth_factor(z, UNIVERSE.Om))
    factor = 1.5 * UNIVERSE.Om / 2997.92458**2 * (1 + z)
    np.testing.assert_allclose(
        laplacian(newton.numpy(), 20.0), factor * density, atol=1e-10 * factor * density.std()
    )


def test_the_mean_spectrum_is_that_of_linear_theory():
    setting = Setting(size=32, box=640.0, z=1.0)
    factor = 1.5 * UNIVERSE.Om / 2997.92458**2 * 2 * float(growth_factor(1, UNIVERSE.Om))
    ratios = []
    for seed in range(6):
        k, power = power_spectrum(pair(setting, seed)[0], 20.0)
        ratios.append(power * k**4 / (factor**2 * UNIVERSE.power(k)))
    _, modes = mode_counts((32,) * 3, 20.0)
    deviation = (np.mean(ratios, axis=0) - 1) * np.sqrt(6 * modes / 2)
    # the first bins are wide against the slope of the power; the last lacks its Nyquist modes
    assert np.abs(deviation[3:-1]).max() < 4
    np.testing.assert_allclose(np.mean(ratios, axis=0)[5:-1], 1, atol=0.06)


@pytest.mark.parametrize(("z", "published"), [(1, 4.35464497e-05), (20, 4.60818863e-05)])
def test_the_deviation_is_that_of_published_cubes(z, published):
    """Of 4000 cubes of 5120 Mpc/h, by the sum over their modes; the power is another fit."""
    k = 2 * np.pi / 5120 * np.sqrt(sum(i**2 for i in np.ogrid[-32:33, -32:33, -32:33]))
    k = k[k > 0]
    factor = 1.5 * UNIVERSE.Om / 2997.92458**2 * (1 + z) * float(growth_factor(z, UNIVERSE.Om))
    variance = (factor**2 * UNIVERSE.power(k) / k**4).sum() / 5120**3
    assert np.sqrt(variance) == pytest.approx(published, rel=0.07)


@pytest.mark.parametrize("evolution", ["linear", "second_order"])
def test_the_difference_of_a_pair_is_the_correction_of_the_linear_potential(evolution):
    setting = Setting(size=8, box=160.0, difference=-30.0, evolution=evolution)
    newton, relativistic = pair(setting, 1)
    linear, _ = pair(Setting(size=8, box=160.0), 1)
    expected = -30 * relativistic_correction(linear, 20.0)
    torch.testing.assert_close(
        relativistic - newton, expected, rtol=1e-9, atol=1e-9 * float(expected.std())
    )


def test_by_default_the_correction_is_a_good_part_of_the_potential_and_in_nature_none():
    newton, relativistic = pair(Setting(size=32, box=640.0), 0)
    assert 0.1 < float((relativistic - newton).std() / newton.std()) < 0.6
    newton, natural = pair(Setting(size=32, box=640.0, difference=1.0), 0)
    assert float((natural - newton).std() / newton.std()) < 1e-4


@pytest.mark.parametrize("evolution", ["linear", "second_order"])
def test_without_a_difference_both_classes_are_equal(tmp_path, evolution):
    setting = Setting(size=8, box=160.0, difference=0.0, evolution=evolution)
    (path,) = simulate(tmp_path, runs=2, setting=setting)
    with h5py.File(path) as file:
        for seed in ("0000", "0001"):
            assert file[f"gr_seed{seed}"][:].tobytes() == file[f"newton_seed{seed}"][:].tobytes()


def test_evolved_potentials_are_linear_on_large_scales_and_skewed_on_small():
    evolved, _ = pair(Setting(size=32, box=320.0, z=1.0, evolution="second_order"), 0)
    linear, _ = pair(Setting(size=32, box=320.0, z=1.0), 0)
    _, ratio = transfer(evolved, linear, 10.0)
    np.testing.assert_allclose(ratio[:3], 1, atol=0.1)
    assert cross_correlation(evolved, linear, 10.0)[1][:3].min() > 0.98

    def skewness(values):
        x = laplacian(values.numpy(), 10.0)
        return (x**3).mean() / x.std() ** 3

    assert abs(skewness(linear)) < 0.1
    assert skewness(evolved) > 0.5


def test_large_scales_are_the_same_on_a_finer_grid():
    coarse, fine = (pair(Setting(size=n, box=160.0), 2)[0].numpy() for n in (9, 16))
    for index in [(1, 0, 0), (0, -1, 2), (3, 2, -4)]:
        np.testing.assert_allclose(
            np.fft.fftn(coarse)[index] / 9**3, np.fft.fftn(fine)[index] / 16**3, rtol=1e-10
        )


# --- files -------------------------------------------------------------------------------------


def test_the_layout_root_is_one_file_of_contiguous_cubes(tmp_path):
    (path,) = simulate(tmp_path, runs=2, setting=SMALL, seed=41)
    assert path == tmp_path / "data_z1.h5"
    names = ["gr_seed0041", "newton_seed0041", "gr_seed0042", "newton_seed0042"]
    with h5py.File(path) as file:
        assert sorted(file) == sorted(names)
        assert not file.attrs
        for name in names:
            item = file[name]
            assert (item.shape, item.dtype) == ((8, 8, 8), np.dtype("<f4"))
            assert item.chunks is None
            assert item.compression is None
            assert not item.attrs
        # in the file in this order
        offsets = [file[name].id.get_offset() for name in names]
        assert offsets == sorted(offsets)
        for seed in (41, 42):
            newton, relativistic = pair(SMALL, seed)
            for name, values in (("newton", newton), ("gr", relativistic)):
                np.testing.assert_array_equal(
                    file[f"{name}_seed{seed:04d}"], values.numpy().astype(np.float32)
                )


def test_the_layout_groups_is_one_compressed_file(tmp_path):
    (path,) = simulate(tmp_path / "a", runs=2, setting=SMALL, seed=9, layout="groups")
    (root,) = simulate(tmp_path / "b", runs=2, setting=SMALL, seed=9)
    with h5py.File(path) as file, h5py.File(root) as plain:
        assert sorted(file) == ["10", "9"]
        for seed in (9, 10):
            assert sorted(file[str(seed)]) == ["gr", "newton"]
            for name in ("gr", "newton"):
                item = file[f"/{seed}/{name}"]
                assert item.compression == "gzip"
                assert item.dtype == np.float32
                np.testing.assert_array_equal(item, plain[f"{name}_seed{seed:04d}"])


@pytest.mark.parametrize(("z", "snapshot"), [(20, 0), (15, 1), (10, 2), (5, 3), (1, 4), (0, 5)])
def test_the_layout_files_has_a_file_for_each_cube(tmp_path, z, snapshot):
    setting = Setting(size=4, box=80.0, z=z)
    paths = simulate(tmp_path, runs=2, setting=setting, seed=7, layout="files")
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        f"seed{seed:04d}/{name}/{name}_snap{snapshot:03d}_phi.h5"
        for seed in (7, 8)
        for name in ("gr", "newton")
    ]
    for path, values in zip(paths[2:], reversed(pair(setting, 8)), strict=True):
        with h5py.File(path) as file:
            assert list(file) == ["data"]
            assert file["data"].dtype == np.float32
            np.testing.assert_array_equal(file["data"], values.numpy().astype(np.float32))


@pytest.mark.parametrize("layout", ["root", "groups", "files"])
def test_the_same_seed_gives_the_same_bytes(tmp_path, layout):
    one, two = (
        simulate(tmp_path / name, runs=2, setting=SMALL, seed=5, layout=layout) for name in "ab"
    )
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_the_moments_are_those_of_all_cubes_of_both_classes(tmp_path):
    (path,) = simulate(tmp_path, runs=3, setting=SMALL)
    with h5py.File(path) as file:
        values = np.stack([file[name][:] for name in file]).astype(np.float64)
    numbers = np.load(tmp_path / MOMENTS)
    assert numbers.dtype == np.float64
    np.testing.assert_allclose(numbers[0], values.mean(), atol=1e-9 * values.std())
    np.testing.assert_allclose(numbers[1:], [values.std(), values.var()], rtol=1e-12)


def test_standardized_cubes_are_shifted_and_scaled_by_the_moments(tmp_path):
    (raw,) = simulate(tmp_path / "a", runs=2, setting=SMALL)
    (made,) = simulate(tmp_path / "b", runs=2, setting=SMALL, standardize=True)
    mean, std, _ = np.load(tmp_path / "b" / MOMENTS)
    np.testing.assert_array_equal(np.load(tmp_path / "a" / MOMENTS)[:2], [mean, std])
    with h5py.File(raw) as before, h5py.File(made) as after:
        assert list(before) == list(after)
        for name in before:
            assert after[name].dtype == np.float32
            np.testing.assert_array_equal(
                after[name], ((before[name][:].astype(float) - mean) / std).astype(np.float32)
            )
        everything = np.stack([after[name][:] for name in after])
    assert everything.std() == pytest.approx(1, rel=1e-5)
    record = json.loads((tmp_path / "b" / "pairs_z1.json").read_text())
    assert record["units"] == "standard deviations"


def test_the_record_says_how_cubes_were_made(tmp_path):
    simulate(tmp_path, runs=2, setting=SMALL, seed=3)
    record = json.loads((tmp_path / "pairs_z1.json").read_text())
    assert record["seeds"] == [3, 4]
    assert record["units"] == "c^2"
    assert record["parameters"]["difference"] == SMALL.difference
    assert record["parameters"]["cosmology"]["Om"] == UNIVERSE.Om
    assert record["parameters"]["layout"] == "root"


@pytest.mark.parametrize("layout", ["root", "files"])
def test_existing_files_are_replaced_only_if_told(tmp_path, layout):
    (path, *_) = simulate(tmp_path, runs=1, setting=SMALL, layout=layout)
    before = path.read_bytes()
    other = Setting(size=4, box=80.0)
    with pytest.raises(SaveError, match=f"{path.name}.* would be replaced; choose another folder"):
        simulate(tmp_path, runs=1, setting=other, layout=layout)
    assert path.read_bytes() == before
    simulate(tmp_path, runs=1, setting=other, layout=layout, overwrite=True)
    assert path.read_bytes() != before
    assert not list(tmp_path.rglob(".*"))


def test_a_file_gets_its_name_when_it_is_whole(tmp_path, monkeypatch):
    (path,) = simulate(tmp_path, runs=1, setting=SMALL)
    before = path.read_bytes()

    def broken(setting, seed):
        if seed == 1:
            raise OSError("No space left on device")
        return pair(setting, seed)

    monkeypatch.setattr(potential_pairs, "pair", broken)
    with pytest.raises(SaveError, match=r"cannot write .*data_z1\.h5: No space left"):
        simulate(tmp_path, runs=2, setting=SMALL, overwrite=True)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"runs": 0}, "runs >= 1"),
        ({"seed": -1}, "seed >= 0"),
        ({"layout": "roots"}, "unknown layout 'roots'; did you mean 'root'"),
        (
            {"layout": "files", "setting": Setting(z=2.0)},
            "redshifts 20, 15, 10, 5, 1, 0, but not 2",
        ),
    ],
)
def test_arguments_that_are_not_allowed_are_refused_before_anything_is_written(
    tmp_path, arguments, says
):
    with pytest.raises(RecipeError, match=says):
        simulate(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"size": 3}, "size >= 4"),
        ({"box": 0.0}, "box > 0"),
        ({"z": -0.5}, "z >= 0"),
        ({"difference": np.nan}, "must be finite, not nan"),
        ({"evolution": "second"}, "unknown evolution 'second'; did you mean 'second_order'"),
    ],
)
def test_impossible_settings_are_refused(arguments, says):
    with pytest.raises(RecipeError, match=says):
        Setting(**arguments)


def test_the_command_line_simulates_and_refuses_to_replace(tmp_path, m2m):
    argv = ["--out=data", "--runs=1", "--setting.size=4", "--setting.box=80", "--layout=groups"]
    assert m2m("simulate", "potential_pairs", *argv)[0] == 0
    with h5py.File(tmp_path / "data" / "data_z1.h5") as file:
        assert file["0/gr"].shape == (4, 4, 4)
    status, _, err = m2m("simulate", "potential_pairs", *argv)
    assert status == 2
    assert "overwrite" in err
    assert "potential_pairs" in m2m("simulate")[1]
