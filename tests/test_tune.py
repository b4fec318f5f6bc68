"""Tuning: trials are trainings, a search broken off is the search that was not, bad ones end."""

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from map2map.commands import tune_trials
from map2map.commands.tune import main, tune
from map2map.errors import ArtefactError, GeometryError, RecipeError, SaveError
from map2map.points import count_of, number_of, point_of, untried
from map2map.search_figure import draw_search
from map2map.spaces import Choice, Range, Trial, label, read_space, short_names, vary
from map2map.tuning import Search, Watch, best_of, open_study

pytest.importorskip("optuna", reason="Optuna is not installed (it comes with the extra tune)")

RECIPE = {
    "seed_everything": 1,
    "trainer": {"max_epochs": 5, "accelerator": "cpu", "logger": False},
    "model": {
        "inputs": [{"name": "a"}],
        "targets": [{"name": "b"}],
        "norms": {"a": {"class_path": "map2map.norms.Standardize"}},
        "model": {"class_path": "ConvNet", "init_args": {"width": 2, "depth": 1}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        "options": {"measures": {"mae": {"class_path": "torch.nn.L1Loss"}}},
    },
    "data": {
        "train": {"a": "a_[01].npy", "b": "b_[01].npy"},
        "val": {"a": "a_2.npy", "b": "b_2.npy"},
        "crops": {"size": 4},
        "reading": {"batch_size": 4, "threads": 0},
    },
    "output": {"figures": 0},
}
LR = "model.optimizer.init_args.lr"
RATE = f"--vary={LR}=float:1e-5:1:log"
SIZE = "data.crops.size"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for k in range(3):
        values = rng.normal(size=(1, 8, 8)).astype(np.float32)
        np.save(f"a_{k}.npy", values)
        np.save(f"b_{k}.npy", values + np.roll(values, 1, 1))
    Path("r.yaml").write_text(yaml.safe_dump(RECIPE))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def search(*more, trials=3, epochs=2, out="t"):
    argv = ["r.yaml", "-o", out, "--trials", trials, "--epochs", epochs, *more]
    return main([str(word) for word in argv])


def table(out="t"):
    with Path(out, "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    return rows


def scores(number, key="val", out="t"):
    return json.loads(Path(out, f"trial_{number:04}/scores.json").read_text())[key]


# --- trials are trainings ----------------------------------------------------------------------


def test_a_trial_is_the_training_of_its_recipe_and_the_best_recipe_trains(m2m, caplog):
    caplog.set_level("INFO")
    status, _, told = m2m(
        "tune", "r.yaml", "-o", "t", "--trials", 3, "--epochs", 2, RATE, "--pruner", "none",
        "--vary", "model.model.init_args.width=int:1:4", "--seed", 1,
    )  # fmt: skip
    assert status == 0, told
    rows = table()
    assert [row["state"] for row in rows] == ["completed"] * 3
    lowest = [min(scores(number)) for number in (1, 2, 3)]
    assert [float(row["score"]) for row in rows] == lowest
    best = 1 + int(np.argmin(lowest))

    # each is what training its recipe gives, which has the values of the table
    for number, row in enumerate(rows, 1):
        recipe = yaml.safe_load(Path(f"t/trial_{number:04}.yaml").read_text())
        arguments = recipe["model"]["optimizer"]["init_args"]
        assert arguments["lr"] == float(row[LR])
        assert recipe["trainer"]["max_epochs"] == 2
    again = m2m("train", f"t/trial_{best:04}.yaml", "--output.folder", "again")
    assert again[0] == 0, again[2]
    state = torch.load("again/checkpoint.pt", weights_only=True)
    assert state["history"]["val"] == scores(best)

    # the best is trained as long as the recipe says, and not into the folder of the trial
    recipe = yaml.safe_load(Path("t/best.yaml").read_text())
    assert recipe["trainer"]["max_epochs"] == 5
    assert recipe["output"]["folder"] == "."
    assert recipe["model"]["optimizer"]["init_args"]["lr"] == float(rows[best - 1][LR])
    assert m2m("train", "t/best.yaml")[0] == 0
    assert torch.load("checkpoint.pt", weights_only=True)["epoch"] == 5

    # only the best has kept what is big; all have kept what was told
    with_states = {path.parent.name for path in Path("t").rglob("*.pt")}
    assert with_states == {f"trial_{best:04}"}
    assert {p.parent.name for p in Path("t").rglob("*.safetensors")} == with_states
    for number in (1, 2, 3):
        assert "epoch 2 of 2" in Path(f"t/trial_{number:04}/log.txt").read_text()
    lines = [line for line in caplog.messages if line.startswith("trial ")]
    assert [line.partition(":")[0] for line in lines] == [f"trial {k} of 3" for k in (1, 2, 3)]
    assert f"best {min(lowest):.6g} by trial {best}; 0:00:00 left" in lines[-1]
    assert Path("t/search.png").read_bytes().startswith(b"\x89PNG")


def test_all_states_are_kept_if_asked_and_another_measure_is_compared():
    assert search(RATE, "--keep=all", "--by=mae", "--maximize", "--pruner=none") == 0
    highest = [max(scores(number, "mae/val")) for number in (1, 2, 3)]
    assert [float(row["score"]) for row in table()] == highest
    head = Path("t/best.yaml").read_text().partition("\n")[0]
    assert f"number {1 + int(np.argmax(highest))}: mae {max(highest):.6g}" in head
    assert len(list(Path("t").glob("trial_*/state_2.pt"))) == 3


def test_epochs_without_validation_count(here):
    assert search(RATE, "--trainer.check_val_every_n_epoch=2", trials=1, epochs=4) == 0
    (row,) = table()
    assert row["epochs"] == "4"
    known = scores(1)  # after the epochs 2 and 4
    assert [value is None for value in known] == [True, False, True, False]
    assert int(row["epoch"]) == (2 if known[1] < known[3] else 4)


def test_whole_classes_are_choices_and_python_searches_as_well():
    choices = Choice(
        (
            {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}},
            {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.02, "betas": [0.8, 0.9]}},
        )
    )
    space = {"model.optimizer": choices, "model.model.class_path": Choice(("ConvNet", "UNet"))}
    given = json.loads(json.dumps(RECIPE))
    trials = tune(given, space, Path("t"), Search(trials=3, pruner="none", seed=2), epochs=1)
    assert given == RECIPE
    had = [trial.values["model.optimizer"] for trial in trials]
    assert all(value in choices.values for value in had)
    for trial in trials:
        recipe = yaml.safe_load(Path(f"t/trial_{trial.number:04}.yaml").read_text())
        name = trial.values["model.model.class_path"]
        assert recipe["model"]["model"]["class_path"] == f"map2map.models.{name}"
        rate = trial.values["model.optimizer"]["init_args"]["lr"]
        assert recipe["model"]["optimizer"]["init_args"]["lr"] == rate
    assert len({label(value) for value in had}) == 2


