"""Any logger of Lightning's can be named in a recipe; callbacks watch what training tells."""

import csv
import importlib.util
import math
import re

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from map2map.emulator import Emulator

STEPS, EPOCHS = 4, 2
RECIPE = {
    "trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"},
    "model": {
        "inputs": [{"name": "a"}],
        "targets": [{"name": "b"}],
        "model": {"class_path": "ConvNet", "init_args": {"width": 2, "depth": 1}},
        "options": {"measures": {"mae": {"class_path": "torch.nn.L1Loss"}}},
    },
    "data": {
        "train": {"a": "a_0.npy", "b": "b_0.npy"},
        "val": {"a": "a_1.npy", "b": "b_1.npy"},
        "crops": {"size": 4},
    },
    "output": {"log_interval": 2, "resume": "never", "figures": 0},
}
CSV = "{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: table, name: ''}}"
BOARD = "{class_path: TensorBoardLogger, init_args: {save_dir: board, name: '', version: one}}"


class Plain(Logger):
    """A logger that can take scalars, and nothing else."""

    seen: list[tuple[dict, int]]

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    name = version = "plain"

    @property
    @rank_zero_experiment
    def experiment(self):
        raise AttributeError("figures are not for me")

    @rank_zero_only
    def log_hyperparams(self, *args, **kwargs):
        pass

    @rank_zero_only
    def log_metrics(self, metrics, step=None):
        self.seen.append((dict(metrics), step))


