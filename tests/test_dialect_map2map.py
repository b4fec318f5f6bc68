"""map2map's command line: every option with its default, translated, run, and its files written."""

import json
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import map2map.models
from map2map.dialects.map2map import drop_none, parser, recipe
from map2map.emulator import Card, Emulator
from map2map.errors import RecipeError

TRAIN = {
    "--train-in-patterns": "in_*.npy",
    "--train-tgt-patterns": "tgt_?.npy",
    "--model": "ConvNet",
    "--batch-size": "2",
    "--lr": "0.01",
}
TEST = {
    "--test-in-patterns": "in_*.npy",
    "--test-tgt-patterns": "tgt_?.npy",
    "--model": "ConvNet",
    "--batch-size": "2",
}

# the specification's tables, by hand: option, default
COMMON = {
    "in_norms": None,
    "tgt_norms": None,
    "crop": None,
    "crop_start": None,
    "crop_stop": None,
    "crop_step": None,
    "in_pad": 0,
    "tgt_pad": 0,
    "scale_factor": 1,
    "criterion": "MSELoss",
    "load_state": "checkpoint.pt",
    "load_state_non_strict": False,
    "loader_workers": 8,
    "callback_at": None,
    "misc_kwargs": {},
}
ONLY_TRAIN = {
    "val_in_patterns": None,
    "val_tgt_patterns": None,
    "augment": False,
    "aug_shift": None,
    "aug_add": None,
    "aug_mul": None,
    "adv_model": None,
    "adv_model_spectral_norm": False,
    "adv_criterion": "BCEWithLogitsLoss",
    "adv_r1_reg_interval": 0,
    "cgan": False,
    "adv_start": 0,
    "adv_label_smoothing": 1,
    "instance_noise": 0,
    "instance_noise_batches": 1e4,
    "optimizer": "Adam",
    "optimizer_args": {},
    "adv_lr": None,
    "adv_optimizer_args": None,
    # of the branch wgan
    "adv_wgan_gp_interval": 0,
    "adv_iter_ratio": 1,
    "reduce_lr_on_plateau": False,
    # the documented {"verbose": true} is an argument that PyTorch has taken away
    "scheduler_args": {},
    "init_weight_std": None,
    "epochs": 128,
    "seed": 42,
    "div_data": False,
    "div_shuffle_dist": 1,
    "dist_backend": "nccl",
    "log_interval": 100,
    "detect_anomaly": False,
}
ONLY_TEST = {"num_threads": None}


def line(mode: str, *flags: str, **options: str | None) -> list[str]:
    """A command line: the required options, some replaced (None: left out), and flags."""
    given = TRAIN if mode == "train" else TEST
    given = given | {f"--{key.replace('_', '-')}": value for key, value in options.items()}
    return [mode, *(f"{k}={v}" for k, v in given.items() if v is not None), *flags]


def translated(*flags: str, mode: str = "train", **options: str | None) -> dict:
    return drop_none(recipe(parser().parse_args(line(mode, *flags, **options))))


# --- parsing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "defaults"), [("train", COMMON | ONLY_TRAIN), ("test", COMMON | ONLY_TEST)]
)
def test_every_option_has_its_documented_default(mode, defaults):
    parsed = vars(parser().parse_args(line(mode)))
    assert {key: parsed[key] for key in defaults} == defaults
    required = {"model", "batch_size", "mode"} | (
        {"train_in_patterns", "train_tgt_patterns", "lr"}
        if mode == "train"
        else {"test_in_patterns", "test_tgt_patterns"}
    )
    # nothing else is there but our own --print-recipe
    assert set(parsed) - set(defaults) == required | {"print_recipe"}


@pytest.mark.parametrize("missing", ["train_in_patterns", "train_tgt_patterns", "model", "lr"])
def test_required_options_are_required(missing, capsys):
    with pytest.raises(SystemExit, match="2"):
        parser().parse_args(line("train", **{missing: None}))
    assert f"--{missing.replace('_', '-')}" in capsys.readouterr().err


def test_aliases_and_abbreviations():
    options = parser().parse_args(line("train", "--batches", "5", "--pad", "20"))
    assert (options.batch_size, options.in_pad) == (5, 20)
    options = parser().parse_args(line("train", "--reduce", "--epo", "3", "--crit", "L1Loss"))
    assert (options.reduce_lr_on_plateau, options.epochs, options.criterion) == (True, 3, "L1Loss")


@pytest.mark.parametrize(
    ("text", "value"), [("64", 64), ("1,2", [1, 2]), ("-1,2", [-1, 2]), ("-3", -3)]
)
def test_tuples_of_whole_numbers(text, value):
    assert parser().parse_args(line("train", f"--crop-start={text}")).crop_start == value


@pytest.mark.parametrize(
    "bad",
    [
        ["--crop", "1.5"],
        ["--crop", "3,"],
        ["--crop-start", "-1,2"],
        ["--misc-kwargs", "{z: 1}"],
        ["--misc-kwargs", "[1]"],
        ["--optimizer-args", "3"],
        ["--dist-backend", "mpi"],
        ["--batch-size", "two"],
        ["--no-such-option"],
    ],
)
def test_bad_values_leave_with_status_2(bad, capsys):
    with pytest.raises(SystemExit, match="2"):
        parser().parse_args(line("train", *bad))
    err = capsys.readouterr().err
    assert err.count("error:") == 1
    assert bad[0] in err


