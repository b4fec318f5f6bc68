"""The gravity classifiers' YAML file: its keys and names, the recipe that it means, its data."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from map2map.commands.train import make
from map2map.dialects.cubes.cubes import find
from map2map.dialects.cubes.options import locate, parser, read_settings
from map2map.dialects.cubes.translation import kept_in_memory, network, recipe
from map2map.errors import GeometryError, RecipeError, SourceError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.memory import bytes_of
from map2map.models import Paco, Penguin, Racoon
from map2map.moment_files import write_moments
from map2map.runs import Files, Runs
from map2map.windows import Window

MADE = runpy.run_path(str(Path(__file__).with_name("made_cubes.py")))
one_thread, material, here = (MADE[name] for name in ("one_thread", "material", "here"))
written, cube, write_root = (MADE[name] for name in ("written", "cube", "write_root"))
YAML, NAME, QUICK = (MADE[name] for name in ("YAML", "NAME", "QUICK"))
KEYS = [(section, key) for section, keys in YAML.items() for key in keys]


def translated(*argv, **changes):
    options = parser().parse_args([str(written(**changes)), *map(str, argv)])
    settings = read_settings(locate(options.config))
    cubes = find(Path(settings.datafile), options.redshift)
    return recipe(settings, options, cubes, settings.epochs)


def prepared(*argv, **changes):
    """Task and data of a recipe, opened."""
    made = translated(*argv, **changes) | {"trainer": {"logger": False}}
    cli = make(made, "m2m cubes")
    cli.model.prepare(cli.datamodule)
    return cli.model, cli.datamodule


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_key_is_needed_and_named_if_it_is_missing(here, section, key):
    with pytest.raises(RecipeError, match=rf"lacks {section}\.{key}; all keys are needed"):
        read_settings(written(**{key: None}))


@pytest.mark.parametrize(
    ("section", "key", "match"),
    [
        (
            "model_params",
            "layer_parm",
            "no key model_params.layer_parm; did you mean 'layer_par",
        ),
        ("train_params", "dropout", "no key train_params.dropout; it belongs to model_params"),
        ("trian_params", "lr", "unknown section 'trian_params'; did you mean 'train_params'"),
    ],
)
def test_unknown_keys_are_refused_with_near_names(here, section, key, match):
    path = written()
    entries = yaml.safe_load(path.read_text())
    entries.setdefault(section, {})[key] = 1
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(RecipeError, match=match):
        read_settings(path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "has no sections; there must be model_params"),
        ("model_params: {", "is not YAML"),
        ("model_params: 3", "has no section model_params, in which architecture"),
    ],
)
def test_what_is_no_configuration_is_told(here, text, match):
    Path("temp.yaml").write_text(text)
    with pytest.raises(RecipeError, match=match):
        read_settings(Path("temp.yaml"))


def test_values_are_cast_as_before(here):
    settings = read_settings(written(layer_param=6.0, lr="1e-5", dropout=0, train_seeds="2"))
    assert (settings.layer_param, settings.lr, settings.train_seeds) == (6, 1e-5, 2)
    assert isinstance(settings.dropout, float)
    assert isinstance(settings.layer_param, int)


def test_a_key_that_stands_twice_is_refused_with_its_lines(here):
    path = written()
    text = path.read_text()
    path.write_text(text.replace("  name: run\n", "  name: run\n  architecture: PACO\n"))
    with pytest.raises(RecipeError, match=r"temp.yaml: the key architecture stands twice .*lines "):
        read_settings(path)
    path.write_text(text + "train_params: {epochs: 2}\n")
    with pytest.raises(RecipeError, match="the key train_params stands twice"):
        read_settings(path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"lr": "fast"}, "train_params.lr is 'fast', but must be a number"),
        ({"lr": ".nan"}, "train_params.lr is '.nan', but must be a number"),
        ({"lr": float("inf")}, "must be finite"),
        ({"lr": 0}, "lr is 0.0; it must be above 0"),
        ({"epochs": True}, "train_params.epochs is True, but must be a whole number"),
        ({"layer_param": 6.9}, "layer_param is 6.9, but must be a whole number; give 6 or 7"),
        ({"epochs": 1.7}, "train_params.epochs is 1.7, but must be a whole number; give 1 or 2"),
        ({"train_seeds": "2.5"}, "train_seeds is '2.5', but must be a whole number"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"test_seeds": 0}, "test_seeds is 0; it must be at least 1"),
        ({"dropout": 1}, "dropout is 1.0; it must be at least 0 and below 1"),
        ({"name": ""}, "model_params.name is ''; it is the first part of the model's name"),
        ({"name": " "}, "must not be empty"),
        ({"name": "a/b"}, "becomes part of a file name"),
        ({"architecture": "penguine"}, "no architecture 'penguine'; did you mean 'penguin'"),
        ({"architecture": "CNN"}, "no architecture 'CNN'; there are p, paco, penguin, raccoon"),
    ],
)
def test_values_that_are_not_allowed_are_refused(here, changes, match):
    with pytest.raises(RecipeError, match=match):
        read_settings(written(**changes))


@pytest.mark.parametrize(
    ("typed", "model"),
    [("RACOON", "Racoon"), ("raccoon", "Racoon"), ("P", "Penguin"), ("Penguin", "Penguin"),
     ("paco", "Paco"), ("PACO", "Paco")],
)  # fmt: skip
def test_architectures_have_their_names_in_any_case(here, typed, model):
    made = translated(architecture=typed)
    assert made["model"]["model"]["class_path"] == f"map2map.models.{model}"
    assert f"_data_z1_{typed}_lp2_" in made["output"]["folder"]


@pytest.mark.parametrize("log_dir", ["/proc/foo", "/proc/foo/bar", f"logs/{'x' * 300}"])
def test_a_folder_of_logs_that_cannot_be_made_is_refused_before_anything_is(here, m2m, log_dir):
    before = {*written(log_dir=log_dir).parent.iterdir()}
    for more in ((), ("--print-recipe",)):
        status, _, err = m2m("cubes", "temp", *QUICK, *more)
        assert status == 2
        assert f"log_dir is '{log_dir}', but " in err
        # who is not root may not even try
        assert "cannot be made in " in err or "cannot be written to" in err
        assert "choose another" in err
        assert {*Path().iterdir()} == before


def test_looking_whether_logs_can_be_made_leaves_nothing(here, m2m):
    Path("some").mkdir()
    before = {*written(log_dir="some/of/the/logs").parent.rglob("*")}
    assert m2m("cubes", "temp", "--print-recipe")[0] == 0
    assert {*Path().rglob("*")} == before


@pytest.mark.parametrize("log_dir", ["file", "file/below/it", "logs", "dangling"])
def test_logs_in_a_file_are_refused_before_anything_is_made(here, m2m, log_dir):
    Path("file").touch()
    Path("dangling").symlink_to("nowhere")
    Path("logs").mkdir()
    (Path("logs") / f"{NAME}_lr0.001").touch()
    written(log_dir=log_dir)
    for more in ((), ("--print-recipe",)):
        status, _, err = m2m("cubes", "temp", *more)
        assert status == 2
        assert f"log_dir is '{log_dir}', but " in err
        assert " is no folder; allowed is a folder" in err
        assert len(err.strip().splitlines()) == 1
    assert not Path("models").exists()


def test_a_folder_of_logs_may_be_missing_or_there(here, m2m):
    for log_dir in ("logs/of/runs", "."):
        written(log_dir=log_dir)
        assert m2m("cubes", "temp", "--print-recipe")[0] == 0


def test_files_are_looked_for_in_configurations_first(here):
    with pytest.raises(RecipeError, match=r"neither configurations/temp.yaml nor temp.yaml"):
        locate("temp")
    written()
    assert locate("temp") == locate("temp.yaml") == Path("temp.yaml")
    with pytest.raises(RecipeError, match="did you mean 'temp'"):
        locate("temq.yaml")
    inside = written(Path("configurations/temp.yaml"))
    assert locate("temp") == locate("temp.yaml") == inside


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, NAME),
        (
            {"dropout": 1e-5, "newton_augmentation": 0.5, "train_seeds": 1, "name": 7},
            "7_data_z1_RACCOON_lp2_do1e-05_na0.5_ts1",
        ),
        # up to the first dot
        ({"datafile": "x/A_s2.2e-9.h5"}, "run_A_s2_RACCOON_lp2_do0.0_na1.0_ts3"),
    ],
)
def test_models_are_named_as_before(here, changes, name):
    assert read_settings(written(**changes)).model_name == name


# --- the recipe ----------------------------------------------------------------------------------


def test_options_are_what_the_original_has_in_code(here):
    options = vars(parser().parse_args(["temp"]))
    assert options == {
        "config": "temp", "print_recipe": False, "redshift": None, "stats": None, "stride": 1,
        "augment": True, "smoothing": 0.0, "memory": None, "workers": None, "batch_size": None,
        "activation": "leaky_relu", "head": "flatten", "weight_decay": None,
        "betas": [0.5, 0.999], "test_every": 2, "seed": 42,
        "devices": "auto",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        ("--seed=-1", "--seed is -1; it must be at least 0 and below 4294967296"),
        ("--seed=4294967296", "--seed is 4294967296; it must be at least 0"),
        ("--smoothing=0.5", "--smoothing is 0.5; it must be at least 0 and below 0.5"),
        ("--smoothing=-0.1", "--smoothing is -0.1; it must be at least 0"),
        ("--smoothing=nan", "--smoothing is nan; it must be at least 0"),
        ("--betas 0.5 1", "--betas is 1.0; it must be at least 0 and below 1"),
        ("--betas -0.5 0.9", "--betas is -0.5; it must be"),
        ("--weight-decay=-1", "--weight-decay is -1.0; it must be at least 0"),
        ("--weight-decay=inf", "--weight-decay is inf; it must be at least 0"),
        ("--weight-decay=nan", "--weight-decay is nan; it must be at least 0"),
        ("--batch-size=1", "--batch-size is 1; it must be at least 2 (batch normalization"),
        ("--stride=0", "--stride is 0; it must be at least 1"),
        ("--test-every=0", "--test-every is 0; it must be at least 1"),
        ("--workers=-1", "--workers is -1; it must be at least 0"),
        ("--devices=0", "--devices is 0; it must be at least 1"),
        ("--redshift=-1", "--redshift is -1.0; it must be at least 0"),
        ("--memory=lots", "--memory: 'lots' is no size of memory; write it like 512MiB"),
    ],
)
def test_options_out_of_range_are_refused_before_the_data_are_looked_at(here, m2m, argv, match):
    written(datafile="absent.h5")
    for more in ((), ("--print-recipe",)):
        status, _, err = m2m("cubes", "temp", *argv.split(), *more)
        assert status == 2
        assert match in err
    assert not Path("models").exists()


def test_the_longest_stride_is_a_cubes_size(here, m2m):
    written()
    assert m2m("cubes", "temp", "--print-recipe", "--stride=64")[0] == 0
    status, _, err = m2m("cubes", "temp", "--print-recipe", "--stride=65")
    assert status == 2
    assert "--stride is 65, but cubes have 64 cells per axis; it must be at least 1" in err


@pytest.mark.parametrize(("architecture", "decay"), [("racoon", 1e-11), ("PACO", 1e-8)])
def test_the_recipe_has_the_optimizer_of_the_original(here, architecture, decay):
    made = translated(architecture=architecture)
    assert made["model"]["optimizer"] == {
        "class_path": "torch.optim.Adam",
        "init_args": {"lr": 1e-3, "betas": [0.5, 0.999], "weight_decay": decay},
    }
    assert made["model"]["loss"]["class_path"] == "torch.nn.BCEWithLogitsLoss"
    assert made["trainer"]["check_val_every_n_epoch"] == 2
    assert made["data"]["domain"]["planes"] == [0, 1, 2]
    logger = made["trainer"]["logger"]["init_args"]
    assert (logger["save_dir"], logger["name"]) == ("logs", f"{name_of(made)}_lr0.001")


def name_of(made):
    return Path(made["output"]["folder"]).name


def test_options_reach_the_recipe(here):
    write_moments(Path("s.npy"), 2.0, 3.0)
    made = translated(
        "--stats=s.npy", "--stride=2", "--augment=false", "--smoothing=0.1", "--workers=3",
        "--slices-per-batch=7", "--weight-decay=1", "--betas", 0.1, 0.2, "--test-every=5",
        "--seed=9", "--devices=2", newton_augmentation=0.5,
    )  # fmt: skip
    data = made["data"]
    assert made["model"]["norms"]["potential"]["init_args"] == {"file": "s.npy"}
    assert data["domain"]["plane_step"] == 2
    assert data["augment"] == {"symmetries": "none", "label_smoothing": 0.1}
    assert (data["reading"]["threads"], data["reading"]["batch_size"]) == (3, 7)
    assert data["reading"]["class_factors"] == {"newton": 0.5}
    adam = made["model"]["optimizer"]["init_args"]
    assert (adam["betas"], adam["weight_decay"]) == ([0.1, 0.2], 1)
    trainer = made["trainer"]
    assert (trainer["check_val_every_n_epoch"], trainer["devices"]) == (5, 2)
    assert made["seed_everything"] == 9


@pytest.mark.parametrize(
    ("architecture", "width", "size"),
    # cubes at once, times 192 slices, for an eighth of the original's symmetries; or 150
    [("racoon", 16, 96), ("racoon", 17, 120), ("racoon", 33, 48), ("p", 16, 48), ("p", 17, 24),
     ("paco", 1, 150)],
)  # fmt: skip
def test_a_batch_makes_as_many_steps_as_the_original(here, architecture, width, size):
    made = translated(architecture=architecture, layer_param=width)
    assert made["data"]["reading"]["batch_size"] == size


def test_the_last_batch_is_never_of_one_slice(here):
    for stride in range(1, 33):
        made = translated("--stride", stride, architecture="p", layer_param=20, train_seeds=3)
        slices = 2 * 3 * 3 * -(-64 // stride)
        assert slices % made["data"]["reading"]["batch_size"] != 1


def test_the_recipe_is_printed_and_nothing_else_is_done(here, m2m):
    written()
    before = sorted(Path().iterdir())
    status, out, _ = m2m("cubes", "temp", "--print-recipe")
    assert status == 0
    assert yaml.safe_load(out) == translated()
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("smoothing", [0, 0.001, 0.05, 0.3])
def test_newton_is_multiplied_after_its_norm_in_both_splits_at_every_smoothing(here, smoothing):
    write_moments(Path("s.npy"), 2.0, 4.0)
    factor = 0.25
    task, data = prepared(
        *QUICK, "--stats=s.npy", f"--smoothing={smoothing}", "--augment=false",
        newton_augmentation=factor,
    )  # fmt: skip
    with h5py.File("data_z1.h5", locking=False) as file:
        cubes = {name: file[name][:] for name in file}
    for split, first, low in (("train", 0, smoothing), ("val", 3, 0.0)):
        dataset, seen = data.dataset(split), set()
        for batch in data._batches[split]:
            with torch.no_grad():
                loss, x, output, y = task.eval().step(batch)
            # what the labels leave to the other class is in the loss only
            entropy = nn.functional.binary_cross_entropy_with_logits
            assert float(loss) == pytest.approx(
                float((1 - low) * entropy(output, y) + low * entropy(output, 1 - y)), rel=1e-5
            )
            for index, image, label in zip(batch.indices, x, y, strict=True):
                run = dataset.runs.runs[index]
                gravity, seed = run.told["gravity"], int(run.told["seed"])
                axis, plane = run.plane
                raw = cubes[f"{gravity}_seed{seed:04d}"].take(plane, axis)
                times = factor if gravity == "newton" else 1
                np.testing.assert_allclose(image[0], times * (raw - 2) / 4, rtol=1e-5, atol=1e-6)
                assert float(label) == (gravity == "gr")
                seen.add((seed, gravity, axis))
        seeds = range(first, first + (3 if split == "train" else 2))
        # both classes of a seed are on one side, and every axis is sliced
        assert seen == {(s, g, a) for s in seeds for g in ("gr", "newton") for a in range(3)}


def test_more_seeds_than_there_are_are_refused_with_both_numbers(here, m2m):
    written(train_seeds=4)
    status, _, err = m2m("cubes", "temp")
    assert status == 2
    assert "train_seeds 4 and test_seeds 2 need 6 seeds, 0 to 5, but data_z1.h5 has 5" in err
    assert "has 5, without 5; ask for at most 5 together" in err
    assert not Path("models").exists()


@pytest.mark.parametrize(
    ("seeds", "match"),
    [
        ((0, 1, 3, 4), "need 5 seeds, 0 to 4, but gap.h5 has 4, without 2; ask for at most 2"),
        ((0, 1, 2, 4, 7, 9), "but gap.h5 has 6, without 3; ask for at most 3 together"),
        ((1, 2, 4, 5, 6), "but gap.h5 has 5, without 0, 3; ask for data that have them"),
    ],
)
def test_seeds_that_are_missing_are_named_however_many_others_there_are(here, m2m, seeds, match):
    write_root(Path("gap.h5"), seeds, 4)
    written(datafile="gap.h5")
    status, _, err = m2m("cubes", "temp")
    assert status == 2
    assert match in err


@pytest.mark.parametrize(
    ("newton", "gr", "match"),
    [
        (
            (0, 1, 3, 4),
            (0, 1, 2, 3, 4),
            "has 4 of newton and 5 of gr, without 2 of newton; ask for at most 2 together",
        ),
        (
            (0, 1, 2, 4),
            (0, 1, 2),
            "has 4 of newton and 3 of gr, without 3 of newton, and without 3, 4 of gr; ask for "
            "at most 3 together",
        ),
        ((), range(5), "0 of newton and 5 of gr, without 0, 1, 2, 3, 4 of newton; ask for data"),
        ((0, 1, 2, 3, 4, 9), range(5), None),
    ],
)
def test_seeds_that_are_missing_of_one_class_are_told_of_it(here, m2m, newton, gr, match):
    with h5py.File("gap.h5", "w") as file:
        for gravity, seeds in (("newton", newton), ("gr", gr)):
            for seed in seeds:
                file[f"{gravity}_seed{seed:04d}"] = cube(seed, gravity, 64)
    written(datafile="gap.h5")
    status, _, err = m2m("cubes", "temp", "--print-recipe")
    assert status == (2 if match else 0), err
    assert (match or "") in err


# --- the data ------------------------------------------------------------------------------------

LAYOUTS = {
    "root": ("data.h5", lambda s, g: ("data.h5", f"{g}_seed{s:04d}")),
    "groups": ("data.h5", lambda s, g: ("data.h5", f"{s}/{g}")),
    "raw": ("runs", lambda s, g: (f"runs/seed{s:04d}/{g}/{g}_snap004_phi.h5", "data")),
    "small": ("cubes", lambda s, g: (f"cubes/{g}_seed{s:04d}_redshift1.h5", "data")),
}


def write_layout(layout, where=LAYOUTS):
    datafile, place = where[layout]
    for seed in range(12):
        for number, gravity in enumerate(("newton", "gr")):
            name, array = place(seed, gravity)
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(name, "a") as file:
                file[array] = np.full((4, 4, 4), 1 + seed + 100 * number, np.float32)
    return datafile


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_cubes_is_found_out(tmp_path, monkeypatch, layout):
    monkeypatch.chdir(tmp_path)
    cubes = find(Path(write_layout(layout)))
    assert (cubes.seeds, cubes.size) == (frozenset(range(12)), 4)
    cubes.check_seeds(10, 2, "it")
    with pytest.raises(RecipeError, match="need 13 seeds, 0 to 12, but it has 12, without 12"):
        cubes.check_seeds(10, 3, "it")
    runs = Runs(
        [Field("potential")],
        [Field("gravity", kind="label", classes=("newton", "gr"))],
        {"potential": Files(**cubes.files(9, 11))},
        Domain(ndim=2, planes=[0]),
    )
    found = []
    for run, number in zip(runs.groups, runs.numbers[:, 0], strict=True):
        source, variable = runs.source("potential", run)
        out = np.empty((1, 4, 4, 4), np.float32)
        source.read(variable, Window.whole((4, 4, 4)), out)
        found.append((float(out.max()), float(number)))
    # the second class is the positive one
    assert sorted(found) == [(10, 0), (11, 0), (110, 1), (111, 1)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cubes_of_a_third_class_are_left_aside_and_told(tmp_path, monkeypatch, caplog, layout):
    monkeypatch.chdir(tmp_path)
    datafile = Path(write_layout(layout))
    assert find(datafile).seeds == frozenset(range(12))
    # nothing is left aside
    assert not caplog.messages
    name, array = LAYOUTS[layout][1](3, "mond")
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(name, "a") as file:
        file[array] = np.zeros((4, 4, 4), np.float32)
    assert find(datafile).seeds == frozenset(range(12))
    other = array if datafile.is_file() else Path(name).relative_to(datafile)
    assert caplog.messages == [
        f"{datafile} also has {other}, left aside: only newton and gr are told apart"
    ]


def test_of_several_redshifts_one_is_chosen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_layout("raw")
    others = {"raw": ("runs", lambda s, g: (f"runs/seed{s:04d}/{g}/{g}_snap002_phi.h5", "data"))}
    write_layout("raw", others)
    with pytest.raises(RecipeError, match=r"several redshifts: 10, 1; choose one with --redshift"):
        find(Path("runs"))
    assert "snap002" in find(Path("runs"), 10.0).pattern
    assert "snap004" in find(Path("runs"), 1.0).pattern
    with pytest.raises(RecipeError, match="no cubes of redshift 5, but of 10, 1"):
        find(Path("runs"), 5.0)


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("absent.h5", SourceError, "there is no data file absent.h5"),
        ("text.h5", SourceError, "text.h5 is no HDF5 file, or is truncated"),
        ("other.h5", SourceError, "has neither cubes gr_seed0000, .* but phi"),
        ("flat.h5", GeometryError, r"has the shape \(4, 4\), which is no cube"),
        ("empty", SourceError, "empty has neither files seed0000/gr/gr_snap004_phi.h5"),
    ],
)
def test_data_that_are_no_cubes_are_told(tmp_path, monkeypatch, name, error, match):
    monkeypatch.chdir(tmp_path)
    Path("text.h5").write_text("cubes")
    Path("empty").mkdir()
    for file, array in (("other.h5", "phi"), ("flat.h5", "gr_seed0000")):
        with h5py.File(file, "w") as opened:
            opened[array] = np.zeros((4, 4))
    with pytest.raises(error, match=match):
        find(Path(name))


def test_cubes_that_are_not_standardized_are_by_the_training_seeds(here, caplog):
    caplog.set_level("INFO")
    assert translated()["model"]["norms"] == {}
    with h5py.File("raw.h5", "w") as file:
        for gravity in ("gr", "newton"):
            for seed in range(5):
                file[f"{gravity}_seed{seed:04d}"] = np.float32(1e-5) * cube(seed, gravity, 64)
    made = translated(datafile="raw.h5")
    assert made["model"]["norms"]["potential"]["class_path"] == "map2map.norms.Standardize"
    assert "cubes are not standardized (their root mean square is 9.92e-06)" in caplog.text


@pytest.mark.parametrize(
    ("mean", "std", "rms"), [(0.0, 1e-5, "9.92e+04"), (0.0, 8.0, "0.124"), (60.0, 10.0, "6")]
)
def test_statistics_of_another_scale_are_refused(here, m2m, mean, std, rms):
    write_moments(Path("s.npy"), mean, std)
    written()
    for argv in ((), ("--print-recipe",)):
        status, _, err = m2m("cubes", "temp", "--stats=s.npy", *argv)
        assert status == 2
        assert f"get a root mean square of {rms}; allowed is 0.2 to 5" in err
        assert "leave --stats out" in err
    assert not Path("models").exists()


@pytest.mark.parametrize(
    ("stats", "data", "refused"),
    [
        ("redshifts_[1.0]_mean_std_var.npy", "data_z1.h5", False),
        ("redshifts_[1.0, 10.0]_mean_std_var.npy", "data_z1.h5", False),
        ("redshifts_[1.0]_mean_std_var.npy", "data.h5", False),
        ("s.npy", "data_z10.h5", False),
        ("redshifts_[1.0]_mean_std_var.npy", "data_z10.h5", True),
        ("redshifts_[10.0]_mean_std_var.npy", "data_z1.0.h5", True),
    ],
)
def test_statistics_whose_name_tells_another_redshift_are_refused(here, stats, data, refused):
    write_moments(Path(stats), 0.0, 1.0)
    if not Path(data).exists():
        Path(data).symlink_to("data_z1.h5")
    cubes = find(Path(data))
    if not refused:
        cubes.check_stats(Path(stats))
        return
    with pytest.raises(RecipeError, match=r"is of redshift 10?, but the cubes are of redshift 1"):
        cubes.check_stats(Path(stats))


def test_statistics_are_compared_with_the_redshift_that_is_chosen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_layout("raw")
    others = {"raw": ("runs", lambda s, g: (f"runs/seed{s:04d}/{g}/{g}_snap002_phi.h5", "data"))}
    write_layout("raw", others)
    stats = Path("redshifts_[1.0]_mean_std_var.npy")
    write_moments(stats, 0.0, 60.0)
    find(Path("runs"), 1.0).check_stats(stats)
    with pytest.raises(RecipeError, match="is of redshift 1, but the cubes are of redshift 10"):
        find(Path("runs"), 10.0).check_stats(stats)


@pytest.mark.parametrize(("size", "levels"), [(64, 4), (128, 5), (256, None)])
def test_paco_halves_small_slices_less_often(size, levels):
    settings = SimpleNamespace(layer_param=1, dropout=0.0, architecture="PACO", model="Paco")
    arguments = network(settings, size)["init_args"]
    assert (arguments["size"], arguments.get("levels")) == (size, levels)
    assert Paco(1, 1, **arguments).cells(size) == 1


def test_slices_of_other_sizes_are_refused():
    settings = SimpleNamespace(layer_param=1, dropout=0.0, architecture="p", model="Penguin")
    with pytest.raises(GeometryError, match=r"100 x 100 cells, but p takes 64, 128.*--head pool"):
        network(settings, 100)
    # pooling does not help where no cell of features is left
    with pytest.raises(GeometryError, match=r"multiples of 64\)$"):
        network(settings, 63)


@pytest.mark.parametrize(
    ("model", "sizes", "least"),
    [
        (Racoon, (64, 65, 100, 300), 64),
        (Penguin, (64, 65, 100, 300), 64),
        (Paco, (8, 12, 31, 48, 100, 250, 300), 8),
    ],
)
def test_with_the_pooling_head_slices_of_any_size_from_the_least_on_are_taken(model, sizes, least):
    settings = SimpleNamespace(
        layer_param=1, dropout=0.0, architecture=model.__name__.upper(), model=model.__name__
    )
    for size in sizes:
        made = network(settings, size, "pool", "elu")["init_args"]
        y = model(1, 1, **made).eval()(torch.randn(2, 1, size, size))
        assert (y.shape, bool(y.isfinite().all())) == ((2, 1), True), size
        assert (made["head"], made["activation"]) == ("pool", "elu")
    with pytest.raises(GeometryError, match=f"takes at least {least}, with --head pool"):
        network(settings, least - 1, "pool")


def test_an_unknown_activation_is_refused_before_the_data_are_looked_at(here, m2m):
    written(datafile="nowhere.h5")
    status, _, err = m2m("cubes", "temp", "--activation", "gelo")
    assert status == 2
    assert "--activation: `activation` is 'gelo', which is none; did you mean 'gelu'" in err


def test_what_is_kept_in_memory_is_enough_for_all_of_a_split(here):
    options = parser().parse_args(["temp", "--memory=1TiB", "--devices=1"])
    settings = read_settings(written(train_seeds=7, test_seeds=1))
    for size in (64, 192, 256, 320):
        cubes = SimpleNamespace(size=size)
        kept = bytes_of(kept_in_memory(settings, options, cubes))
        assert 7 * 2 * 4 * size**3 <= kept < max(2**28, 7 * 2 * 4 * size**3) + 2**20 + 1


def test_cubes_that_do_not_fit_into_memory_are_read_from_the_file(here, caplog):
    caplog.set_level("INFO")
    assert translated("--memory=1GiB")["data"]["reading"]["in_memory"] == "256MiB"
    assert translated("--memory=9MiB")["data"]["reading"]["in_memory"] == 0
    assert "which do not fit into memory" in caplog.text