# --- going on ----------------------------------------------------------------------------------


def break_off(monkeypatch, after, error):
    """Let the search be broken off after so many epochs of all its trials together."""
    done, report = [], Watch.on_train_epoch_end

    def then(self, trainer, task):
        report(self, trainer, task)
        done.append(trainer.current_epoch)
        if len(done) == after:
            raise error

    monkeypatch.setattr(Watch, "on_train_epoch_end", then)


class Killed(BaseException):
    pass


def test_a_search_that_was_broken_off_goes_on_as_if_nothing_had_happened(monkeypatch, m2m, caplog):
    caplog.set_level("INFO")
    argv = ["tune", "r.yaml", "--epochs", 3, RATE, "--startup", 2, "--seed", 3]
    assert m2m(*argv, "-o", "whole", "--trials", 4)[0] == 0
    handler = signal.getsignal(signal.SIGINT)
    # twice, in the second epoch of the second trial and in the last of the third
    with monkeypatch.context() as patch:
        break_off(patch, 5, KeyboardInterrupt)
        status, _, told = m2m(*argv, "-o", "t", "--trials", 3)
        assert (status, told.splitlines()[-1]) == (130, "m2m tune: interrupted")
    assert signal.getsignal(signal.SIGINT) is handler
    # what there was until then is there, and the interrupted trial does not count
    assert table() == table("whole")[:1]
    assert Path("t/best.yaml").exists()
    assert Path("t/search.png").exists()
    caplog.clear()
    with monkeypatch.context() as patch:
        break_off(patch, 3, Killed)
        with pytest.raises(Killed):
            m2m(*argv, "-o", "t", "--trials", 3)
    assert "going on after 1 trials in t" in caplog.messages
    assert "resuming from t/trial_0002/" in Path("t/trial_0002/log.txt").read_text()
    assert table() == table("whole")[:2]

    # and on from there, with more trials; once more, with nothing left to do
    for _ in range(2):
        assert m2m(*argv, "-o", "t", "--trials", 4)[0] == 0
        assert table() == table("whole")
    numbers = [path.name for path in sorted(Path("t").glob("trial_*.yaml"))]
    assert numbers == [f"trial_{k:04}.yaml" for k in (1, 2, 3, 4)]
    for number in (1, 2, 3, 4):
        assert scores(number) == scores(number, out="whole")
    assert Path("t/best.yaml").read_text() == Path("whole/best.yaml").read_text()