@pytest.mark.parametrize("argv", [[], ["trane"]])
def test_without_a_mode_usage_and_status_2(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        parser().parse_args(argv)
    assert capsys.readouterr().err.startswith("usage: m2m.py")


def test_help_shows_defaults(capsys):
    with pytest.raises(SystemExit, match="0"):
        parser().parse_args(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 128)" in text
    assert "(default: MSELoss)" in text


# --- translation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "where", "value"),
    [
        (["--crop=4,6"], "data.crops.size", [4, 6]),
        (["--crop-start=-1,2"], "data.crops.start", [-1, 2]),
        (["--crop-stop=7"], "data.crops.stop", 7),
        (["--crop-step=2"], "data.crops.step", 2),
        (["--in-pad=1,2,3,4"], "data.crops.halo", [1, 2, 3, 4]),
        (["--in-pad=auto"], "data.crops.halo", "auto"),
        (["--tgt-pad=3"], "data.crops.target_halo", 3),
        (["--scale-factor=2"], "data.crops.scale_factor", 2),
        (["--criterion=L1Loss"], "model.loss.class_path", "torch.nn.L1Loss"),
        (["--load-state="], "output.resume", "never"),
        (["--load-state=checkpoint.pt"], "output.resume", "auto"),
        (["--load-state=old/state_7.pt"], "output.resume", "old/state_7.pt"),
        (["--load-state-non-strict"], "output.strict", False),
        ([], "output.strict", True),
        (["--batch-size=7"], "data.reading.batch_size", 7),
        (["--loader-workers=0"], "data.reading.threads", 0),
        (["--val-in-patterns=a", "--val-tgt-patterns=b"], "data.val.input_0", "a"),
        (["--val-in-patterns=a", "--val-tgt-patterns=b"], "data.val.target_0", "b"),
        (["--augment"], "data.augment.symmetries", "all"),
        ([], "data.augment.symmetries", "none"),
        (["--aug-shift=3,4"], "data.augment.shift", [3, 4]),
        (["--aug-add=0.1"], "data.augment.add", 0.1),
        (["--aug-mul=0.2"], "data.augment.mul", 0.2),
        (["--optimizer=SGD"], "model.optimizer.class_path", "torch.optim.SGD"),
        (['--optimizer-args={"betas": [0.5, 0.9]}'], "model.optimizer.init_args.betas", [0.5, 0.9]),
        (["--lr=0.5"], "model.optimizer.init_args.lr", 0.5),
        (
            ["--reduce-lr-on-plateau", '--scheduler-args={"factor": 0.5, "verbose": true}'],
            "model.schedule.scheduler",
            {
                "class_path": "torch.optim.lr_scheduler.ReduceLROnPlateau",
                "init_args": {"factor": 0.5},
            },
        ),
        (['--scheduler-args={"factor": 0.5}'], "model.schedule", None),
        (["--init-weight-std=0.02"], "model.options.init_weight_std", 0.02),
        (["--epochs=3"], "trainer.max_epochs", 3),
        (["--seed=5"], "seed_everything", 5),
        (["--seed=5"], "data.seed", 5),
        (["--div-data"], "data.reading.local_order", True),
        (["--div-shuffle-dist=2.5"], "data.reading.distance", 2.5),
        (["--log-interval=7"], "output.log_interval", 7),
        (["--detect-anomaly"], "trainer.detect_anomaly", True),
        (["--in-norms=torch.log1p"], "model.norms.input_0.class_path", "map2map.norms.Log1p"),
        (["--tgt-norms=torch.exp"], "model.norms.target_0.class_path", "map2map.norms.Exp"),
        (
            ["--tgt-norms=cosmology.vel", '--misc-kwargs={"z": 2, "dis_std": 5}'],
            "model.norms.target_0",
            {"class_path": "map2map.norms.Velocity", "init_args": {"z": 2, "std": 5}},
        ),
        (['--misc-kwargs={"width": 3}'], "model.model.init_args.width", 3),
        (['--misc-kwargs={"boxsize": 10, "meshsize": 4}'], "data.domain.spacing", 2.5),
    ],
)
def test_each_option_says_something_in_the_recipe(tmp_path, monkeypatch, flags, where, value):
    monkeypatch.chdir(tmp_path)
    found = translated(*flags)
    for key in where.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    assert found == value


def test_several_fields_keep_their_order():
    made = translated(
        train_in_patterns="a,b", train_tgt_patterns="c", in_norms="identity,torch.exp"
    )
    assert made["data"]["train"] == {"input_0": "a", "input_1": "b", "target_0": "c"}
    assert made["model"]["norms"]["input_1"]["class_path"] == "map2map.norms.Exp"


def test_test_mode_has_patterns_of_its_own():
    made = translated(mode="test", test_in_patterns="x", test_tgt_patterns="y")
    assert made["data"]["train"] == {"input_0": "x", "target_0": "y"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "UNt"}, "no model 'UNt'.*did you mean 'UNet'"),
        ({"criterion": "MSELos"}, "no criterion 'MSELos'.*'MSELoss'"),
        ({"optimizer": "Adem"}, "no optimizer 'Adem'.*'Adam'"),
        ({"in_norms": "cosmology.diss"}, "no norm 'cosmology.diss'.*'cosmology.dis'"),
        ({"in_norms": "identity,identity"}, "1 input patterns need as many norms, not 2"),
        ({"misc_kwargs": '{"widht": 3}'}, "nothing takes 'widht'; did you mean 'width'"),
        ({"val_in_patterns": "a"}, "both --val-in-patterns and --val-tgt-patterns"),
    ],
)
def test_wrong_names_are_told_with_near_ones(options, message):
    with pytest.raises(RecipeError, match=message):
        translated(**options)


ADV = "model.training.init_args."