@pytest.fixture
def train(tmp_path, m2m):
    rng = np.random.default_rng(0)
    for name in ("a_0", "a_1", "b_0", "b_1"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(1, 8, 8)).astype(np.float32))
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    return lambda *argv: m2m("train", "r.yaml", *argv)


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    found = {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    return found, events.Tags()["images"]


def test_a_list_of_loggers_gets_the_same_scalars_and_figures_go_to_tensorboard(train, tmp_path):
    status, _, err = train(f"--trainer.logger=[{CSV}, {BOARD}]", "--output.figures=1")
    assert status == 0, err
    board, images = scalars(tmp_path / "board/one")
    assert set(images) >= {"fig/train", "fig/val"}
    with (tmp_path / "table/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    tags = {
        "loss/batch/train", "lr", "samples/s", "grad/first", "grad/last", "grad/all",
        "loss/epoch/train", "loss/epoch/val", "mae/epoch/train", "mae/epoch/val",
        "r2/epoch/val", "relative_l2/epoch/val",
    }  # fmt: skip
    assert board.keys() == tags
    assert rows[0].keys() == {*tags, "step", "epoch"}
    for tag in tags:
        table = [(int(r["step"]), int(r["epoch"] or 0), float(r[tag])) for r in rows if r[tag]]
        values = [value for _, _, value in table]
        assert values == pytest.approx([value for _, value in board[tag]], rel=1e-6)
        steps = [step for step, _ in board[tag]]
        if "/epoch/" in tag:
            # TensorBoard counts epochs, the table optimizer steps
            assert steps == [epoch for _, epoch, _ in table] == [1, 2]
            assert [step for step, _, _ in table] == [STEPS, 2 * STEPS]
        else:
            assert steps == [step for step, _, _ in table] == [2, 4, 6, 8]
    assert not (tmp_path / "runs").exists()


def test_a_logger_of_scalars_alone_is_given_no_figures_and_none_is_none(train, tmp_path):
    status, _, err = train("--trainer.logger=false", "--output.figures=1")
    assert status == 0, err
    assert not (tmp_path / "runs").exists()
    assert not list(tmp_path.glob("**/events*"))
    from map2map.commands.train import make
    from map2map.train import train as fit

    cli = make(["--config=r.yaml", "--output.figures=1"], "test")
    plain = Plain()
    cli.trainer._loggers = [plain]
    fit(cli.model, cli.datamodule, cli.trainer, cli.output)
    assert {tag for values, _ in plain.seen for tag in values} >= {"loss/epoch/val", "grad/all"}


@pytest.mark.parametrize(
    ("name", "package"), [("MLFlowLogger", "mlflow"), ("WandbLogger", "wandb")]
)
def test_a_logger_whose_package_is_missing_is_refused_by_name(train, tmp_path, name, package):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    status, _, err = train(f"--trainer.logger={{class_path: lightning.pytorch.loggers.{name}}}")
    assert status == 2
    assert f"needs the package {package}, which is not installed; `pip install '{package}" in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.filterwarnings("ignore")  # MLflow's own, of which there are many
def test_mlflow_takes_the_scalars(train, tmp_path):
    mlflow = pytest.importorskip("mlflow", exc_type=ImportError)
    logger = "{class_path: MLFlowLogger, init_args: {tracking_uri: 'sqlite:///m.db'}}"
    status, _, err = train(f"--trainer.logger={logger}")
    assert status == 0, err
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/m.db")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {m.step for m in client.get_metric_history(run.info.run_id, "loss/epoch/val")} == {4, 8}


# --- callbacks -----------------------------------------------------------------------------------


def test_cosine_with_restarts_and_adamp_by_yaml(train, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code/rates.py").write_text(
        "import lightning.pytorch as pl\n"
        "seen = []\n"
        "class Rates(pl.Callback):\n"
        "    def on_train_batch_start(self, trainer, *_):\n"
        "        group = trainer.optimizers[0].param_groups[0]\n"
        "        seen.append((type(trainer.optimizers[0]).__name__, group['lr'], group['delta']))\n"
    )
    status, _, err = train(
        "--model.optimizer={class_path: map2map.optimizers.AdamP, init_args: {lr: 0.01}}",
        "--model.schedule={scheduler: {class_path: CosineAnnealingWarmRestarts, "
        "init_args: {T_0: 3}}, interval: step}",
        "--callback_at=code",
        "--trainer.callbacks=[{class_path: map2map_callback.rates.Rates},"
        "{class_path: LearningRateMonitor}]",
        f"--trainer.logger=[{BOARD}]",
    )
    assert status == 0, err
    from map2map_callback import rates

    expected = [0.01 * (1 + math.cos(math.pi * (step % 3) / 3)) / 2 for step in range(8)]
    assert [name for name, _, _ in rates.seen] == ["AdamP"] * 8
    assert {delta for _, _, delta in rates.seen} == {0.1}
    assert [rate for _, rate, _ in rates.seen] == pytest.approx(expected)
    board, _ = scalars(tmp_path / "board/one")
    (tag,) = [tag for tag in board if tag.startswith("lr-")]
    assert [v for _, v in board[tag]] == pytest.approx([expected[s] for s, _ in board[tag]])


STOP = "{{class_path: EarlyStopping, init_args: {{monitor: {}, patience: {}, min_delta: {}}}}}"


@pytest.mark.parametrize("monitor", ["loss/val", "mae/val", "loss/train"])
def test_early_stopping_ends_the_training_and_the_best_weights_may_be_kept(
    train, tmp_path, caplog, monitor
):
    # nothing is an improvement of ten, so that the second and third look end it
    stop = STOP.format(monitor, 2, 10)
    more = ["--trainer.max_epochs=9", "--trainer.logger=false"]
    # a rate at which it gets worse
    rate = "--model.optimizer={class_path: torch.optim.SGD, init_args: {lr: 0.5}}"
    status, _, err = train(f"--trainer.callbacks=[{stop}]", *more, rate, "--output.weights=best")
    assert status == 0, err
    assert "can never act" not in caplog.text
    assert (tmp_path / "state_3.pt").exists()
    assert not (tmp_path / "state_4.pt").exists()
    states = [torch.load(tmp_path / f"state_{i}.pt", weights_only=True) for i in (1, 2, 3)]
    best = min(range(3), key=lambda i: states[2]["history"]["val"][i])
    assert best < 2
    emulator = Emulator.load(tmp_path / "emulator.safetensors")
    assert emulator.training_record["weights_of_epoch"] == best + 1
    for name, value in emulator.model.state_dict().items():
        assert torch.equal(value, states[best]["model"][name])


@pytest.mark.parametrize(
    ("patience", "epochs", "every", "told"),
    [(2, 2, 1, True), (1, 2, 1, False), (1, 2, 2, True), (30, 1, 1, True)],
)
def test_early_stopping_that_can_never_act_is_told(train, caplog, patience, epochs, every, told):
    stop = STOP.format("loss/val", patience, 0)
    status, _, err = train(
        f"--trainer.callbacks=[{stop}]", f"--trainer.max_epochs={epochs}",
        f"--trainer.check_val_every_n_epoch={every}", "--trainer.logger=false",
    )  # fmt: skip
    assert status == 0, err
    assert (f"early stopping can never act: its patience is {patience}" in caplog.text) == told


@pytest.mark.parametrize(
    ("callback", "more", "match"),
    [
        (STOP.format("val_loss", 1, 0), [], "'val_loss', which this .* did you mean 'loss/val'"),
        (STOP.format("loss/val", 1, 0), ["--data.val=null"], "there is no validation split"),
        ("{class_path: ModelCheckpoint, init_args: {monitor: val_loss}}", [], "ModelCheckpoint"),
        ("{class_path: LearningRateMonitor}", ["--trainer.logger=false"], "leave one of them out"),
    ],
)
def test_what_is_not_told_cannot_be_watched(train, tmp_path, callback, more, match):
    status, _, err = train(f"--trainer.callbacks=[{callback}]", *more)
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert re.search(match, err)
    assert not list(tmp_path.glob("*.pt"))


def test_lightnings_own_checkpoints_go_beside_ours(train, tmp_path):
    status, _, err = train(
        "--trainer.callbacks=[{class_path: ModelCheckpoint, init_args: "
        "{monitor: loss/val, dirpath: mine, filename: best, save_last: true}}]",
        "--trainer.logger=false",
    )
    assert status == 0, err
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"best.ckpt", "last.ckpt"}
    last = torch.load(tmp_path / "mine/last.ckpt", weights_only=True)["model"]
    ours = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]
    assert all(torch.equal(last[name], ours[name]) for name in ours)
