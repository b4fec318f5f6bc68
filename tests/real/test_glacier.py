"""The ice-flow emulator that others have published, and what their client gave of it."""

import numpy as np
import pytest
import torch
import xarray as xr

from map2map.emulator import Emulator

TARGETS = ("uvelbase", "vvelbase", "ubar", "vbar", "uvelsurf", "vvelsurf")


@pytest.fixture
def glacier(real_data):
    folder = real_data / "glacier"
    if not (folder / "model.h5").is_file():
        pytest.skip(f"no published emulator at {folder}")
    return folder


def frames(data):
    """The inputs of all frames, (time, field, y, x); slopes are differences of the surface."""
    usurf = data.usurf.values.astype(np.float64)
    dy, dx = (float(data[name][1] - data[name][0]) for name in ("y", "x"))
    slope_y, slope_x = np.gradient(usurf, dy, dx, axis=(1, 2))
    fields = [data.thk.values, slope_x, slope_y, data.arrhenius.values, data.slidingco.values]
    return torch.from_numpy(np.stack(fields, axis=1).astype(np.float32))


def test_the_published_emulator_gives_what_its_client_gives(glacier, m2m, tmp_path):
    status, out, err = m2m("import", "--from", "dle", glacier)
    assert (status, err) == (0, "")
    assert "PaddedConvNet of 140390 parameters" in out
    emulator = Emulator.load(tmp_path / "emulator.safetensors")
    assert emulator.inputs.names == ("thk", "slopsurfx", "slopsurfy", "arrhenius", "slidingco")
    assert emulator.targets.names == TARGETS
    with xr.open_dataset(glacier / "real_100/test/mdg/ex.nc", decode_times=False) as data:
        with torch.no_grad():
            found = emulator(frames(data)).numpy()
        expected = np.stack([data[f"em_{name}"].values for name in TARGETS], axis=1)
        ice = np.broadcast_to((data.thk.values > 0)[:, None], expected.shape)
    error = np.abs(found - expected)[ice]
    print(f"deviates by at most {error.max():.3f}, on average {error.mean():.4f} m/yr")
    assert np.abs(expected[ice]).max() > 100
    assert error.max() < 0.1
    assert error.mean() < 0.004


def test_the_published_emulator_survives_export_and_import_bit_for_bit(glacier, m2m, tmp_path):
    m2m("import", "--from", "dle", glacier)
    status, _, err = m2m(
        "export", "emulator.safetensors", "--to", "keras-h5", "--out", "a/model.h5"
    )
    assert (status, err) == (0, "")
    for name in ("fieldin.dat", "fieldout.dat"):
        assert (tmp_path / "a" / name).read_bytes() == (glacier / name).read_bytes()
    assert m2m("import", "--from", "dle", "a", "-o", "again.safetensors")[0] == 0
    first, again = (Emulator.load(tmp_path / f"{n}.safetensors") for n in ("emulator", "again"))
    one, other = first.state_dict(), again.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    card, copied = first.card(), again.card()
    assert (card.inputs, card.targets, card.norms) == (copied.inputs, copied.targets, copied.norms)
    assert (card.model, card.grid) == (copied.model, copied.grid)


def test_applied_to_files_it_computes_slopes_and_takes_numbers_for_fields(glacier, m2m, tmp_path):
    m2m("import", "--from", "dle", glacier)
    mdg = glacier / "real_100/test/mdg/ex.nc"
    assert m2m("apply", "emulator.safetensors", mdg, "-o", "mdg.nc")[0] == 0
    with (
        xr.open_dataset(tmp_path / "mdg.nc", decode_times=False) as made,
        xr.open_dataset(mdg, decode_times=False) as data,
    ):
        ice = data.thk.values > 0
        for name in TARGETS:
            error = np.abs(made[name].values - data[f"em_{name}"].values)[ice]
            assert error.max() < 0.1
            assert error.mean() < 0.004
    seen = glacier / "observation.nc"
    given = [f"usurf={seen}::usurfobs", f"thk={seen}::thkinit", "arrhenius=78", "slidingco=10"]
    observed = [f"{name}={seen}::{name}obs" for name in ("uvelsurf", "vvelsurf")]
    status, out, _ = m2m(
        "evaluate", "emulator.safetensors", *given, *observed, "--targets", "uvelsurf", "vvelsurf"
    )
    assert status == 0
    print(out)
    with xr.open_dataset(tmp_path / "scores.nc") as scores:
        r = float(scores.pearson.sel({"method": "emulator", "field": "velsurf"}).item())
    assert 0.8 < r < 0.9