@pytest.mark.parametrize(
    ("flags", "where", "value"),
    [
        ([], "model.training.class_path", "map2map.adversarial.Adversarial"),
        ([], ADV + "model", {"class_path": "map2map.models.PatchGAN", "init_args": {}}),
        ([], ADV + "loss.class_path", "torch.nn.BCEWithLogitsLoss"),
        ([], ADV + "optimizer", {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}}),
        # the loss between output and target is only told
        ([], ADV + "supervised_weight", 0),
        ([], ADV + "adversarial_weight", 1),
        (["--adv-criterion=WDistLoss"], ADV + "loss.class_path", "map2map.losses.Wasserstein"),
        (["--adv-criterion=DiceLoss"], ADV + "loss.class_path", "map2map.losses.Dice"),
        (["--adv-model-spectral-norm"], ADV + "spectral_norm", True),
        (["--adv-r1-reg-interval=16"], ADV + "r1_interval", 16),
        (["--adv-r1-reg-interval=-1"], ADV + "r1_interval", 0),
        (["--cgan"], ADV + "conditional", True),
        (["--adv-start=1"], ADV + "start", 1),
        (["--adv-label-smoothing=0.9"], ADV + "real_label", 0.9),
        (["--instance-noise=0.1"], ADV + "instance_noise", 0.1),
        (["--instance-noise-batches=10"], ADV + "instance_noise_batches", 10),
        (["--adv-lr=0.1"], ADV + "optimizer.init_args.lr", 0.1),
        (['--optimizer-args={"eps": 1}'], ADV + "optimizer.init_args", {"lr": 0.01, "eps": 1}),
        # replaced, not merged
        (
            ['--optimizer-args={"eps": 1}', '--adv-optimizer-args={"betas": [0, 0.9]}'],
            ADV + "optimizer.init_args",
            {"lr": 0.01, "betas": [0, 0.9]},
        ),
        (["--optimizer=SGD"], ADV + "optimizer.class_path", "torch.optim.SGD"),
        ([], ADV + "gradient_penalty", None),
        (["--adv-wgan-gp-interval=4"], ADV + "gradient_penalty", 10),
        (["--adv-wgan-gp-interval=4"], ADV + "gradient_penalty_interval", 4),
        (["--adv-iter-ratio=5"], ADV + "critic_steps", 5),
    ],
)
def test_each_adversarial_option_says_something_in_the_recipe(flags, where, value):
    found = translated("--adv-model=PatchGAN", *flags)
    for key in where.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    assert found == value


def test_models_go_by_map2maps_names():
    for name in ("PatchGAN42", "patchgan.PatchGAN42"):
        training = translated(f"--adv-model={name}")["model"]["training"]["init_args"]
        assert training["model"]["class_path"] == "map2map.models.PatchGAN42"
    assert (
        translated("--criterion=DiceLoss")["model"]["loss"]["class_path"] == "map2map.losses.Dice"
    )
    with pytest.raises(RecipeError, match=r"no discriminator 'PatchGAM'.*did you mean 'PatchGAN'"):
        translated("--adv-model=PatchGAM")
    with pytest.raises(RecipeError, match=r"no criterion 'WDistLos'.*did you mean 'WDistLoss'"):
        translated("--adv-model=PatchGAN", "--adv-criterion=WDistLos")


def test_networks_of_super_resolution_get_the_factor():
    pytest.importorskip("map2map.models.sr_generator", reason="not in this version")
    made = translated("--adv-model=srsgan.D", "--scale-factor=8", '--misc-kwargs={"chan_base": 64}',
                      model="srsgan.G")["model"]  # fmt: skip
    assert made["model"] == {
        "class_path": "map2map.models.SRGenerator",
        "init_args": {"chan_base": 64, "scale_factor": 8},
    }
    critic = made["training"]["init_args"]["model"]
    assert critic["class_path"].rpartition(".")[2] == "SRDiscriminator"
    assert critic["init_args"] == {"chan_base": 64, "scale_factor": 8}


@pytest.mark.parametrize("flag", ["--adv-r1-reg-interval=16", "--adv-wgan-gp-interval=1"])
def test_penalties_without_a_discriminator_are_refused(flag):
    with pytest.raises(RecipeError, match=f"{flag.partition('=')[0]} penalizes a discriminator"):
        translated(flag)


@pytest.mark.parametrize(
    "flag",
    [
        "--cgan",
        "--adv-model-spectral-norm",
        "--adv-criterion=WDistLoss",
        "--adv-start=1",
        "--adv-label-smoothing=0.9",
        "--instance-noise=0.1",
        "--instance-noise-batches=10",
        "--adv-lr=0.1",
        '--adv-optimizer-args={"eps": 1}',
        "--adv-iter-ratio=2",
    ],
)
def test_other_options_without_a_discriminator_warn_by_name(flag):
    with pytest.warns(RuntimeWarning, match=f"{flag.partition('=')[0]} belong"):
        assert "training" not in translated(flag)["model"]


# --- running -----------------------------------------------------------------------------------

CALLBACKS = '''
import torch
from torch import nn
import torch.nn.functional as F

CALLS = []


class Mean(nn.Module):
    """A convolution whose output also depends on all that it sees: crops do not agree."""

    def __init__(self, in_chan, out_chan, **kwargs):
        super().__init__()
        CALLS.append((in_chan, out_chan, kwargs))
        self.weight = nn.Parameter(torch.randn(out_chan, in_chan) / 3)

    def forward(self, x):
        mean = x.mean(dim=tuple(range(1, x.ndim)), keepdim=True)
        y = torch.einsum("oi,bi...->bo...", self.weight, x) + mean
        return y[(..., *(slice(1, -1),) * (x.ndim - 2))]


class Twice(nn.Module):
    def __init__(self, in_chan, out_chan, scale_factor=1, **kwargs):
        super().__init__()
        assert scale_factor == 2
        self.conv = nn.Conv2d(in_chan, out_chan, 3)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Critic(nn.Module):
    def __init__(self, in_chan, out_chan, scale_factor=1, width=4, **kwargs):
        super().__init__()
        CALLS.append((in_chan, out_chan, scale_factor))
        self.net = nn.Sequential(
            nn.Conv2d(in_chan, width, 3), nn.LeakyReLU(0.2), nn.Conv2d(width, out_chan, 1)
        )

    def forward(self, x):
        return self.net(x)


class Cubic(nn.Module):
    def forward(self, a, b):
        return (a - b).abs().pow(3).mean()


class Half(torch.optim.SGD):
    pass


def triple(x, undo=False, z=0, **kwargs):
    assert z == 4
    if undo:
        x /= 3
    else:
        x *= 3
'''