def test_a_signal_stops_a_search_with_its_state_saved(monkeypatch, m2m):
    argv = ["tune", "r.yaml", "--epochs", 2, RATE, "-o", "t", "--trials", 1]
    with monkeypatch.context() as patch:
        report = Watch.on_train_epoch_end

        def then(*args):
            report(*args)
            os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(Watch, "on_train_epoch_end", then)
        assert m2m(*argv)[0] == 75
    assert not Path("t/trials.csv").exists()
    assert m2m(*argv)[0] == 0
    assert "resuming from t/trial_0001/" in Path("t/trial_0001/log.txt").read_text()
    assert table()[0]["epochs"] == "2"


def drawn(out, seed, space):
    """What is drawn for twelve trials whose scores are known, the fifth a failure."""
    found = []
    search = Search(trials=12, seed=seed)
    with open_study(Path(out), space, search, {"seed": seed}, 3) as study:
        for _ in range(12):
            trial, number, values = study.ask()
            state = "failed" if number == 5 else "completed"
            score = abs(values["lr"] - 0.01) + values["width"]
            study.tell(trial, Trial(number, state, values, None if number == 5 else score))
            found.append(values)
        assert [trial.values for trial in study.trials()] == found
    return found


def test_the_seed_says_what_is_drawn_and_all_of_it_is_within_the_range():
    space = {
        "lr": Range(1e-4, 1, log=True),
        "width": Range(2, 8, whole=True, step=3),
        "class": Choice(("a", [1, 2], None)),
    }
    one = drawn("one", 0, space)
    assert drawn("again", 0, space) == one
    assert len({values["lr"] for values in one}) == 12
    two = drawn("two", 1, space)
    assert {values["lr"] for values in one} & {values["lr"] for values in two} == set()
    for values in (*one, *two):
        assert 1e-4 <= values["lr"] <= 1
        assert values["width"] in (2, 5, 8)
        assert values["class"] in ("a", [1, 2], None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--vary", f"{LR}=float:1e-5:2:log"], "--vary .*lr was float:1e-05:1.0:log, and float"),
        ([RATE, "--seed=5"], "--seed was 0, and 5 is asked for"),
        ([RATE, "--model.model.init_args.width=3"], "model.init_args.width was 2, and 3 is"),
        ([RATE, f"--vary={SIZE}=4,8"], "--vary data.crops.size was null"),
    ],
)
def test_a_folder_goes_on_only_with_the_same_search(change, words):
    assert search(RATE, trials=1, epochs=1) == 0
    with pytest.raises(RecipeError, match=f"another search: .*{words}.*another folder"):
        search(*change, trials=2, epochs=1)
    assert len(table()) == 1


