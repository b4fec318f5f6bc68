"""What README and docs show works, and they name all that there is.

The blocks of a page run one after another in a folder that holds ``data/`` and an emulator:
python blocks in one namespace, ``m2m`` lines in this process. A block with a title is also the
file of that name; one below ``src/map2map`` becomes a module of the package, as the page says.
"""

import contextlib
import dataclasses
import gc
import importlib
import inspect
import io
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
import torch
import yaml

import map2map
from map2map import cli
from map2map.adversarial import Adversarial
from map2map.commands import train as train_command
from map2map.commands.recipes import shipped
from map2map.crops import Augment, Crops
from map2map.data import FieldData, Reading
from map2map.dialects import map2map as dialect
from map2map.emulator import Card, Emulator
from map2map.fields import Field, FieldSet
from map2map.footprints import Footprint
from map2map.grids import Domain
from map2map.models import ConvNet, ResNet
from map2map.norms import Displacement
from map2map.preparation import Options
from map2map.runs import Files
from map2map.synthetic import nbody
from map2map.task import Schedule, Task
from map2map.told import Told
from map2map.train import Output

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
TRAINED = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "adversarial",
            "cubes",
            "ensembles",
            "extend",
            "ice_flow",
            "operators",
            "saliency",
            "styles",
            "super_resolution",
            "time",
            "tour",
        )
    ),
)
"""Pages whose training commands train; those of the others are read, and nothing more."""

QUICK = {
    "simulate nbody --out fields": ["--size=16", "--box=32", "--steps=2", "--overwrite=true"],
    "train gan.yaml": [
        "--data.crops.size=12",
        "--model.training.init_args.start=0",
        "--model.model.init_args.width=4",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
    ],
    "simulate nbody": ["--size=8", "--box=16", "--steps=2", "--overwrite=true"],
    "simulate kolmogorov_flow": [
        "--frames=6",
        "--setting.size=16",
        "--setting.spin_up=0.2",
        "--setting.step=0.1",
        "--overwrite=true",
    ],
    "train turbulence_rollout": [
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--model.model.init_args.width=2",
    ],
    "rollout emulator.safetensors": ["--steps=2"],
    "simulate ice_flow": [
        "--setting.sizes=[16,17]",
        "--setting.years=12",
        "--setting.frames=2",
        "--overwrite=true",
    ],
    "simulate flame_front --layout mesh": [
        "--snapshots=3",
        "--setting.size=8",
        "--setting.every=2",
        "--setting.thickness=2e-4",
        "--setting.integral=0.2",
    ],
    "fit --config flame_mesh.yaml": ["--trainer.max_epochs=1"],
    "train super_resolution": [
        "--data.crops.size=8",
        "--model.model.init_args.width=2",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
    ],
    "train ice_flow": [
        "--data.crops.size=8",
        "--model.model.init_args.depth=2",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
    ],
    "simulate darcy": ["--train=4", "--val=1", "--test=2", "--setting.refine=1"],
    "train darcy": [
        "--model.model.init_args.width=2",
        "--model.model.init_args.depth=1",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
    ],
    "simulate potential_pairs --out data": ["--runs=3", "--overwrite=true"],
    "simulate potential_pairs --out cubes": ["--overwrite=true"],
    "train newton_vs_gr": [
        *(
            f"--data.{split}.potential={{pattern: data/data_z1.h5, "
            f'variable: "{{gravity}}_seed{{seed}}", only: {{seed: "{seeds}"}}}}'
            for split, seeds in (("train", "0:2"), ("val", "2:3"))
        ),
        "--data.domain.plane_step=32",
        "--trainer.max_epochs=1",
    ],
    "cubes temp": ["--stride=32"],
    "cubes temp.yaml": ["--stride=32"],
    "evaluate gravity/emulator.safetensors": ["--only=seed=2:3"],
    "train cosmology_displacement": ["--data.crops.size=8", "--trainer.max_epochs=1"],
    "tune cosmology_displacement": [
        "--trials=2",
        "--epochs=1",
        "--data.crops.size=8",
        "--model.model.init_args.width=2",
        "--output.figures=0",
        "--trainer.accelerator=cpu",
    ],
    "train styled.yaml": ["--trainer.max_epochs=1", "--model.model.init_args.width=2"],
    "train mine.yaml": ["--data.crops.size=8", "--trainer.max_epochs=1"],
    "train lab.yaml": ["--trainer.max_epochs=1"],
    "train flow.yaml": ["--trainer.max_epochs=1", "--model.model.init_args.steps=1"],
    "train gravity.yaml": ["--trainer.max_epochs=1", "--trainer.accelerator=cpu"],
}
"""What is appended to commands, so that they take no time; the last of an option counts."""