@pytest.fixture
def write(tmp_path):
    """Write npy files of random positive numbers."""
    rng = np.random.default_rng(0)

    def make(name: str, shape: tuple[int, ...], n: int = 2) -> list[np.ndarray]:
        arrays = [rng.uniform(0.5, 2, shape).astype(np.float32) for _ in range(n)]
        for k, array in enumerate(arrays):
            np.save(tmp_path / f"{name}_{k}.npy", array)
        return arrays

    (tmp_path / "mine.py").write_text(CALLBACKS)
    return make


@pytest.fixture
def figures():
    """Asks for the figures of an epoch to be drawn, which takes longer than the epoch here."""


@pytest.fixture(autouse=True)
def _few_figures(request, monkeypatch):
    if "figures" not in request.fixturenames:
        monkeypatch.setattr("map2map.tracking.Tracker._draw", lambda *_: None)


SMALL = {"misc_kwargs": '{"width": 2, "depth": 1}', "in_pad": "1", "crop": "4"}
QUICK = SMALL | {"loader_workers": "1", "epochs": "2", "log_interval": "1"}


def tags(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show: steps and values of scalars, and names of figures."""
    (run,) = (folder / "runs").iterdir()
    events = EventAccumulator(str(run)).Reload()
    scalars = {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    return scalars | {tag: [] for tag in events.Tags()["images"]}


def test_training_leaves_the_documented_files(m2m, write, tmp_path, figures):
    write("in", (2, 8, 8))
    write("tgt", (2, 8, 8))
    val = {"val_in_patterns": "in_0.npy", "val_tgt_patterns": "tgt_0.npy"}
    assert m2m("map2map", *line("train", **QUICK, **val))[0] == 0
    assert (tmp_path / "checkpoint.pt").readlink() == Path("state_2.pt")
    for epoch in (1, 2):
        state = torch.load(tmp_path / f"state_{epoch}.pt", weights_only=True)
        assert state["epoch"] == epoch
        assert {"model", "optimizer_states", "scheduler", "rng", "min_loss"} <= set(state)
    seen = tags(tmp_path)
    # 2 files of 4 crops, 2 samples per batch: 4 steps per epoch
    for tag in ("loss/batch/train", "grad/first", "grad/last", "lr"):
        assert [step for step, _ in seen[tag]] == list(range(1, 9)), tag
    for tag in ("loss/epoch/train", "loss/epoch/val"):
        assert [step for step, _ in seen[tag]] == [1, 2], tag
    assert {"fig/train", "fig/val", "fig/train/power/lag", "fig/val/power/lag"} <= set(seen)
    batches = [value for _, value in seen["loss/batch/train"]]
    epochs = [value for _, value in seen["loss/epoch/train"]]
    np.testing.assert_allclose(epochs, np.reshape(batches, (2, 4)).mean(axis=1), rtol=1e-5)


def test_resuming_goes_on_to_more_epochs_and_does_nothing_at_as_many(m2m, write, tmp_path):
    write("in", (1, 8, 8))
    write("tgt", (1, 8, 8))
    assert m2m("map2map", *line("train", **QUICK))[0] == 0
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("state_*.pt")}
    assert m2m("map2map", *line("train", **QUICK))[0] == 0
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("state_*.pt")} == before
    assert m2m("map2map", *line("train", **QUICK | {"epochs": "1"}))[0] == 0
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("state_*.pt")} == before
    assert m2m("map2map", *line("train", **QUICK | {"epochs": "3"}))[0] == 0
    assert (tmp_path / "checkpoint.pt").readlink() == Path("state_3.pt")
    resumed = torch.load(tmp_path / "state_3.pt", weights_only=True)
    assert m2m("map2map", *line("train", "--load-state=", **QUICK | {"epochs": "3"}))[0] == 0
    unbroken = torch.load(tmp_path / "state_3.pt", weights_only=True)
    for name, value in unbroken["model"].items():
        assert torch.equal(resumed["model"][name], value)


def test_the_printed_recipe_trains_to_the_same_weights(m2m, write, tmp_path):
    write("in", (1, 8, 8))
    write("tgt", (1, 8, 8))
    options = line("train", "--augment", "--aug-shift=3", "--in-norms=torch.log1p", **QUICK)
    status, printed, _ = m2m("map2map", *options, "--print-recipe")
    assert status == 0
    assert not (tmp_path / "state_1.pt").exists()
    (tmp_path / "mine.yaml").write_text(printed)
    assert m2m("train", "mine.yaml", "--output.folder=again")[0] == 0
    assert m2m("map2map", *options)[0] == 0
    one, two = (
        torch.load(tmp_path / folder / "state_2.pt", weights_only=True)["model"]
        for folder in (".", "again")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_user_code_is_called_as_map2map_calls_it(m2m, write, tmp_path):
    (x,) = write("in", (1, 8, 8), 1)
    (y,) = write("tgt", (1, 8, 8), 1)
    mine = {
        "model": "mine.Mean",
        "in_norms": "mine.triple",
        "tgt_norms": "mine.triple",
        "criterion": "mine.Cubic",
        "callback_at": str(tmp_path),
        "misc_kwargs": '{"z": 4}',
        "in_pad": "1",
        "batch_size": "1",
    }
    more = {"optimizer": "mine.Half", "optimizer_args": '{"weight_decay": 0.1}', "epochs": "1"}
    torch.manual_seed(0)
    assert m2m("map2map", *line("train", "--log-interval=1", **mine, **more))[0] == 0
    import map2map_callback.mine as module

    # and with the number of axes, which map2map did not say
    assert module.CALLS == [(1, 1, {"scale_factor": 1, "z": 4, "ndim": 2})]
    state = torch.load(tmp_path / "state_1.pt", weights_only=True)
    group = state["optimizer_states"][0]["param_groups"][0]
    # only SGD has a momentum, and ours was given the learning rate and more
    assert (group["lr"], group["weight_decay"], "momentum" in group) == (0.01, 0.1, True)
    # test: the norm is undone, and the loss is the user's, on normalized values
    assert m2m("map2map", *line("test", **mine))[0] == 0
    weight = state["model"]["weight"].item()
    padded = np.pad(3 * x[0], 1, mode="wrap")
    expected = 3 * x * weight + padded.mean()
    np.testing.assert_allclose(np.load(tmp_path / "tgt_0_out.npy"), expected / 3, rtol=1e-5)
    report = json.loads((tmp_path / "metrics.json").read_text())
    np.testing.assert_allclose(report["loss"], (np.abs(expected - 3 * y) ** 3).mean(), rtol=1e-5)
    error, y = expected / 3 - y, y.astype(float)
    scores = report["fields"]["target_0"]
    np.testing.assert_allclose(scores["rmse"], np.sqrt((error**2).mean()), rtol=1e-5)
    np.testing.assert_allclose(1 - scores["r2"], (error**2).mean() / y.var(), rtol=1e-5)
    emulator = Emulator.load(tmp_path / "emulator.safetensors", callback_at=tmp_path)
    assert Card.read(tmp_path / "emulator.safetensors").model["class_path"].endswith("mine.Mean")
    assert emulator.norm("input_0").arguments == {"z": 4}


def spans(text: str, ndim: int) -> list[tuple[int, int]]:
    """map2map's three formats of a pad, as low and high per axis."""
    numbers = [int(n) for n in text.split(",")]
    if len(numbers) == 1:
        return [(numbers[0], numbers[0])] * ndim
    if len(numbers) == ndim and ndim > 1:
        return [(n, n) for n in numbers]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def naive(apply, x, out_chan, ndim, options, factor=1):
    """A field from its crops, cell by cell as the specification says, by np.take only."""
    size = x.shape[1:]
    number = {k: [int(n) for n in v.split(",")] for k, v in options.items() if k.startswith("crop")}
    per_axis = {k: v * (ndim // len(v)) for k, v in number.items()}
    crop = per_axis.get("crop", list(size))
    start, stop = per_axis.get("crop_start", [0] * ndim), per_axis.get("crop_stop", list(size))
    step = per_axis.get("crop_step", crop)
    pads = spans(options.get("in_pad", "0"), ndim)
    around = spans(options.get("tgt_pad", "0"), ndim)
    whole = np.zeros((out_chan, *(factor * n for n in size)), np.float32)
    for anchor in product(*(range(a, b, c) for a, b, c in zip(start, stop, step, strict=True))):
        part = x
        for axis in range(ndim):
            cells = range(anchor[axis] - pads[axis][0], anchor[axis] + crop[axis] + pads[axis][1])
            part = np.take(part, list(cells), axis=axis + 1, mode="wrap")
        patch = apply(part)
        positions = []
        for axis in range(ndim):
            low, high = around[axis]
            n = patch.shape[axis + 1]
            first = factor * anchor[axis] - low + (factor * crop[axis] + low + high - n) // 2
            positions.append([(first + i) % whole.shape[axis + 1] for i in range(n)])
        whole[np.ix_(range(out_chan), *positions)] = patch
    return whole


def mixed(weight):
    """What `Mean` in the callbacks computes, by numpy."""

    def apply(part):
        y = np.einsum("oi,i...->o...", weight, part) + part.mean()
        return y[(slice(None), *(slice(1, -1),) * (part.ndim - 1))]

    return apply


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 8, 8), {"crop": "4", "in_pad": "1"}),
        ((1, 12), {"crop": "4", "in_pad": "1"}),
        ((1, 12), {"crop": "4", "in_pad": "0,2"}),
        ((1, 6, 6, 6), {"crop": "3,6,2", "in_pad": "1"}),
        ((1, 8, 8), {"crop": "4", "in_pad": "1,2", "tgt_pad": "0,1"}),
        # low and high differ, and the target is larger than the output on one axis
        ((2, 8, 8), {"crop": "4", "in_pad": "1,2,3,0", "tgt_pad": "0,1,2,0"}),
        # later patches overwrite
        ((1, 8, 8), {"crop": "4", "in_pad": "1", "crop_step": "2"}),
        ((1, 8, 8), {"crop": "4", "in_pad": "1", "crop_step": "3,1"}),
        # outputs reach beyond their crops
        ((1, 8, 8), {"crop": "4", "in_pad": "2", "tgt_pad": "1"}),
        # anchors below 0, crops over the edge
        ((1, 8, 8), {"crop": "4", "in_pad": "1", "crop_start": "-2", "crop_stop": "7"}),
        # backwards, and a part only: the rest is 0
        (
            (1, 8, 8),
            {"crop": "3", "in_pad": "1", "crop_start": "5", "crop_stop": "-2", "crop_step": "-3"},
        ),
        ((1, 8, 8), {"crop": "4", "in_pad": "1", "crop_start": "4", "crop_stop": "5"}),
        ((1, 8, 8), {"in_pad": "1"}),
    ],
)
def test_whole_fields_are_those_of_a_naive_loop(m2m, write, tmp_path, shape, options):
    """Crops disagree where they overlap, so the order of writing shows."""
    ndim, chan = len(shape) - 1, shape[0]
    fields = write("in", shape)
    write("tgt", (2, *shape[1:]))
    weight = torch.randn(2, chan, generator=torch.Generator().manual_seed(1))
    torch.save({"epoch": 3, "model": {"weight": weight}}, tmp_path / "state_3.pt")
    more = {"model": "mine.Mean", "callback_at": ".", "load_state": "state_3.pt"}
    status, out, _ = m2m("map2map", *line("test", **more, **options))
    assert status == 0
    assert "mean loss" in out
    for k, x in enumerate(fields):
        found = np.load(tmp_path / f"tgt_{k}_out.npy")
        assert found.dtype == np.float32
        expected = naive(mixed(weight.numpy()), x, 2, ndim, options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_crops_that_leave_gaps_between_small_outputs_are_refused(m2m, write, tmp_path):
    write("in", (1, 8, 8))
    write("tgt", (1, 8, 8))
    torch.save({"epoch": 3, "model": {"weight": torch.ones(1, 1)}}, tmp_path / "checkpoint.pt")
    more = {"model": "mine.Mean", "callback_at": ".", "crop": "4", "crop_step": "4"}
    status, _, err = m2m("map2map", *line("test", **more))
    assert status == 2
    assert "too few to tile" in err
    assert not list(tmp_path.glob("*_out.npy"))


def test_several_fields_and_norms_are_undone_field_by_field(m2m, write, tmp_path):
    first, second = write("a", (1, 8, 8)), write("b", (2, 8, 8))
    write("c", (2, 8, 8))
    write("d", (1, 8, 8))
    weight = torch.rand(3, 3, generator=torch.Generator().manual_seed(1))
    torch.save({"epoch": 1, "model": {"weight": weight}}, tmp_path / "checkpoint.pt")
    options = {
        "test_in_patterns": "a_*.npy,b_*.npy",
        "test_tgt_patterns": "c_?.npy,d_?.npy",
        "in_norms": "torch.log1p,torch.exp",
        "tgt_norms": "cosmology.dis,torch.log1p",
        "model": "mine.Mean",
        "callback_at": ".",
        "crop": "4",
        "in_pad": "1",
        "misc_kwargs": '{"z": 1, "dis_std": 5, "eps": 0}',
    }
    assert m2m("map2map", *line("test", **options))[0] == 0
    growth = 0.6084071313540005  # D(1) for Om = 0.31, from the specification
    for k in range(2):
        x = np.concatenate([np.log1p(first[k]), np.exp(second[k])])
        y = naive(mixed(weight.numpy()), x, 3, 2, options)
        c, d = np.load(tmp_path / f"c_{k}_out.npy"), np.load(tmp_path / f"d_{k}_out.npy")
        np.testing.assert_allclose(c, y[:2] * 5 * growth, rtol=1e-5)
        np.testing.assert_allclose(d, np.expm1(y[2:]), rtol=1e-4)


def test_super_resolution_is_assembled(m2m, write, tmp_path):
    """map2map could not: it cut the output to the size of the input."""
    fields = write("in", (1, 6, 8))
    write("tgt", (1, 12, 16))
    options = {
        "model": "mine.Twice",
        "callback_at": ".",
        "scale_factor": "2",
        "crop": "3,4",
        "in_pad": "1",
        "tgt_pad": "1",
    }
    train = line("train", "--epochs=1", **options)
    assert m2m("map2map", *train)[0] == 0
    assert m2m("map2map", *line("test", **options))[0] == 0
    state = torch.load(tmp_path / "state_1.pt", weights_only=True)["model"]

    def apply(part):
        fine = torch.from_numpy(part).repeat_interleave(2, 1).repeat_interleave(2, 2)[None]
        return F.conv2d(fine, state["conv.weight"], state["conv.bias"])[0].numpy()

    for k, x in enumerate(fields):
        expected = naive(apply, x, 1, 2, options, factor=2)
        found = np.load(tmp_path / f"tgt_{k}_out.npy")
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_outputs_lie_relative_to_the_targets_common_folder(m2m, tmp_path):
    rng = np.random.default_rng(0)
    for run in ("r0", "r1", "../other/r0", "../other/r1"):
        (tmp_path / "data" / run).mkdir(parents=True)
        for name in ("in", "tgt"):
            values = rng.normal(size=(1, 8, 8)).astype(np.float32)
            np.save(tmp_path / "data" / run / f"{name}.npy", values)
    patterns = {"in_patterns": "*/r*/in.npy", "tgt_patterns": "*/r*/tgt.npy"}
    train = {f"train_{k}": v for k, v in patterns.items()}
    test = {f"test_{k}": v for k, v in patterns.items()}
    assert m2m("map2map", *line("train", **QUICK, **train))[0] == 0
    assert m2m("map2map", *line("test", **SMALL, **test))[0] == 0
    for run in ("r0", "r1"):
        assert (tmp_path / run / "tgt_out.npy").exists()
        # map2map looked at the first two runs only; the others do not overwrite one another
        assert (tmp_path / "other" / run / "tgt_out.npy").exists()


def test_outputs_of_a_former_test_do_not_disturb_the_next(m2m, write, tmp_path):
    write("in", (1, 8, 8))
    write("tgt", (1, 8, 8))
    wild = {"test_tgt_patterns": "tgt_*.npy"}
    assert m2m("map2map", *line("train", **QUICK))[0] == 0
    assert m2m("map2map", *line("test", **SMALL, **wild))[0] == 0
    first = np.load(tmp_path / "tgt_1_out.npy")
    assert m2m("map2map", *line("test", **SMALL, **wild))[0] == 0
    assert np.array_equal(np.load(tmp_path / "tgt_1_out.npy"), first)
    assert not list(tmp_path.glob("*_out_out.npy"))
    # nor training anew in the same folder
    assert m2m("map2map", *line("train", **QUICK, train_tgt_patterns="tgt_*.npy"))[0] == 0


def old_state(tmp_path: Path, epoch: int = 5) -> dict:
    """A state as map2map writes it, with plain PyTorch: one step of Adam on a convolution."""
    torch.manual_seed(0)
    conv = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3))
    optimizer = torch.optim.Adam(conv.parameters(), lr=0.125)
    conv(torch.randn(1, 1, 8, 8)).square().mean().backward()
    optimizer.step()
    state = {
        "epoch": epoch,
        "model": {f"convs.{key}": value for key, value in conv.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer).state_dict(),
        "rng": torch.get_rng_state(),
        "min_loss": torch.zeros(5),
    }
    torch.save(state, tmp_path / f"state_{epoch}.pt")
    (tmp_path / "checkpoint.pt").symlink_to(f"state_{epoch}.pt")
    return state