def test_a_folder_is_of_one_process_and_its_file_is_a_study():
    Path("t").mkdir()
    with Path("t/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SaveError, match="another search works in t; wait"):
            search(RATE)
    Path("t/study.db").write_text("this is no data base, however long it may be" * 50)
    with pytest.raises(ArtefactError, match=r"study\.db is no study.*another folder"):
        search(RATE)
    Path("t/study.db").unlink()
    Path("t/trial_0001").mkdir()
    with pytest.raises(RecipeError, match=r"t has trials, but no study\.db"):
        search(RATE)


def test_no_trial_starts_after_the_timeout():
    assert search(RATE, "--timeout=0.05", trials=9, epochs=1) == 0
    assert len(table()) == 1


# --- trials that end early ---------------------------------------------------------------------


def test_the_median_pruner_ends_those_worse_than_the_median_and_no_others():
    assert search(RATE, "--startup=2", "--seed=4", trials=7, epochs=4) == 0
    rows, completed = table(), []
    for number, row in enumerate(rows, 1):
        mine = scores(number)
        # the rule, once more: worse than the median after as many epochs, but not in the last
        ended = [
            epoch
            for epoch in (1, 2, 3)
            if len(completed) >= 2
            and min(mine[:epoch]) > np.median([other[epoch - 1] for other in completed])
        ]
        expected = ("pruned", ended[0]) if ended else ("completed", 4)
        assert (row["state"], int(row["epochs"])) == expected
        assert len(mine) == expected[1]
        if not ended:
            completed.append(mine)
    assert 0 < sum(row["state"] == "pruned" for row in rows) < 5
    best = min(range(len(completed)), key=lambda k: min(completed[k]))
    assert f": loss {min(completed[best]):.6g}" in Path("t/best.yaml").read_text()


def test_hyperband_ends_some():
    assert search(RATE, "--pruner=hyperband", trials=5, epochs=9) == 0
    epochs = [int(row["epochs"]) for row in table()]
    assert min(epochs) < 9
    assert max(epochs) == 9


def failing(monkeypatch, errors):
    """Let the trials end with these errors, one after another; None, with none."""
    train, left = tune_trials.train, list(errors)

    def fail(*args, **kwargs):
        error = left.pop(0)
        if error is not None:
            raise error
        return train(*args, **kwargs)

    monkeypatch.setattr(tune_trials, "train", fail)


def test_a_trial_that_fails_is_told_and_the_search_goes_on(monkeypatch):
    memory = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 TiB")
    failing(monkeypatch, [memory, GeometryError("odd"), memory, None, GeometryError("odd")])
    assert search(RATE, trials=5, epochs=1) == 0
    rows = table()
    assert [row["state"] for row in rows] == ["failed"] * 3 + ["completed", "failed"]
    assert rows[0]["message"] == "OutOfMemoryError: CUDA out of memory."
    assert rows[1]["message"] == "odd"
    assert "Tried to allocate 9 TiB" in Path("t/trial_0001/log.txt").read_text()
    assert "number 4" in Path("t/best.yaml").read_text()


def test_crops_that_do_not_fit_and_rates_that_are_too_high_fail():
    assert search(f"--vary={SIZE}=4,5000", f"--vary={LR}=0.01,1e30", trials=6, epochs=1) == 0
    seen = set()
    for row in table():
        bad = row[SIZE] == "5000", row[LR] != "0.01"
        seen.add(bad)
        assert (row["state"] == "failed") == any(bad), row
        if bad[0]:
            assert "5000" in row["message"]
        elif bad[1]:
            assert "NaN or infinite" in row["message"]
    assert {(False, False), (False, True)} < seen


def test_three_trials_that_fail_alike_end_the_search(monkeypatch, m2m):
    failing(monkeypatch, [GeometryError("all is odd")] * 9)
    status, _, told = m2m("tune", "r.yaml", "-o", "t", RATE)
    assert status == 2
    assert told.splitlines()[-1] == (
        "m2m tune: error: the first 3 trials have failed alike: all is odd"
    )
    assert len(table()) == 3
    assert not Path("t/best.yaml").exists()


def test_a_search_without_a_completed_trial_says_so(monkeypatch):
    failing(monkeypatch, [GeometryError("odd"), GeometryError("even")])
    with pytest.raises(RecipeError, match=r"none of 2 trials was completed; see t/trials\.csv"):
        search(RATE, trials=2)


def test_a_full_disk_ends_the_search_and_the_trial_is_done_again(monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, [SaveError("no room")])
        with pytest.raises(SaveError, match="no room"):
            search(RATE, trials=1, epochs=1)
    assert search(RATE, trials=1, epochs=1) == 0
    assert [row["state"] for row in table()] == ["completed"]


# --- spaces with finitely many points ------------------------------------------------------------


def test_a_small_space_is_tried_point_by_point_and_then_the_search_ends(caplog):
    caplog.set_level("INFO")
    two = ("--vary=model.model.init_args.width=int:1:2", f"--vary={LR}=0.01,0.1")
    assert search(*two, trials=9, epochs=1) == 0
    keys = ("model.model.init_args.width", LR)
    had = [tuple(row[key] for key in keys) for row in table()]
    assert sorted(had) == [("1", "0.01"), ("1", "0.1"), ("2", "0.01"), ("2", "0.1")]
    assert "all 4 combinations of the values have been tried" in caplog.text
    # broken off and gone on with, it is the same
    for trials in (2, 3, 9, 9):
        assert search(*two, trials=trials, epochs=1, out="again") == 0
    assert table("again") == table()


def test_a_space_without_end_goes_on_though_a_choice_repeats():
    assert search(RATE, "--vary=model.model.init_args.depth=1,2", trials=4, epochs=1) == 0
    assert len(table()) == 4


@pytest.mark.parametrize(
    ("space", "points"),
    [
        ({"a": Range(2, 8, whole=True, step=3)}, [{"a": 2}, {"a": 5}, {"a": 8}]),
        ({"a": Range(3, 5, whole=True, log=True)}, [{"a": 3}, {"a": 4}, {"a": 5}]),
        ({"a": Range(0, 0.3, step=0.1)}, [{"a": 0.0}, {"a": 0.1}, {"a": 0.2}, {"a": 0.3}]),
        (
            {"a": Choice((True, None)), "b": Choice(([1], "x"))},
            [{"a": a, "b": b} for a in (True, None) for b in ([1], "x")],
        ),
        ({"a": Range(0, 1), "b": Choice((1, 2))}, None),
    ],
)
def test_points_are_numbered_and_every_one_is_found_once(space, points):
    if points is None:
        assert count_of(space) is None
        return
    assert count_of(space) == len(points)
    assert [point_of(space, i) for i in range(len(points))] == points
    assert [number_of(space, point) for point in points] == list(range(len(points)))
    rng, tried = np.random.default_rng(0), []
    while (point := untried(space, tried, rng)) is not None:
        assert point not in tried
        tried.append(point)
    assert len(tried) == len(points)


# --- what to vary ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int:8:64", Range(8, 64, whole=True)),
        ("int:8:64:log", Range(8, 64, whole=True, log=True)),
        ("int:8:64:8", Range(8, 64, whole=True, step=8)),
        ("float:-1:1", Range(-1, 1)),
        ("float:1e-5:1e-1:log", Range(1e-5, 0.1, log=True)),
        ("float:0:0.3:0.1", Range(0, 0.3, step=0.1)),
        ("UNet,VNet", Choice(("UNet", "VNet"))),
        ("1e-3,2,true,null", Choice((1e-3, 2, True, None))),
        ("[8, 8],[4, 16]", Choice(([8, 8], [4, 16]))),
        ("{a: b, c: {d: 1e-2}},x", Choice(({"a": "b", "c": {"d": 0.01}}, "x"))),
    ],
)  # fmt: skip
def test_what_varies_is_read_and_written_again(text, expected):
    key, what = vary(f"a.b={text}")
    assert (key, what) == ("a.b", expected)
    if isinstance(what, Range):
        assert vary(f"a.b={what}") == (key, what)