ALWAYS = ["--output.figures=0", "--trainer.devices=1", "--trainer.num_nodes=1"]
"""Appended to training; how many processes there are is for a cluster to say."""

RECIPE_KEYS = {"model", "data", "trainer", "output", "seed_everything", "callback_at"}


class Block(NamedTuple):
    line: int
    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    found = re.finditer(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', text, re.M | re.S)
    return [Block(text[: m.start()].count("\n") + 2, m[1], m[2] or "", m[3]) for m in found]


def commands(text: str) -> list[list[str]]:
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("materials")
    nbody.simulate(folder / "data", runs=6, size=8, box=16, steps=1)
    inputs, targets = (
        FieldSet((Field(name, "Mpc/h", "vector", 3),)) for name in ("linear", "displacement")
    )
    norms = {"linear": Displacement(), "displacement": Displacement()}
    model = ConvNet(3, 3, width=2, depth=2)
    domain = Domain(ndim=3, spacing=2.0)
    Emulator(inputs, targets, norms, model, domain).save(folder / "emulator.safetensors")
    gravities = "newton", "gr"
    label = Field("gravity", kind="label", classes=gravities).resolved(1, 2)
    sides = FieldSet((Field("potential").resolved(1, 2),)), FieldSet((label,))
    planes = Domain(ndim=2, planes=[0, 1, 2], plane_step=4)
    network = ResNet(1, 1, ndim=2, width=2, levels=2)
    Emulator(*sides, {}, network, planes).save(folder / "gravity.safetensors")
    with h5py.File(folder / "cubes.h5", "w") as opened:
        for seed in range(125, 150):
            for k, gravity in enumerate(gravities):
                values = np.random.default_rng([seed, k]).normal(size=(4, 4, 4))
                opened[f"{gravity}_seed{seed}"] = values.astype(np.float32)
    return folder


@pytest.fixture
def page_folder(materials, tmp_path, monkeypatch):
    """A copy of the materials to work in; what a page adds to the package is forgotten again."""
    folder = tmp_path / "page"
    shutil.copytree(materials, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if name.split(".")[0] in {"lab", "map2map"} or name.startswith("map2map_callback"):
            del sys.modules[name]
    gc.collect()


def add_to_package(path: Path, monkeypatch) -> None:
    """Do what the page says besides writing the file: name it in the folder's ``__init__``."""
    package = importlib.import_module(f"map2map.{path.parent.name}")
    places = [*package.__path__, str(path.parent.resolve())]
    monkeypatch.setattr(package, "__path__", places)
    importlib.invalidate_caches()
    module = importlib.import_module(f"{package.__name__}.{path.stem}")
    if hasattr(module, "main"):
        monkeypatch.setitem(cli.COMMANDS, path.stem, (module.__name__, ""))
    if hasattr(package, "__all__"):
        monkeypatch.setattr(package, "__all__", [*package.__all__, *module.__all__])
        for name in module.__all__:
            monkeypatch.setattr(package, name, getattr(module, name), raising=False)


def run_m2m(words: list[str], where: str) -> None:
    into = None
    if ">" in words:
        words, (into,) = words[: words.index(">")], words[words.index(">") + 1 :]
    line = " ".join(words[1:])
    quick = next((more for key, more in QUICK.items() if line.startswith(key)), [])
    train = words[1] == "train"
    own = words[1:]
    if "--only" in own and any(word.startswith("--only=") for word in quick):
        # which may be given several times, but name a placeholder once
        own = own[: own.index("--only")]
    argv = [*own, *quick, *(ALWAYS if train else [])]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(argv)
        except SystemExit as leave:
            status = leave.code
    assert not status, f"{where}: {' '.join(words)}\n{err.getvalue()}"
    if into is not None:
        Path(into).write_text(out.getvalue())


def run_line(words: list[str], where: str) -> None:
    if words[0] in {"srun", "torchrun"}:
        start = next(i for i, word in enumerate(words) if word in {"m2m", "map2map.cli"})
        words = ["m2m", *words[start + 1 :]]
    if words[0] == "m2m":
        run_m2m(words, where)
    elif words[0] == "m2m.py":
        options = dialect.parser().parse_args(words[1:])
        assert {"model", "data"} <= set(dialect.recipe(options)), where
    elif words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(words[1:]) <= set(targets), where
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), where
    else:
        assert words[0] in {"tensorboard", "git", "cd"}, f"{where}: what is {words[0]}?"


def merged(base, change):
    """A recipe with some keys changed; what has a class is replaced whole."""
    if not (isinstance(base, dict) and isinstance(change, dict)) or "class_path" in change:
        return change
    return base | {key: merged(base.get(key), value) for key, value in change.items()}


def check_recipe(text: str) -> None:
    """A whole recipe, or a part of one, is read by the real parser."""
    entries = yaml.safe_load(text)
    if set(entries) <= RECIPE_KEYS:
        whole = yaml.safe_load(shipped()["cosmology_displacement"].read_text())
        made = entries if {"model", "data"} <= set(entries) else merged(whole, entries)
        train_command.make(made, "m2m train")


# classes of callback folders that other tests have left behind
@pytest.mark.filterwarnings("ignore:\\s*Hit failing import")
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, page_folder, monkeypatch):
    if page not in TRAINED:
        monkeypatch.setattr(train_command, "train", lambda *args, **kwargs: None)
    namespace = {"__name__": "page"}
    for block in blocks(page):
        where = f"{page}, line {block.line}"
        if block.title:
            path = Path(block.title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            if path.parts[:2] == ("src", "map2map"):
                add_to_package(path, monkeypatch)
        if block.language == "python" and not block.title:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.text, where, "exec"), namespace)
        elif block.language == "python":
            compile(block.text, where, "exec")
        elif block.language == "yaml":
            check_recipe(block.text)
        elif block.language == "bash":
            for words in commands(block.text):
                run_line(words, where)