def test_a_state_of_map2maps_goes_on_with_its_epoch_and_optimizer(m2m, write, tmp_path):
    write("in", (1, 8, 8))
    write("tgt", (1, 8, 8))
    old_state(tmp_path)
    status = m2m("map2map", *line("train", "--reduce-lr", **QUICK | {"epochs": "6"}))[0]
    assert status == 0
    assert (tmp_path / "checkpoint.pt").readlink() == Path("state_6.pt")
    state = torch.load(tmp_path / "state_6.pt", weights_only=True)
    (optimizer,) = state["optimizer_states"]
    # its learning rate overrides --lr, as documented; 1 step of its own, 4 of this epoch
    assert optimizer["param_groups"][0]["lr"] == 0.125
    assert {int(entry["step"]) for entry in optimizer["state"].values()} == {5}
    assert not (tmp_path / "state_1.pt").exists()


def test_a_state_of_map2maps_at_as_many_epochs_is_left_alone(m2m, write, tmp_path):
    write("in", (1, 8, 8))
    write("tgt", (1, 8, 8))
    old_state(tmp_path)
    for epochs in ("5", "3"):
        assert m2m("map2map", *line("train", **QUICK | {"epochs": epochs}))[0] == 0
        assert {path.name for path in tmp_path.glob("*.pt")} == {"state_5.pt", "checkpoint.pt"}