def test_a_file_says_the_same_as_options():
    Path("space.yaml").write_text(
        "a: int:8:64:log\n"
        "b: {low: 1e-5, high: 1e-1, log: true}\n"
        "c: {low: 1, high: 9, step: 2}\n"
        "d: {type: float, low: 1, high: 9}\n"
        "e: [x, [1, 2]]\n"
        "f: p,q\n"
    )
    assert read_space(Path("space.yaml")) == dict(
        map(
            vary,
            [
                "a=int:8:64:log", "b=float:1e-5:1e-1:log", "c=int:1:9:2", "d=float:1:9",
                "e=x,[1,2]", "f=p,q",
            ],
        )
    )  # fmt: skip


BAD = [
    (["--vary", "width"], "'width' is not KEY=WHAT; WHAT is int:LOW:HIGH"),
    (["--vary", f"{LR}=float:1:0.1"], "lr: from 1.0 to 0.1: low must be below high"),
    (["--vary", f"{LR}=float:0:1:log"], "from 0.0 to 1.0 with log: low must be positive"),
    (["--vary", f"{LR}=float:0:1:x"], "step is 'x'; it must be a number (or `log`)"),
    (["--vary", f"{LR}=float:0:1:-1"], "step -1.0: it must be positive"),
    (["--vary", f"{LR}=float:0:1:0.3"], "steps of 0.3: high is no whole number of steps"),
    (["--vary", f"{LR}=float:0"], "'float:0' is no range"),
    (["--vary", f"{LR}=float:a:1"], "low is 'a'; it must be a number"),
    (["--vary", f"{LR}=float:0:inf"], "both ends must be finite"),
    (["--vary", f"{SIZE}=int:1.5:4"], "an int range needs whole numbers"),
    (["--vary", f"{SIZE}=4"], "4: a choice needs at least two values"),
    (["--vary", f"{LR}=flot:1:2"], "begins with int or float; did you mean 'float'?"),
    (["--vary", f"{LR}=integer:1e-3:2:log"], "begins with int or float; did you mean 'int'?"),
    (
        ["--vary", "model.model.init_args.width=int:0:1"],
        "it cannot have model.model.init_args.width=0: `width` (0) and",
    ),
    (["--vary", "model.model.init_args.kernel_size=3,2"], "kernel_size=2: "),
    (["--vary", f"{LR}=float:-1:1"], "lr=-1.0: Invalid learning rate: -1"),
    (["--vary", f"{SIZE}=4,4"], "the choice 4 is given twice"),
    (["--vary", f"{SIZE}=[4,"], "is no list of choices"),
    (["--vary", f"{SIZE}=4,8", "--vary", f"{SIZE}=4,8"], "data.crops.size is varied twice"),
    (["--vary", "model.init_args.width=int:1:4"], "did you mean 'model.model.init_args.width'"),
    (["--vary", "model.model.init_args.widht=int:1:4"], "no key 'widht'; did you mean 'width'"),
    (["--vary", "model.model.init_args.width=float:1:4"], "width=1.0: model.model.width: expected"),
    (["--vary", "model.model.class_path=ConvNet,Conet"], "class_path=Conet: "),
    (["--vary", "output.every=int:1:4"], "output.every cannot be varied"),
    (["--vary", "seed_everything=int:1:4"], "seed_everything cannot be varied"),
    ([], "what is to be varied? give --vary KEY=WHAT"),
    ([RATE, "--trails=3"], "there is no option --trails; did you mean '--trials'"),
    ([RATE, "--model.wrong=3"], "--model.wrong"),
    ([RATE, "--trials=0"], "trials is 0; it must be at least 1"),
    ([RATE, "--epochs=0"], "--epochs is 0; it must be at least 1"),
    (["--vary=trainer.max_epochs=int:1:3", "--epochs=2"], "as trainer.max_epochs is varied"),
    ([RATE, "--timeout=soon"], "'soon' is no time; give seconds, or 30m"),
    ([RATE, "--timeout=0"], "timeout is 0.0 s; it must be positive"),
    ([RATE, "--by=mse"], "--by is 'mse', which trainings of this recipe do not tell"),
    ([RATE, "--pruner=best"], "invalid choice: 'best'"),
    ([RATE, "--data.val=null"], "validation split, but the recipe has none"),
    ([RATE, "--trainer.devices=2"], "a trial trains in one process, but the recipe asks for 2"),
    (["--space", "none.yaml"], "cannot read the search space none.yaml: No such file"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "words"), BAD, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_told_in_one_message_and_nothing_is_written(argv, words, m2m):
    status, _, told = m2m("tune", "r.yaml", "-o", "t", *argv)
    assert status == 2
    assert words in told
    assert "Traceback" not in told
    assert not Path("t").exists()


SPACES = [
    ("", "space.yaml is empty, not a search space"),
    ("- a\n", "space.yaml is a list, not a search space"),
    ("a: [\n", "space.yaml is not YAML"),
    ("a: 3\n", "space.yaml: a: 3 says not what to vary"),
    ("a: {low: 1}\n", "a: a range needs high"),
    ("a: {low: 1, hihg: 2}\n", "a: there is no key 'hihg'; did you mean 'high'"),
    ("a: {low: 1, high: 2, type: whole}\n", "type is 'whole'; it must be int or float"),
    ("a: {low: 1, high: 2, log: 3}\n", "log is 3; it must be true or false"),
    ("a: {low: null, high: 2}\n", "low and high must be numbers"),
    ("a: [1]\n", "a choice needs at least two values"),
]


@pytest.mark.parametrize(("text", "words"), SPACES)
def test_a_wrong_file_is_told_with_its_name(text, words):
    Path("space.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_space(Path("space.yaml"))
    assert words in str(caught.value)


def test_an_argument_that_one_of_the_classes_does_not_take_is_refused():
    classes = "--vary=model.model.class_path=PaddedConvNet,ConvNet"
    with pytest.raises(RecipeError, match=r"class_path=ConvNet, .*slope=0.1: .*no key 'slope'"):
        search(classes, "--vary=model.model.init_args.slope=0.1,0.2")


def test_without_a_recipe_or_without_optuna_the_command_says_what_to_do(monkeypatch, m2m):
    assert "which recipe?" in m2m("tune")[2]
    assert "int:8:64:log" in m2m("tune", "--help")[1]
    monkeypatch.setitem(sys.modules, "optuna", None)
    status, _, told = m2m("tune", "r.yaml", RATE)
    assert status == 2
    assert "pip install map2map[tune]" in told


def test_help_needs_neither_torch_nor_optuna():
    code = (
        "import sys\nfrom map2map.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'optuna'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\n  tune " in done.stdout


# --- what is shown -----------------------------------------------------------------------------


def test_short_names_tell_keys_apart():
    keys = ["a.b.init_args.x", "a.c.init_args.x", "a.c.class_path", "d.y"]
    assert list(short_names(keys).values()) == ["b.x", "c.x", "c", "y"]


def test_the_best_is_the_first_of_the_best_that_were_completed():
    trials = [
        Trial(1, "completed", score=3.0),
        Trial(2, "pruned", score=1.0),
        Trial(3, "failed"),
        Trial(4, "completed", score=2.0),
        Trial(5, "completed", score=2.0),
    ]
    assert best_of(trials, Search()) is trials[3]
    assert best_of(trials, Search(maximize=True)) is trials[0]
    assert best_of(trials[1:3], Search()) is None


def test_the_figure_has_a_panel_for_all_and_one_for_each_key():
    space = {
        "a.width": Range(8, 64, whole=True, log=True),
        "a.lr": Range(1e-5, 0.1, log=True),
        "a.class_path": Choice(("UNet", "VNet")),
        "a.p": Range(0, 0.5),
    }
    had = {"a.width": 16, "a.lr": 1e-3, "a.class_path": "VNet", "a.p": 0.25}
    trials = [
        Trial(1, "completed", had, score=2.0),
        Trial(2, "pruned", had, score=4.0),
        Trial(3, "failed", had),
        Trial(4, "completed", had, score=3.0),
        Trial(5, "completed", had, score=1.0),
    ]
    top, *panels = draw_search(trials, space, "loss").axes
    assert [axis.get_xlabel() for axis in (top, *panels)] == ["trial", "width", "lr", "a", "p"]
    marks = {c.get_label(): c.get_offsets().tolist() for c in top.collections}
    assert marks["completed"] == [[1, 2], [4, 3], [5, 1]]
    assert marks["pruned"] == [[2, 4]]
    assert [x for x, _ in marks["failed"]] == [3]
    (line,) = top.lines
    assert line.get_ydata().tolist() == [2, 2, 1, 1]
    for axis, x in zip(panels, (16, 1e-3, 1, 0.25), strict=True):
        places = {c.get_label(): c.get_offsets().tolist() for c in axis.collections}
        assert places["completed"] == [[x, 2], [x, 3], [x, 1]]
    assert draw_search(trials, space, "loss", maximize=True).axes[0].lines[0].get_ydata()[-1] == 3


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.668, 0.712, [0.67, 0.68, 0.69, 0.7, 0.71]),
        (0.11, 0.19, [0.12, 0.14, 0.16, 0.18]),
        (0.02, 0.13, [0.02, 0.05, 0.1]),
        (0.011, 0.9, [0.03, 0.1, 0.3]),
        (0.5, 0.5, [0.5]),
    ],
)
def test_scores_of_few_decades_have_ticks_at_round_numbers_in_even_steps(low, high, ticks):
    space = {"a": Range(1, 3)}
    trials = [Trial(k, "completed", {"a": k}, score) for k, score in ((1, low), (2, high))]
    axis = draw_search(trials, space, "loss").axes[0].yaxis
    shown = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
    assert shown == pytest.approx(ticks)
    labels = [axis.get_major_formatter()(tick, 0) for tick in shown]
    assert labels == [f"{tick:g}" for tick in ticks]


def test_whole_numbers_that_vary_have_whole_ticks():
    space = {"a": Range(4, 12, whole=True, log=True)}
    axis = draw_search([Trial(1, "completed", {"a": 4}, 0.5)], space, "loss").axes[1].xaxis
    assert list(axis.get_majorticklocs()) == [4, 6, 8, 10, 12]
