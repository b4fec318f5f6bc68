"""Use case E of the AI4sim collection, Pangu-Weather: its files on a small weather."""

import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
import zarr

from map2map.cli import main
from map2map.dialects.ai4sim.settings import DATA, MODELS
from map2map.dialects.ai4sim.stores import dates
from map2map.emulator import Emulator
from map2map.errors import RecipeError
from map2map.rollout import rollout
from map2map.synthetic.vortex_weather import Setting, simulate

SMALL = Setting(latitudes=8, longitudes=24, levels=[300, 500, 850], truncation=11, spin_up=0.0)
NETWORK = {
    "plevel_patch_size": [2, 2, 2], "window_size": [2, 2, 6], "token_size": 12,
    "layer_depth": [1, 1], "num_heads": [1, 2],
}  # fmt: skip
MOMENTS = {"mean_file": "data/mean.nc", "stddev_file": "data/std.nc"}
DAYS = {
    "train_time": "slice('2019-01-01','2019-01-03')", "val_time": "2019-01-04",
    "test_time": ["2019-01-05", "2019-01-06"],
}  # fmt: skip


def section(of_model=None, of_data=None, **trainer):
    return {
        "seed_everything": 3,
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": [0], **trainer},
        "model": {"class_path": "transformer_module.PanguModule",
                  "init_args": NETWORK | MOMENTS | (of_model or {})},
        "data": {"class_path": "data.ERA5DataModule",
                 "init_args": {"zarr_store": "data/weather.zarr", "plevels": [300, 500, 850],
                               "train_time_step": 6, "test_time_step": 12, "batch_size": 4,
                               "num_workers": 1, **DAYS, **(of_data or {})}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a weather, a file of two sections, and what came of it."""
    folder = tmp_path_factory.mktemp("pangu")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("STAT_DIR", str(folder / "data"))
        patch.setenv("ZARR_STORE", "data/weather.zarr")
        patch.setenv("LOGDIR", "logged")
        simulate(folder / "data", days=6, setting=SMALL)
        stats = "${oc.decode:${oc.env:STAT_DIR}}"
        logger = {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": "${oc.decode:${oc.env:LOGDIR, ./logs}}", "name": "lite"},
        }
        fit = section(
            {"mean_file": f"{stats}/mean.nc", "stddev_file": f"{stats}/std.nc",
             "norm_cst_mask": True, "use_scheduler": True, "lr": "1e-3"},
            {"zarr_store": "${oc.decode:${oc.env:ZARR_STORE}}"}, logger=logger,
        )  # fmt: skip
        test = section(logger=logger)
        test.pop("seed_everything")
        Path("two.yaml").write_text(yaml.safe_dump({"fit": fit, "test": test}))
        assert main(["ai4sim", "-c", "two.yaml", "fit"]) == 0
        assert not Path("logged/test_scores.nc").exists()
        assert main(["ai4sim", "test", "--config", "two.yaml"]) == 0
    return folder


def recipe(capsys, given, *more):
    Path("given.yaml").write_text(yaml.safe_dump(given))
    assert main(["ai4sim", "-c", "given.yaml", "--print-recipe", *more]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def refused(capsys, given, *more):
    Path("given.yaml").write_text(yaml.safe_dump(given))
    assert main(["ai4sim", "-c", "given.yaml", *more]) == 2
    return capsys.readouterr().err


def test_a_test_rolls_out_to_every_lead_and_tells_rmse_weighted_by_latitude(trained, monkeypatch):
    monkeypatch.chdir(trained)
    found = json.loads(Path("logged/test_scores.json").read_text())
    # eight frames of two days, of which six have one twelve hours later
    assert (found["starts"], found["step"]) == (6, "6h")
    assert set(found["rmse"]) == {"z500", "t850", "t2m", "u10"}
    emulator = Emulator.load("logged/emulator.safetensors")
    feed = {f"{name}_next": name for name in emulator.inputs.names[:9]}
    with xr.open_zarr("data/weather.zarr") as data:
        frames = data.isel(time=slice(16, 24)).load()
    w = np.cos(np.deg2rad(frames.latitude.values))[:, None]
    names = {"z500": ("geopotential", 1), "t850": ("temperature", 2),
             "t2m": ("2m_temperature", 0), "u10": ("10m_u_component_of_wind", 0)}  # fmt: skip
    squared = {(name, k): [] for name in names for k in (1, 2)}
    for start in range(6):
        fields = {}
        for name in emulator.inputs.names:
            values = frames[name].isel(time=start) if "time" in frames[name].dims else frames[name]
            fields[name] = values.values.reshape(-1, 8, 24)
        for k, made in enumerate(rollout(emulator, fields, 2, feed), start=1):
            for name, (variable, level) in names.items():
                truth = frames[variable].values[start + k].reshape(-1, 8, 24)[level]
                error = made[f"{variable}_next"][level] - truth
                squared[name, k].append((w * np.square(error)).mean() / w.mean())
    for (name, k), values in squared.items():
        told = found["rmse"][name][f"{6 * k}h"]["emulator"]
        np.testing.assert_allclose(told, np.sqrt(np.mean(values)), rtol=1e-4)
    with xr.open_dataset("logged/test_scores.nc") as scores:
        assert scores.sizes["channel"] == 5 * 3 + 4


def test_settings_of_pangu_reach_network_norms_loss_and_rate(trained, monkeypatch):
    monkeypatch.chdir(trained)
    emulator = Emulator.load("logged/emulator.safetensors")
    made = emulator.training_record["recipe"]
    assert made["model"]["model"]["init_args"]["depths"] == [1, 1, 1, 1]
    assert made["model"]["model"]["init_args"]["heads"] == [1, 2, 2, 1]
    with xr.open_dataset("data/mean.nc") as mean, xr.open_zarr("data/weather.zarr") as data:
        np.testing.assert_allclose(emulator.norm("temperature_next").mean, mean.temperature)
        land = data.land_sea_mask.values.astype(float)
        np.testing.assert_allclose(emulator.norm("land_sea_mask").std, land.std(), rtol=1e-6)
    adam = made["model"]["optimizer"]
    assert adam["class_path"] == "torch.optim.Adam"
    assert adam["init_args"]["lr"] == 1e-3
    assert adam["init_args"]["weight_decay"] == 3e-6
    cosine = made["model"]["schedule"]["scheduler"]
    assert cosine["class_path"].endswith("CosineAnnealingLR")
    assert cosine["init_args"]["T_max"] == 1
    weighted = made["model"]["loss"]["init_args"]
    assert weighted["surface_share"] == 0.25
    assert weighted["weights"]["geopotential_next"] == 3.0
    assert weighted["surface"]["mean_sea_level_pressure_next"] == 1.5
    assert made["seed_everything"] == 3
    assert any(Path("logged/lite").rglob("events*"))


def test_frames_are_those_of_the_dates_and_a_step_apart(trained, monkeypatch):
    monkeypatch.chdir(trained)
    emulator = Emulator.load("logged/emulator.safetensors")
    train = emulator.training_record["recipe"]["data"]["train"]
    assert train["geopotential"]["only"] == {"time": ["2019-01-01:2019-01-03"]}
    assert train["temperature_next"]["later"] == "6h"
    # twelve frames, whose last has none later; in batches of four
    assert emulator.training_record["optimizer_steps"] == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slice('2019-01-01', '2020-03-25')", ["2019-01-01:2020-03-25"]),
        ("slice('2019-01-01','2020-03-25')", ["2019-01-01:2020-03-25"]),
        ('slice("2019-01-01","2020-03-25", None)', ["2019-01-01:2020-03-25"]),
        ("slice('2019-01-01T06:00', None)", ["2019-01-01T06:00:"]),
        ("slice('2019')", [":2019"]),
        ("2018", ["2018"]),
        (2018, ["2018"]),
        (["2018", 2020, "slice('2021-01','2021-06')"], ["2018", "2020", "2021-01:2021-06"]),
    ],
)
def test_dates_are_years_slices_and_lists_of_them(text, expected):
    assert dates("train_time", text) == expected


@pytest.mark.parametrize(
    "text",
    ["slice('2019-01-01', '2020-01-01', 2)", "slice('2020','2019')", "yesterday", [], None,
     # what YAML makes of a slice in a list that is not quoted
     ["slice('2019-01-01'", "'2020-03-25')"]],
)  # fmt: skip
def test_other_dates_are_refused_by_name(text):
    with pytest.raises(RecipeError, match=r"data\.init_args\.val_time"):
        dates("val_time", text)


def test_levels_may_be_some_neighbors_of_the_store(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    made = recipe(capsys, section(of_data={"plevels": [500, 850]}))
    train = made["data"]["train"]
    assert train["temperature"]["variable"] == "temperature[1:3]"
    assert train["temperature_next"]["variable"] == "temperature[1:3]"
    assert made["model"]["model"]["init_args"]["levels"] == 2
    with xr.open_dataset("data/mean.nc") as mean:
        found = made["model"]["norms"]["temperature"]["init_args"]["mean"]
        np.testing.assert_allclose(found, mean.temperature.sel(level=[500, 850]))
    for levels, said in (([300, 850], "not neighbors"), ([850, 500], "not neighbors"),
                         ([500, 1000], "[1000]")):  # fmt: skip
        assert said in refused(capsys, section(of_data={"plevels": levels}))


def test_a_limited_area_has_an_end_and_masks_may_be_left_out(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    given = section({"lam": True, "checkpoint_activation": True},
                    {"constant_mask_list": None,
                     "surface_variables": ["2m_temperature"]})  # fmt: skip
    made = recipe(capsys, given)
    assert made["data"]["domain"]["periodic"] == [False, False]
    network = made["model"]["model"]["init_args"]
    assert (network["limited_area"], network["checkpointing"], network["surface"]) == (
        True,
        True,
        1,
    )
    assert len(made["model"]["inputs"]) == 6


def test_without_files_of_moments_norms_are_fitted(trained, monkeypatch, capsys, caplog):
    monkeypatch.chdir(trained)
    made = recipe(capsys, section({"mean_file": None, "stddev_file": None}))
    # masks are as they are, which is told
    assert "norm_cst_mask: true" in caplog.text
    assert made["model"]["norms"]["temperature"] == {"class_path": "map2map.norms.Standardize"}
    assert "land_sea_mask" not in made["model"]["norms"]


def test_it_is_the_recipe_of_the_package_for_the_same_settings(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    shipped = yaml.safe_load((files("map2map.recipes") / "weather_step.yaml").read_text())
    made = recipe(capsys, section(of_data={"train_time_step": 24}))
    for side in ("inputs", "targets"):
        names = [entry["name"] for entry in shipped["model"][side]]
        assert [entry["name"] for entry in made["model"][side]] == names
    loss = shipped["model"]["loss"]
    assert made["model"]["loss"]["init_args"] == loss["init_args"] | {"surface_share": 0.25}
    assert made["data"]["domain"] == shipped["data"]["domain"]
    for split in ("train", "val"):
        for ours, theirs in ((made["data"][split], shipped["data"][split]),):
            assert list(ours) == list(theirs)
            assert ours["temperature_next"] == theirs["temperature_next"]
            assert ours["soil_type"] == theirs["soil_type"]
    for name in ("temperature", "2m_temperature_next"):
        assert made["model"]["norms"][name] == shipped["model"]["norms"][name]


def test_one_section_is_trained_then_tested_on_some_levels_of_a_limited_area(trained, monkeypatch):
    monkeypatch.chdir(trained)
    given = section(
        {"mean_file": None, "stddev_file": None, "lam": True},
        {"plevels": [500, 850], "constant_mask_list": None, "plevel_variables": ["geopotential"]},
        default_root_dir="flat",
    )
    Path("flat.yaml").write_text(yaml.safe_dump(given))
    assert main(["ai4sim", "-c", "flat.yaml"]) == 0
    emulator = Emulator.load("flat/emulator.safetensors")
    found = json.loads(Path("flat/test_scores.json").read_text())["rmse"]
    assert set(found) == {"z500", "t2m", "u10"}
    with xr.open_zarr("data/weather.zarr") as data:
        z = data.geopotential.sel(level=[500, 850]).values.astype(float)
        w = np.cos(np.deg2rad(data.latitude.values))[:, None]
    # of the frames of the training, as files of moments were not given
    np.testing.assert_allclose(emulator.norm("geopotential").mean, z[:11].mean((0, 2, 3)))
    squared = np.square(z[18:24, 0] - z[16:22, 0]) * w / w.mean()
    persistence = found["z500"]["12h"]["persistence"]
    np.testing.assert_allclose(persistence, np.sqrt(squared.mean()), rtol=1e-5)


def test_weights_of_the_loss_are_in_the_order_of_names(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    given = section(
        {"surface_variable_weights": [1, 2, 3, 4], "loss_weight": 0.5},
        {"surface_variables": ["mean_sea_level_pressure", "2m_temperature",
                               "10m_v_component_of_wind", "10m_u_component_of_wind"]},
    )  # fmt: skip
    weighted = recipe(capsys, given)["model"]["loss"]["init_args"]
    assert weighted["surface"]["10m_u_component_of_wind_next"] == 1
    assert weighted["surface"]["mean_sea_level_pressure_next"] == 4
    assert weighted["surface_share"] == 0.5


REFUSED = [
    ({"add_const2": True}, {}, "add_const2"),
    ({"dropout_rate": 0.1}, {}, "dropout_rate"),
    ({"wl_norm": True}, {}, "wl_norm"),
    ({"criterion": "torch.nn.MSELoss"}, {}, "L1Loss"),
    ({"mean_file": None}, {}, "model.init_args.mean_file is missing"),
    ({"time_step": 6}, {}, "data.init_args.train_time_step"),
    ({"latitude": 8}, {}, "from the store"),
    ({"layer_depth": [1]}, {}, "two whole numbers"),
    ({"plevel_variable_weights": [1, 2]}, {}, "5 numbers"),
    ({"lr": "fast"}, {}, "must be a number"),
    ({"lam": "yes"}, {}, "true or false"),
    ({"plevel_patch": 3}, {}, "did you mean 'plevel_patch_size'"),
    ({}, {"zarr_store": "gs://weatherbench2"}, "weatherbench2.readthedocs.io"),
    ({}, {"zarr_store": None}, "zarr_store is missing"),
    ({}, {"constant_mask_list": ["land_mask"]}, "did you mean 'land_sea_mask'"),
    ({}, {"constant_mask_list": ["lake_depth"]}, "no variable 'lake_depth'"),
    ({}, {"plevel_variables": ["vorticity"]}, "no variable 'vorticity'"),
    ({}, {"surface_variables": ["temperature"]}, "time, level, latitude, longitude"),
    ({}, {"train_time_step": 0}, "train_time_step"),
    ({}, {"train_time_step": 7}, "data.init_args.train_time_step: a step of 7h"),
    ({}, {"val_time": "2020"}, "data.init_args.val_time: there are no frames in 2020"),
    ({}, {"val_time": "slice(None,'2019-01-01')"}, "4 frames of data.init_args.val_time"),
    ({}, {"plevels": 500}, "a list of levels"),
]


@pytest.mark.parametrize(("of_model", "of_data", "said"), REFUSED)
def test_what_cannot_act_is_refused_by_name(trained, monkeypatch, capsys, of_model, of_data, said):
    monkeypatch.chdir(trained)
    assert said in refused(capsys, section(of_model, of_data), "fit")
    assert not Path("logs").exists()


def test_random_numbers_are_named_with_what_to_do_instead(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    given = section()
    given["data"] = {"class_path": "data.MockERA5DataModule", "init_args": {"n_samples": 3}}
    said = refused(capsys, given)
    assert "random" in said
    assert "m2m simulate vortex_weather" in said


def test_random_weights_are_not_scored(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    said = refused(capsys, section(), "test", "--ckpt_path", "none.safetensors")
    assert "ckpt_path none.safetensors" in said
    said = refused(capsys, {"test": section(default_root_dir="elsewhere")})
    assert "Random weights are not scored" in said
    assert "--ckpt_path" in said
    assert not Path("elsewhere").exists()
    assert "m2m rollout" in refused(capsys, section(), "predict")


def test_dates_of_the_training_and_other_steps_are_not_tested(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    start = ("test", "--ckpt_path=logged/emulator.safetensors", "--trainer.default_root_dir=other")
    said = refused(
        capsys, section(of_data={"test_time": "slice('2019-01-03','2019-01-05')"}), *start
    )
    assert "4 frames" in said
    said = refused(capsys, section(of_data={"test_time_step": 15}), *start)
    assert "multiple of train_time_step" in said
    said = refused(capsys, section(of_data={"train_time_step": 12}), *start)
    assert "train_time_step is 12" in said
    said = refused(capsys, section(of_data={"constant_mask_list": []}), *start)
    assert "constant_mask_list" in said


def test_a_validation_is_a_step_and_batches_of_a_test_can_be_limited(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    Path("one.yaml").write_text(yaml.safe_dump(section(default_root_dir="other")))
    start = ["ai4sim", "-c", "one.yaml", "--ckpt_path=logged/emulator.safetensors"]
    assert main([*start, "validate"]) == 0
    found = json.loads(Path("other/validate_scores.json").read_text())
    assert found["starts"] == 3
    assert list(found["rmse"]["t2m"]) == ["6h"]
    assert "val" in capsys.readouterr().out
    assert main([*start, "test", "--trainer.limit_test_batches=1"]) == 0
    assert json.loads(Path("other/test_scores.json").read_text())["starts"] == 4


def test_a_checkpoint_of_the_collection_is_tested_with_its_own_weights(trained, monkeypatch):
    monkeypatch.chdir(trained)
    trained_here = Emulator.load("logged/emulator.safetensors")
    older = legacy(trained_here.model.state_dict())
    torch.save({"state_dict": older, "epoch": 4}, "older.ckpt")
    Path("t.yaml").write_text(
        yaml.safe_dump({"test": section({"norm_cst_mask": True}, default_root_dir="older")})
    )
    assert main(["ai4sim", "-c", "t.yaml", "test", "--ckpt_path", "older.ckpt"]) == 0
    found, expected = (
        json.loads(Path(f"{folder}/test_scores.json").read_text())["rmse"]
        for folder in ("older", "logged")
    )
    for name, leads in expected.items():
        for lead, values in leads.items():
            np.testing.assert_allclose(found[name][lead]["emulator"], values["emulator"], rtol=1e-4)
    kept = Emulator.load("older/older.safetensors")
    np.testing.assert_array_equal(
        kept.model.state_dict()["down.1.weight"], older["model.downsample.linear.weight"]
    )


def legacy(state):
    """The state of a network under the names of the collection, in its shapes."""
    names = [
        (r"^embed\.levels\.", "embedding_layer.conv_plevel."),
        (r"^embed\.surface\.", "embedding_layer.conv_surface."),
        (r"^layers\.(\d)", lambda m: f"layer{int(m[1]) + 1}"),
        (r"attention\.bias$", "attention.earth_specific_bias"),
        (r"attention\.qkv", "attention.linear1"), (r"attention\.out", "attention.linear2"),
        (r"mlp\.0", "mlp.linear1"), (r"mlp\.2", "mlp.linear2"),
        (r"^down\.0", "downsample.norm"), (r"^down\.1", "downsample.linear"),
        (r"^up\.", "upsample.linear1."), (r"^mix\.0", "upsample.norm"),
        (r"^mix\.1", "upsample.linear2"),
        (r"^recover\.levels\.linear\.", "_output_layer.conv."),
        (r"^recover\.levels\.bias", "_output_layer.conv.bias"),
        (r"^recover\.surface\.linear\.", "_output_layer.conv_surface."),
        (r"^recover\.surface\.bias", "_output_layer.conv_surface.bias"),
    ]  # fmt: skip
    found = {}
    for name, value in state.items():
        older = name
        for ours, theirs in names:
            older = re.sub(ours, theirs, older)
        value = value.clone()
        if "conv_plevel.weight" in older:
            value = value.reshape(12, 5, 2, 2, 2)
        elif "conv_surface.weight" in older and older.startswith("embed"):
            value = value.reshape(12, -1, 2, 2)
        elif older == "_output_layer.conv.weight":
            value = value.T.reshape(24, 5, 2, 2, 2)
        elif older == "_output_layer.conv_surface.weight":
            value = value.T.reshape(24, 4, 2, 2)
        found[f"model.{older}"] = value
    found["model.constant_masks"] = torch.zeros(3, 8, 24)
    return found


def test_all_keys_are_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["ai4sim", "--help"])
    said = capsys.readouterr().out
    for name, arguments in (MODELS | DATA).items():
        assert name in said
        for key in arguments:
            assert re.search(rf"\s{key}\s", said), key
    assert max(map(len, said.splitlines())) <= 100


def test_numbers_of_a_store_are_taken_as_they_are_stored(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    group = zarr.open_group("w.zarr", mode="w", zarr_format=2)

    def put(name, values, dims, **attrs):
        # as Zarr's own default has it; times and shares of land may well be 0
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, fill_value=0)
        array[...] = values
        array.attrs.update(attrs | {"_ARRAY_DIMENSIONS": dims})

    space = ["latitude", "longitude"]
    put("time", np.arange(8) * 6, ["time"], units="hours since 2019-01-01")
    put("level", np.array([500]), ["level"])
    put("latitude", np.array([-45.0, 45.0]), ["latitude"])
    put("longitude", np.arange(4) * 90.0, ["longitude"])
    put("geopotential", np.ones((8, 1, 2, 4), "f4"), ["time", "level", *space])
    put("2m_temperature", np.ones((8, 2, 4), "f4"), ["time", *space])
    land = np.array([[0, 0, 1, 1], [0, 0, 0, 2]], "i2")
    put("land_sea_mask", land, space, scale_factor=0.5)
    given = section(
        {"norm_cst_mask": True, "mean_file": None, "stddev_file": None},
        {"zarr_store": "w.zarr", "plevels": [500], "plevel_variables": ["geopotential"],
         "surface_variables": ["2m_temperature"], "constant_mask_list": ["land_sea_mask"],
         "train_time": "2019-01-01", "val_time": "2019-01-02"},
    )  # fmt: skip
    norm = recipe(capsys, given)["model"]["norms"]["land_sea_mask"]["init_args"]
    np.testing.assert_allclose(norm["mean"], [land.mean() / 2])
    np.testing.assert_allclose(norm["std"], [land.std() / 2])