@pytest.mark.parametrize(
    "flags",
    [
        ["--augment", "--aug-shift=8,3", "--aug-add=0.1", "--aug-mul=0.1"],
        ["--div-data", "--div-shuffle-dist=2", "--detect-anomaly", "--seed=7"],
        ["--optimizer=SGD", '--optimizer-args={"momentum": 0.9}', "--criterion=SmoothL1Loss"],
        ["--reduce-lr-on-plateau", '--scheduler-args={"verbose": true}', "--loader-workers=0"],
        ["--model=UNet", '--misc-kwargs={"width": 2}', "--in-pad=20", "--dist-backend=gloo"],
        ["--model=VNet", '--misc-kwargs={"width": 2}', "--in-pad=auto"],
    ],
)
def test_options_run(m2m, write, tmp_path, flags):
    write("in", (2, 8, 8))
    write("tgt", (2, 8, 8))
    assert m2m("map2map", *line("train", **QUICK | {"epochs": "1"}), *flags)[0] == 0
    assert (tmp_path / "state_1.pt").exists()
    model = [flag for flag in flags if flag.startswith(("--model", "--misc", "--in-pad"))]
    assert m2m("map2map", *line("test", **SMALL), *model)[0] == 0
    assert np.isfinite(np.load(tmp_path / "tgt_1_out.npy")).all()