def test_the_recipes_page_names_every_key():
    text = (ROOT / "docs/recipes.md").read_text()
    parts = (Task, FieldData, Output, Field, Files, Told, Schedule, Options)
    keys = {key for cls in parts for key in inspect.signature(cls).parameters}
    for cls in (Crops, Augment, Domain, Reading):
        keys |= {field.name for field in dataclasses.fields(cls)}
    assert {key for key in keys | RECIPE_KEYS if f"`{key}`" not in text} == set()


def test_the_adversarial_page_names_every_key():
    text = (ROOT / "docs/adversarial.md").read_text()
    keys = inspect.signature(Adversarial).parameters
    assert {key for key in keys if f"`{key}`" not in text} == set()


@pytest.mark.parametrize("package", ["models", "norms", "losses"])
def test_the_recipes_page_names_every_model_norm_and_loss(package):
    text = (ROOT / "docs/recipes.md").read_text()
    names = importlib.import_module(f"map2map.{package}").__all__
    missing = {name for name in names if not re.search(rf"`{name}\b", text)}
    assert missing <= {"Norm", "Moments"}


def test_the_map2map_page_names_every_option():
    text = (ROOT / "docs/map2map.md").read_text()
    (modes,) = (a for a in dialect.parser()._actions if a.dest == "mode")
    options = {
        option
        for sub in modes.choices.values()
        for action in sub._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }
    assert {option for option in options if f"`{option}`" not in text} == set()


def test_the_emulator_page_names_every_key_of_the_card():
    text = (ROOT / "docs/emulator.md").read_text()
    keys = {field.name for cls in (Card, Footprint) for field in dataclasses.fields(cls)}
    assert {key for key in keys if f"| `{key}` |" not in text} == set()


@pytest.fixture(scope="module")
def tree():
    """The paths of the README's file tree, a line each, indented by two for each folder."""
    (block,) = re.findall(
        r"^```text\n(map2map/\n.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S
    )
    folders, paths = [], set()
    for line in block.splitlines()[1:]:
        names = re.split(r"\s{2,}", line.strip())[0]
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        del folders[depth:]
        for name in names.split():
            paths.add(Path(*folders, name))
        if names.endswith("/"):
            folders.append(names)
    return paths


def test_the_file_tree_names_only_what_exists(tree):
    assert {str(path) for path in tree if not (ROOT / path).exists()} == set()


def test_the_file_tree_names_every_module(tree):
    package = Path(map2map.__file__).parent
    every = {Path("src/map2map") / path.name for path in package.iterdir() if path.name[0] != "_"}
    assert {str(path) for path in every - tree if path.name != "py.typed"} == set()


def test_the_architecture_names_every_layer_and_dependency():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    modules = [name.removeprefix("map2map.") for layer in layers for name in layer.split(" | ")]
    needed = [re.match(r"[A-Za-z0-9_-]+", entry)[0] for entry in project["project"]["dependencies"]]
    assert {name for name in modules if not re.search(rf"\b{name}\b", text)} == set()
    assert {name for name in needed if f"| `{name}` |" not in text} == set()


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_documentation_builds(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (it comes with the extra dev)")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site/index.html").read_text()
    # readers are not told on: nothing is fetched from elsewhere
    assert re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', page) == []


def test_files_name_no_path_of_a_machine():
    """Of whoever wrote them: home folders, or those of temporary checkouts."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so which files are the project's is not known")
    pattern = re.compile(r"(?<![\w.])/(?:home|Users|root|work|mnt|tmp)/[\w.-]+")
    found = {}
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix not in {".png", ".npy", ".pt", ".safetensors"}:
            hits = pattern.findall(path.read_text(errors="replace"))
            found |= {name: hits} if hits else {}
    assert found == {}
