"""Null tests: spectra that are made equal, or left alone, found by transforms of numpy."""

import numpy as np
import pytest

from map2map.errors import GeometryError
from map2map.physics.matched_spectra import (
    match_spectra,
    replace_phases,
    shell_power,
    with_power,
)
from map2map.physics.spectra import mode_counts, power_spectrum

SHAPES = [((12,), (1.0,)), ((8, 9), (1.0, 2.0)), ((8, 7, 6), (1.0, 1.0, 1.5))]


def shells(shape, spacing):
    """Shell of each mode of the full transform, 0 for the mean."""
    k = np.meshgrid(
        *(np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True)), indexing="ij"
    )
    fundamental = 1 / max(n * d for n, d in zip(shape, spacing, strict=True))
    return np.ceil(np.round(np.sqrt(sum(one**2 for one in k)) / fundamental, 6)).astype(int)


def spectrum(field, spacing):
    """Summed |mode|^2 per shell, without the mean and shells without modes."""
    index = shells(field.shape, spacing)
    power = np.bincount(index.ravel(), (np.abs(np.fft.fftn(field)) ** 2).ravel())
    return power[np.bincount(index.ravel()) > 0][1:] / field.size**2


def pair(shape, spacing):
    """Two fields of other spectra, means and phases; one red, one white."""
    rng = np.random.default_rng(0)
    red = np.fft.fftn(rng.normal(size=shape)) / (1 + shells(shape, spacing)) ** 2
    return np.fft.ifftn(red).real + 3, 2 * rng.normal(size=shape) - 1


@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
class TestOnAnyGrid:
    def test_matched_fields_have_the_mean_spectrum_of_both_in_every_shell(self, shape, spacing):
        first, second = pair(shape, spacing)
        wanted = (spectrum(first, spacing) + spectrum(second, spacing)) / 2
        for field in match_spectra(first, second, spacing):
            np.testing.assert_allclose(spectrum(field, spacing), wanted, rtol=1e-10)

    def test_matched_fields_keep_their_phases_and_means(self, shape, spacing):
        first, second = pair(shape, spacing)
        for before, after in zip(
            (first, second), match_spectra(first, second, spacing), strict=True
        ):
            ratio = np.fft.fftn(after) / np.fft.fftn(before)
            np.testing.assert_allclose(ratio.imag, 0, atol=1e-10)
            assert ratio.real.min() > 0
            assert after.mean() == pytest.approx(before.mean(), rel=1e-12)
            # one number per shell
            index = shells(shape, spacing)
            for shell in np.unique(index):
                assert np.ptp(ratio.real[index == shell]) < 1e-10

    def test_fields_of_one_spectrum_stay_as_they_are(self, shape, spacing):
        noise = np.random.default_rng(0).normal(size=shape)
        mirrored = np.flip(noise)
        for before, after in zip(
            (noise, mirrored), match_spectra(noise, mirrored, spacing), strict=True
        ):
            np.testing.assert_allclose(after, before, atol=1e-12)

    def test_the_power_of_all_shells_is_the_variance(self, shape, spacing):
        field, _ = pair(shape, spacing)
        np.testing.assert_allclose(shell_power(field, spacing), spectrum(field, spacing))
        assert shell_power(field, spacing).sum() == pytest.approx(field.var())

    def test_without_its_phases_a_field_has_its_spectrum_and_mean(self, shape, spacing):
        field, _ = pair(shape, spacing)
        made = replace_phases(field, 5, spacing)
        np.testing.assert_allclose(spectrum(made, spacing), spectrum(field, spacing), rtol=1e-10)
        assert made.mean() == pytest.approx(field.mean(), rel=1e-12)


def test_within_the_bins_of_spectra_shells_are_these_bins():
    field = pair((16, 16, 16), (2.0,) * 3)[0]
    k, power = power_spectrum(field, 2.0)
    _, modes = mode_counts(field.shape, 2.0)
    np.testing.assert_allclose(shell_power(field, 2.0)[: len(k)] * 32**3, power * modes, rtol=1e-10)


def test_new_phases_know_nothing_of_the_old_and_are_those_of_the_seed():
    rng = np.random.default_rng(0)
    field, other = rng.normal(size=(2, 16, 16, 16))
    made, same, another = (
        replace_phases(field, 1),
        replace_phases(other, 1),
        replace_phases(field, 2),
    )

    def correlation(a, b):
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    # 4096 cells: a deviation of 1/64
    assert abs(correlation(made, field)) < 0.06
    assert abs(correlation(made, another)) < 0.06
    assert correlation(made, same) > 0.95
    np.testing.assert_array_equal(made, replace_phases(field, 1))


def test_new_phases_make_a_skewed_field_gaussian():
    field = np.exp(np.random.default_rng(0).normal(size=(24, 24, 24)))
    made = replace_phases(field, 0)

    def skewness(x):
        return ((x - x.mean()) ** 3).mean() / x.std() ** 3

    assert skewness(field) > 3
    # deviation sqrt(6 / 13824) = 0.02
    assert abs(skewness(made)) < 0.08


def test_a_shell_that_one_field_lacks_is_emptied_in_both():
    x = np.arange(16) * (2 * np.pi / 16)
    first, second = np.cos(x) + np.cos(3 * x), 2 * np.cos(x)
    for field in match_spectra(first, second):
        power = spectrum(field, (1.0,))
        assert power[0] == pytest.approx((0.5 + 2) / 2)
        np.testing.assert_allclose(power[1:], 0, atol=1e-28)


def test_single_precision_is_taken_and_computed_in_double():
    first, second = (one.astype(np.float32) for one in pair((8, 8, 8), (1.0,) * 3))
    for field in match_spectra(first, second):
        assert field.dtype == np.float64
    expected = match_spectra(first.astype(float), second.astype(float))
    np.testing.assert_array_equal(match_spectra(first, second), expected)


def test_fields_and_spectra_that_do_not_fit_are_refused():
    with pytest.raises(GeometryError, match=r"one shape, not \(4,\) and \(5,\)"):
        match_spectra(np.zeros(4), np.zeros(5))
    with pytest.raises(GeometryError, match=r"shape \(4,\) has 2 shells, not \(3,\)"):
        with_power(np.zeros(4), np.ones(3))
