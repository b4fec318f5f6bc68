"""Norms against formulas and numbers from outside the package."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from map2map.errors import FieldError, UserCodeError
from map2map.fields import Field
from map2map.norms import (
    Affine,
    Chain,
    Displacement,
    FunctionNorm,
    Log,
    Log1p,
    Moments,
    Scale,
    Standardize,
    Velocity,
)
from map2map.preparation import check_beside
from map2map.specs import build, describe


def chunks_of(values, n=7):
    return lambda: iter(torch.tensor(values).split(n, dim=1))


@pytest.mark.parametrize(
    ("z", "growth"),
    [(0, 1), (0.5, 0.7703215732299059), (1, 0.6084071313540005), (127, 0.00995332641338654)],
)
def test_displacements_are_in_units_of_their_linear_growth(z, growth):
    x = torch.ones(1, 3, 2, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(Displacement(z=z)(x), x / (6 * growth))


def test_velocities_are_in_units_of_their_linear_growth():
    x = torch.ones(1, 3, 2, dtype=torch.float64)
    linear = 6 * 0.6084071313540005 * 178.04493814764854 * 0.874293222808704 / 2
    torch.testing.assert_close(Velocity(z=1)(x), x / linear)


def test_the_matter_density_is_an_argument():
    """In an Einstein-de Sitter universe D = a, f = 1, H = 100 (1 + z)^1.5."""
    x = torch.ones(1, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(Displacement(z=3, Om=1, std=2)(x), x / (2 / 4))
    torch.testing.assert_close(Velocity(z=3, Om=1, std=2)(x), x / (2 / 4 * 800 / 4))


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_are_numpys_however_the_values_are_cut(offset):
    """An offset a million deviations large would break the difference of mean squares."""
    values = np.random.default_rng(0).normal(size=(2, 100)) + offset
    moments = Moments.of(chunks_of(values))
    np.testing.assert_allclose(moments.mean, values.mean(axis=1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moments.std, values.std(axis=1), rtol=1e-9)
    np.testing.assert_allclose(moments.rms, np.sqrt((values**2).mean(axis=1)), rtol=1e-9)


def test_standardize_takes_its_numbers_from_a_file_that_it_then_forgets(tmp_path):
    path = tmp_path / "redshifts_[1.0]_mean_std_var.npy"
    # of the published cubes
    np.save(path, [4.035514121378396e-08, 4.3546449748571914e-05, 1.896293285704899e-09])
    norm = Standardize(file=str(path))
    assert norm.fitted
    path.unlink()
    x = torch.tensor([[[1e-4, -3e-5]]], dtype=torch.float64)
    torch.testing.assert_close(norm(x), (x - 4.035514121378396e-08) / 4.3546449748571914e-05)
    norm.fit(chunks_of(np.arange(9.0)[None]))
    torch.testing.assert_close(norm(x), (x - 4.035514121378396e-08) / 4.3546449748571914e-05)
    card = describe(norm)
    assert card["init_args"]["file"] is None
    torch.testing.assert_close(build(card)(x), norm(x))


def test_a_file_of_moments_and_numbers_beside_it_are_refused(tmp_path):
    np.save(tmp_path / "moments.npy", [0.0, 1.0, 1.0])
    with pytest.raises(FieldError, match=r"from the file .* or as mean and std, not both"):
        Standardize(mean=1.0, file=str(tmp_path / "moments.npy"))


def test_fill_values_are_not_numbers():
    values = np.array([[1.0, np.nan, 3.0], [2.0, 5.0, 4.0]])
    assert Moments.of(chunks_of(values)).mean.tolist() == [2.0, 3.0]
    with pytest.raises(FieldError, match="no finite value"):
        Moments.of(chunks_of(values * np.nan))


def test_standardize_fits_zero_mean_and_unit_deviation():
    values = np.random.default_rng(0).normal(5, 3, size=(2, 200))
    norm = Standardize()
    assert not norm.fitted
    norm.fit(chunks_of(values))
    assert norm.fitted
    y = norm(torch.tensor(values)[None])[0]
    np.testing.assert_allclose(y.mean(dim=1), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(dim=1, correction=0), 1)
    assert "mean" in norm.found()
    assert "std" in norm.found()


def test_what_is_given_is_not_fitted_again():
    norm = Standardize(mean=1.0)
    norm.fit(chunks_of(np.array([[0.0, 4.0]])))
    assert norm.mean.tolist() == [1.0]
    assert norm.std.tolist() == [2.0]


def test_scale_keeps_the_direction_of_a_vector():
    values = np.random.default_rng(0).normal(size=(3, 500)) * np.array([[1], [10], [100]])
    norm = Scale()
    norm.fit(chunks_of(values))
    assert norm.typical.shape == (1,)
    np.testing.assert_allclose(norm.typical, math.sqrt((values**2).mean()), rtol=1e-12)


def test_a_channel_that_does_not_vary_is_refused():
    with pytest.raises(FieldError, match="without variation"):
        Standardize().fit(chunks_of(np.ones((1, 9))))
    with pytest.raises(FieldError, match="scale"):
        Affine(scale=[1.0, 0.0])


def test_channels_that_do_not_vary_are_named_or_become_zero():
    values = np.random.default_rng(0).normal(size=(5, 9))
    values[[1, 3]] = 7.0
    with pytest.raises(FieldError, match=r"channel 1, 3 \(of 5\)"):
        Standardize().fit(chunks_of(values))
    norm = Standardize(constants=True)
    norm.fit(chunks_of(values))
    x = torch.tensor(values)[None]
    assert not norm(x)[0, [1, 3]].any()
    np.testing.assert_allclose(norm(x)[0, [0, 2, 4]].std(dim=1, correction=0), 1)
    np.testing.assert_allclose(norm.inverse(norm(x)), x, rtol=1e-12)


def test_levels_share_the_moments_of_their_feature():
    values = np.random.default_rng(0).normal(size=(4, 3, 50)) * [[[1], [10], [3]]] + 5
    values += np.arange(4)[:, None, None]
    norm = Standardize(features=3)
    norm.fit(chunks_of(values.reshape(12, 50)))
    for feature in range(3):
        mine = values[:, feature]
        np.testing.assert_allclose(norm.mean[feature::3], mine.mean())
        np.testing.assert_allclose(norm.std[feature::3], mine.std())
    with pytest.raises(FieldError, match="12 channels are no whole number of levels with 5"):
        Standardize(features=5).fit(chunks_of(values.reshape(12, 50)))


def test_a_field_is_divided_by_the_largest_deviation_of_its_channels():
    values = np.random.default_rng(0).normal(size=(3, 500)) * np.array([[1], [10], [5]]) + 100
    norm = Scale(by="largest_std")
    norm.fit(chunks_of(values))
    np.testing.assert_allclose(norm.typical, [values.std(axis=1).max()], rtol=1e-12)


def test_fields_with_one_number_in_common_have_as_many_channels():
    fields = [Field("u", channels=2), Field("v", channels=2), Field("p", channels=1)]
    norms = {"u": Scale(beside=["v"]), "v": Scale(beside=["p"]), "p": Scale(beside=["w"])}
    emulator = SimpleNamespace(inputs=fields[:1], targets=fields[1:], norm=norms.get)
    assert check_beside(emulator, "u") == ["u", "v"]
    with pytest.raises(FieldError, match=r"'v', which has 2 channels, is `beside` 'p', .* has 1"):
        check_beside(emulator, "v")
    with pytest.raises(FieldError, match="`beside` 'w'"):
        check_beside(emulator, "p")


def test_logarithms_are_undone_exactly_down_to_zero():
    """map2map's undo returned x + eps."""
    x = torch.tensor([0.0, 1e-9, 1.0, 1e3], dtype=torch.float64).reshape(1, 1, -1)
    for norm in (Log(), Log1p()):
        torch.testing.assert_close(norm.inverse(norm(x)), x, rtol=1e-12, atol=1e-15)


def test_a_chain_fits_each_norm_on_what_those_before_it_make():
    values = np.exp(np.random.default_rng(0).normal(2, 0.5, size=(1, 300)))
    chain = Chain([Log(eps=0.0), Standardize()])
    chain.fit(chunks_of(values))
    logs = np.log(values)
    np.testing.assert_allclose(
        chain(torch.tensor(values)[None])[0], (logs - logs.mean()) / logs.std(), rtol=1e-9
    )


def in_place(x, undo=False, z=1.0):
    x.mul_(z if undo else 1 / z)


def test_map2maps_functions_work_and_leave_their_argument_alone():
    norm = FunctionNorm(in_place, "mine.in_place", {"z": 4.0})
    x = torch.full((1, 1, 2), 8.0)
    assert norm(x).tolist() == [[[2.0, 2.0]]]
    assert norm.inverse(norm(x)).tolist() == x.tolist() == [[[8.0, 8.0]]]


def test_a_function_that_raises_is_named():
    with pytest.raises(UserCodeError, match=r"norm mine\.f raised TypeError"):
        FunctionNorm(in_place, "mine.f", {"eps": 1})(torch.ones(1, 1, 1))
