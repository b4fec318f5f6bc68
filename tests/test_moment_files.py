"""Files of moments: what is read is what numpy wrote, and mixed-up files are refused."""

import numpy as np
import pytest
import torch
import xarray as xr

from map2map.errors import FieldError, SourceError
from map2map.moment_files import read_moments, write_moments
from map2map.norms import Standardize
from map2map.specs import build, describe

# of the published cubes, by redshift
PUBLISHED = {
    0: [4.7137650574536495e-08, 3.524944705950995e-05, 1.2425235180011947e-09],
    20: [7.640454804093032e-09, 4.6081886330450726e-05, 2.1235402477725812e-09],
}


@pytest.mark.parametrize("z", PUBLISHED)
def test_published_triples_are_read(tmp_path, z):
    np.save(tmp_path / "a.npy", PUBLISHED[z])
    assert read_moments(tmp_path / "a.npy") == tuple(PUBLISHED[z][:2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_a_pair_the_second_is_the_variance(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.array([-2.4114915e-08, 5.8832258e-13], dtype))
    mean, std = read_moments(tmp_path / "a.npy")
    assert mean == pytest.approx(-2.4114915e-08, rel=1e-7)
    assert std == pytest.approx(7.6702e-07, rel=1e-5)


def test_what_is_written_is_a_triple_of_doubles(tmp_path):
    write_moments(tmp_path / "a.npy", -0.5, 3.0)
    numbers = np.load(tmp_path / "a.npy")
    assert numbers.dtype == np.float64
    np.testing.assert_array_equal(numbers, [-0.5, 3.0, 9.0])
    assert read_moments(tmp_path / "a.npy") == (-0.5, 3.0)


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ([1.0], r"found shape \(1,\) of type float64; allowed are 3 numbers"),
        ([[0.0, 1.0, 1.0]], r"found shape \(1, 3\)"),
        ([0, 1, 1], "of type int64"),
        ([0.0, 2.0, 5.0], "found std 2 and var 5, but .* square of the deviation, 4: .* redshifts"),
        ([0.0, PUBLISHED[0][1], PUBLISHED[20][2]], "of two redshifts"),
        ([0.0, 4.0, 2.0], "in another order"),
        ([np.nan, 1.0, 1.0], "found .*nan.* but allowed are finite"),
        ([0.0, 1.0, np.inf], "finite numbers only"),
        ([0.0, 0.0, 0.0], "must be positive"),
        ([0.0, -1.0, 1.0], "must be positive"),
        ([0.0, 0.0], "must be positive"),
    ],
)
def test_what_cannot_be_the_moments_of_a_field_is_refused(tmp_path, numbers, says):
    np.save(tmp_path / "a.npy", numbers)
    with pytest.raises(
        FieldError,
        match=f"asked for mean and deviation from .*a.npy; {says}"
        if says.startswith("found shape")
        else says,
    ):
        read_moments(tmp_path / "a.npy")


def test_files_that_are_none_of_numpys_arrays_are_refused(tmp_path):
    with pytest.raises(SourceError, match="there is no such file"):
        read_moments(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_text("0 1 1")
    with pytest.raises(SourceError, match=r"cannot be read as a \.npy file"):
        read_moments(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(SourceError, match=r"cannot be read as a \.npy file"):
        read_moments(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", a=[0.0, 1.0, 1.0])
    with pytest.raises(SourceError, match="found an archive"):
        read_moments(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(SourceError, match=r"cannot be read as a \.npy file"):
        read_moments(tmp_path / "c.npy")


def by_level(folder, kind):
    levels = [500, 850]
    mean = xr.Dataset({"t": ("level", [250.0, 280.0]), "p": ((), 1e5)}, {"level": levels})
    std = xr.Dataset({"t": ("level", [8.0, 9.5]), "p": ((), 1200.0)}, {"level": levels})
    for name, data in (("mean", mean), ("std", std)):
        if kind == "nc":
            data.to_netcdf(folder / f"{name}.nc")
        else:
            data.to_zarr(folder / f"{name}.zarr", zarr_format=2, consolidated=True)
    return {"mean_file": str(folder / f"mean.{kind}"), "std_file": str(folder / f"std.{kind}")}


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_a_norm_takes_the_moments_of_each_level_from_files_by_the_variables_name(tmp_path, kind):
    files = by_level(tmp_path, kind)
    norm = Standardize(**files, variable="t")
    assert norm.fitted
    x = torch.tensor([[[258.0], [270.5]]], dtype=torch.float64)
    np.testing.assert_allclose(norm(x)[0, :, 0], [1.0, -1.0])
    np.testing.assert_allclose(norm.inverse(norm(x)), x)
    assert Standardize(**files, variable="p").std.tolist() == [1200.0]
    # the files are forgotten
    spec = describe(norm)
    assert not any(
        "mean." in str(entry) or "std." in str(entry) for entry in spec["init_args"].values()
    )
    again = build(spec)
    again.load_state_dict(norm.state_dict())
    np.testing.assert_array_equal(again(x), norm(x))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"variable": "q"}, FieldError, "has no moments of 'q'"),
        ({"variable": None}, FieldError, "all of them and nothing else"),
        ({"mean": 1.0}, FieldError, "all of them and nothing else"),
        ({"mean_file": "nowhere.nc"}, SourceError, "no such file or store"),
        ({"mean_file": __file__}, SourceError, "cannot read moments"),
    ],
)
def test_files_that_do_not_tell_the_moments_are_refused(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        Standardize(**(by_level(tmp_path, "nc") | {"variable": "t"} | change))


def test_numbers_that_are_no_moments_are_refused(tmp_path):
    files = by_level(tmp_path, "nc")
    xr.Dataset({"t": ("level", [0.0, 1.0]), "p": ("x", [1.0, 2.0]), "m": (("x", "y"), [[1.0]] * 2)}
               ).to_netcdf(files["std_file"])  # fmt: skip
    with pytest.raises(FieldError, match="must be positive"):
        Standardize(**files, variable="t")
    with pytest.raises(FieldError, match=r"1 means in .* but 2 deviations"):
        Standardize(**files, variable="p")
    with pytest.raises(FieldError, match=r"has shape \(2, 1\)"):
        Standardize(**files | {"mean_file": files["std_file"]}, variable="m")