ALL_ADVERSARIAL = [
    "--adv-model=mine.Critic", "--adv-model-spectral-norm", "--adv-criterion=WDistLoss",
    "--adv-r1-reg-interval=2", "--adv-wgan-gp-interval=1", "--adv-iter-ratio=2", "--cgan",
    "--adv-start=1", "--adv-label-smoothing=0.9", "--instance-noise=0.1",
    "--instance-noise-batches=10", "--adv-lr=0.1", '--adv-optimizer-args={"betas": [0, 0.9]}',
    "--reduce-lr-on-plateau", "--val-in-patterns=in_0.npy", "--val-tgt-patterns=tgt_0.npy",
]  # fmt: skip


def test_all_adversarial_options_together_train_resume_and_test(m2m, write, tmp_path):
    write("in", (2, 8, 8))
    write("tgt", (1, 8, 8))
    more = [f"--callback-at={tmp_path}", *ALL_ADVERSARIAL]
    assert m2m("map2map", *line("train", *more, **QUICK))[0] == 0
    assert m2m("map2map", *line("train", *more, **QUICK | {"epochs": "3"}))[0] == 0
    before = torch.load(tmp_path / "state_1.pt", weights_only=True)
    state = torch.load(tmp_path / "state_3.pt", weights_only=True)
    # in the first epoch it does not learn
    assert before["adv_optimizer"]["state"] == {}
    assert {"adv_model", "adv_optimizer", "adv_scheduler"} <= set(state)
    assert {int(entry["step"]) for entry in state["adv_optimizer"]["state"].values()} == {8}
    assert state["adv_optimizer"]["param_groups"][0]["lr"] == 0.1
    assert state["adv_scheduler"]["last_epoch"] == 2
    # two channels of the input, one of the target
    assert state["adv_model"]["net.0.weight_orig"].shape == (2, 3, 3, 3)
    assert {"net.0.weight_u", "net.0.weight_v"} <= set(state["adv_model"])
    assert m2m("map2map", *line("test", **SMALL))[0] == 0


def test_a_state_of_map2maps_goes_on_with_its_discriminator(m2m, write, tmp_path):
    write("in", (1, 16, 16))
    write("tgt", (1, 16, 16))
    state = old_state(tmp_path)
    critic = map2map.models.PatchGAN(1, 1, ndim=2)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.0625)
    critic(torch.ones(1, 1, 12, 12)).sum().backward()
    optimizer.step()
    state |= {
        "adv_model": {f"module.{k}": v.clone() for k, v in critic.state_dict().items()},
        "adv_optimizer": optimizer.state_dict(),
        "adv_scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer).state_dict(),
    }
    torch.save(state, tmp_path / "state_5.pt")
    # without a step of its own, it is what it was
    options = QUICK | {"epochs": "6", "crop": "16"}
    flags = ["--adv-model=PatchGAN", "--adv-start=6", "--reduce-lr"]
    assert m2m("map2map", *line("train", *flags, **options))[0] == 0
    found = torch.load(tmp_path / "state_6.pt", weights_only=True)
    for name, value in critic.state_dict().items():
        assert torch.equal(found["adv_model"][name], value)
    assert found["adv_optimizer"]["param_groups"][0]["lr"] == 0.0625
    flags[1] = "--adv-start=0"
    assert m2m("map2map", *line("train", *flags, **options | {"epochs": "7"}))[0] == 0
    found = torch.load(tmp_path / "state_7.pt", weights_only=True)
    assert {int(e["step"]) for e in found["adv_optimizer"]["state"].values()} == {2}
    assert not torch.equal(found["adv_model"]["convs.0.convs.0.bias"],
                           critic.state_dict()["convs.0.convs.0.bias"])  # fmt: skip


