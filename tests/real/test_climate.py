"""The year that a map of temperature is of, which the mean temperature tells less well."""

import json

import pytest
import xarray as xr
import yaml

MEMBERS = "TREFHT.B06.{member}.atm.1890-1999ANN.nc"
YEAR = {"coordinate": True, "scale": 1 / 365, "offset": 1870.164}
"""Days of 365 to a year, from the first of March 1870."""


@pytest.mark.slow
def test_a_map_tells_its_year_better_than_the_line_through_its_mean(real_data, m2m, tmp_path):
    files = str(real_data / "climate" / MEMBERS)

    def split(*members):
        chosen = {"member": [str(member) for member in members]}
        return {"temperature": {"pattern": files, "only": chosen}, "year": YEAR}

    standard = {"class_path": "map2map.norms.Standardize"}
    recipe = {
        "seed_everything": 1,
        "trainer": {"max_epochs": 45},
        "model": {
            "inputs": [{"name": "temperature", "units": "K", "channels": 1}],
            "targets": [{"name": "year", "kind": "parameter", "units": "yr"}],
            "norms": {"temperature": standard, "year": standard},
            "model": {
                "class_path": "map2map.models.ResNet",
                "init_args": {"width": 8, "levels": 4, "periodic": False, "dropout": 0.3},
            },
            "optimizer": {
                "class_path": "torch.optim.AdamW",
                "init_args": {"lr": 1e-3, "weight_decay": 0.1},
            },
            "schedule": {
                "scheduler": {"class_path": "map2map.schedules.WarmupCosine"},
                "interval": "step",
            },
        },
        "data": {
            "train": split(57, 59, 66),
            "domain": {"ndim": 2, "frames": 1, "periodic": [False, True], "pad": "zero"},
            "reading": {"batch_size": 16},
        },
        "output": {"figures": 0, "folder": "out"},
    }
    (tmp_path / "year.yaml").write_text(yaml.safe_dump(recipe))
    assert m2m("train", "year.yaml")[0] == 0
    status, out, _ = m2m(
        "evaluate", "out/emulator.safetensors", f"temperature={files}", "--only", "member=67"
    )
    assert status == 0
    print(out)
    with xr.open_dataset("scores.nc") as scores:
        error = scores.rmse.sel(per="sample", parameter="year")
        mine, line = (float(error.sel({"method": m})) for m in ("emulator", "mean_line"))
        assert json.loads(scores.attrs["data"])
    assert line > 25
    assert mine < 0.5 * line
    assert m2m("report", "scores.nc", "-o", "page.html")[0] == 0