def test_a_discriminator_that_does_not_fit_is_refused_with_status_2(m2m, write, tmp_path):
    write("in", (2, 8, 8))
    write("tgt", (2, 8, 8))
    for flags, message in (
        (["--adv-model=PatchGAN42"], "PatchGAN42 does not take batches of 2 x 2 channels x 4 x 4"),
        (["--adv-r1-reg-interval=1"], "penalizes a discriminator, but there is none"),
        (["--adv-model=PatchGAN", "--adv-start=-1"], "`start` is -1"),
    ):
        status, _, err = m2m("map2map", *line("train", *flags, **QUICK))
        assert status == 2
        assert message in err
        assert "Traceback" not in err
    assert not list(tmp_path.glob("*.pt"))
    assert not (tmp_path / "runs").exists()


def test_scores_that_are_not_defined_are_null(m2m, write, tmp_path):
    """NaN is no JSON."""
    write("in", (1, 8, 8))
    for k in range(2):
        np.save(tmp_path / f"tgt_{k}.npy", np.ones((1, 8, 8)))
    assert m2m("map2map", *line("train", **QUICK))[0] == 0
    assert m2m("map2map", *line("test", **SMALL))[0] == 0
    text = (tmp_path / "metrics.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["fields"]["target_0"]["r2"] is None


def test_a_state_of_map2maps_is_tested(m2m, write, tmp_path):
    (x, _), _ = write("in", (1, 8, 8)), write("tgt", (1, 8, 8))
    weights = old_state(tmp_path)["model"]
    assert m2m("map2map", *line("test", **SMALL))[0] == 0
    padded = torch.from_numpy(np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="wrap"))[None]
    expected = F.conv2d(padded, weights["convs.0.weight"], weights["convs.0.bias"])[0]
    np.testing.assert_allclose(np.load(tmp_path / "tgt_0_out.npy"), expected, rtol=1e-5, atol=1e-6)


def test_weights_that_do_not_fit_need_non_strict(m2m, write, tmp_path, caplog):
    write("in", (1, 8, 8))
    write("tgt", (1, 8, 8))
    state = old_state(tmp_path)
    state["model"]["convs.9.weight"] = state["model"].pop("convs.0.bias")
    torch.save(state, tmp_path / "state_5.pt")
    status, _, err = m2m("map2map", *line("test", **SMALL))
    assert status == 2
    assert "missing: convs.0.bias; unknown: convs.9.weight" in err
    assert m2m("map2map", *line("test", "--load-state-non-strict", **SMALL))[0] == 0
    assert "missing: convs.0.bias; unknown: convs.9.weight" in caplog.text
    assert m2m("map2map", *line("train", **QUICK))[0] == 2


def test_a_missing_state_is_refused_unless_it_is_the_default(m2m, write):
    write("in", (1, 8, 8))
    write("tgt", (1, 8, 8))
    assert m2m("map2map", *line("train", "--load-state=state_9.pt", **QUICK))[0] == 2
    for name in ("checkpoint.pt", ""):
        status, _, err = m2m("map2map", *line("test", f"--load-state={name}", **SMALL))
        assert status == 2
        assert "no state" in err


def test_init_weight_std_draws_the_weights_anew(m2m, write, tmp_path):
    """map2map: NameError."""
    write("in", (1, 8, 8))
    write("tgt", (1, 8, 8))
    options = QUICK | {"epochs": "1", "misc_kwargs": '{"width": 64, "depth": 2}', "in_pad": "2"}
    options |= {"lr": "1e-12", "init_weight_std": "0.5"}
    assert m2m("map2map", *line("train", **options))[0] == 0
    weights = torch.load(tmp_path / "state_1.pt", weights_only=True)["model"]["convs.0.weight"]
    assert prod(weights.shape) == 576
    assert weights.std().item() == pytest.approx(0.5, rel=0.1)


def test_plateau_lowers_the_rate(m2m, write, tmp_path):
    write("in", (1, 8, 8))
    write("tgt", (1, 8, 8))
    arguments = '{"patience": 0, "factor": 0.5, "threshold": 0.999}'
    flags = ["--reduce-lr-on-plateau", f"--scheduler-args={arguments}"]
    assert m2m("map2map", *line("train", *flags, **QUICK | {"epochs": "3"}))[0] == 0
    assert [value for _, value in tags(tmp_path)["lr"]][::4] == pytest.approx([0.01, 0.01, 0.005])


def test_recipe_of_a_command_line_is_yaml_that_is_read_back(m2m):
    status, printed, _ = m2m("map2map", *line("test", **SMALL), "--print-recipe")
    assert status == 0
    assert yaml.safe_load(printed)["data"]["crops"] == {
        "size": 4,
        "halo": 1,
        "target_halo": 0,
        "scale_factor": 1,
    }


def test_super_resolution_trains_against_its_discriminator(m2m, write, tmp_path):
    pytest.importorskip("map2map.models.sr_generator", reason="not in this version")
    write("in", (1, 8, 8))
    write("tgt", (1, 16, 16))
    more = ["--model=srsgan.G", "--scale-factor=2", "--in-pad=auto",
            '--misc-kwargs={"chan_base": 4, "chan_min": 2, "chan_max": 4}']  # fmt: skip
    options = QUICK | {"crop": "8", "epochs": "1"}
    critic = ["--adv-model=srsgan.D", "--cgan", "--adv-r1-reg-interval=1"]
    assert m2m("map2map", *line("train", **options), *more, *critic)[0] == 0
    state = torch.load(tmp_path / "state_1.pt", weights_only=True)
    assert np.isfinite(state["history"]["adv/G/train"]).all()
    assert m2m("map2map", *line("test", **SMALL), "--crop=8", *more)[0] == 0
    assert np.load(tmp_path / "tgt_0_out.npy").shape == (1, 16, 16)
