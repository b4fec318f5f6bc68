"""Figures on disk: which, of what, whole or not at all; and how they are asked for."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from map2map.commands.figures import figures_of
from map2map.emulator import Emulator
from map2map.errors import ArtefactError, RecipeError, SaveError
from map2map.fields import Field, FieldSet
from map2map.figures import CrossSection, Histogram
from map2map.gallery import Gallery, figures_available
from map2map.grids import Domain
from map2map.models import ConvNet

SHAPE = (8, 5)

OWN = """
from matplotlib.figure import Figure

from map2map.figures import RunFigure


class LargestError(RunFigure):
    def __init__(self, power=1):
        self.power, self.found = power, []

    def add(self, case):
        self.found.append(abs(case.predictions["emulator"] - case.truth)[:, case.counts].max())

    def draw(self, field, inks):
        figure = Figure()
        figure.subplots().plot([x**self.power for x in self.found], color=inks.ink)
        return {"": figure}


class Broken(LargestError):
    def draw(self, field, inks):
        return 1 / 0
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Runs of u, and an emulator from it to a vector V of two and to levels of v."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for run in range(3):
        u = rng.normal(size=(1, *SHAPE))
        fields = {"u": u, "V": u * [[[1.0]], [[2.0]]], "v": u * np.arange(1, 5)[:, None, None]}
        for name, values in fields.items():
            np.save(f"{name}_{run}.npy", values.astype(np.float32))
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "mine.py").write_text(OWN)
    inputs = FieldSet((Field("u", "m", "scalar", 1),))
    targets = FieldSet((Field("V", "m/s", "vector", 2), Field("v", "K", "scalar", 4)))
    torch.manual_seed(0)
    model = ConvNet(1, 6, ndim=2, width=2, depth=1)
    Emulator(inputs, targets, {}, model, Domain(ndim=2)).save("e.safetensors")
    return tmp_path


GIVEN = ["e.safetensors", "u=u_*.npy", "V=V_*.npy", "v=v_*.npy", "--metrics", "pointwise",
         "--no-training-mean"]  # fmt: skip


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_figures_of_all_targets_are_written_beside_the_scores(folder, m2m):
    asked = ["histogram", "cross_section(channels=1)", "profiles"]
    status, _, err = m2m("evaluate", *GIVEN, "--figures", "figs", "--pdf", "--figure", *asked)
    assert status == 0, err
    stems = ("cross_section-v", "cross_section-v-2", "histogram-v", "histogram-v-2", "profiles-v-2")
    # V has no levels; v is the second of this name where cases do not matter
    assert names(folder / "figs") == sorted(f"{s}.{k}" for s in stems for k in ("png", "pdf"))
    assert (folder / "scores.nc").exists()
    with Image.open(folder / "figs" / "histogram-v.png") as image:
        assert image.convert("RGB").getpixel((1, image.height - 1)) == (255, 255, 255)
        assert image.width > 800


def test_figures_are_in_tensorboard_too(folder, m2m):
    asked = ["--figures", "figs", "--figure", "histogram"]
    assert m2m("evaluate", *GIVEN, *asked, "--tensorboard", "logs/test")[0] == 0
    (log,) = (folder / "logs" / "test").iterdir()
    found = EventAccumulator(str(log), {"images": 0}).Reload()
    assert sorted(found.Tags()["images"]) == ["test/histogram-v", "test/histogram-v-2"]
    image = Image.open(BytesIO(found.Images("test/histogram-v")[0].encoded_image_string))
    assert image.width > 300
    status, _, err = m2m("evaluate", *GIVEN, "-o", "2.nc", "--tensorboard", "logs/test")
    assert status == 2
    assert "--tensorboard is for figures" in err


def test_a_figure_sees_what_is_scored_run_by_run(folder, m2m):
    given = [*GIVEN, "--where", "u", "0.5", "--callback-at", "lab", "--figures", "figs"]
    own = "map2map_callback.mine.LargestError(power=2)"
    seen, add = [], Gallery.add

    def noted(gallery, case):
        seen.append(case)
        add(gallery, case)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gallery, "add", noted)
        status, _, err = m2m("evaluate", *given, "--figure", own)
    assert status == 0, err
    assert names(folder / "figs") == ["largest_error-v-2.png", "largest_error-v.png"]
    assert [(c.field.name, c.run) for c in seen] == [
        (name, f"V_{run}") for run in range(3) for name in "Vv"
    ]
    emulator = Emulator.load("e.safetensors")
    for case in seen:
        u = np.load(case.run.replace("V", "u") + ".npy")
        np.testing.assert_array_equal(case.counts, u[0] > 0.5)
        expected = emulator({"u": u})[case.field.name]
        np.testing.assert_array_equal(case.predictions["emulator"], expected)
        assert case.methods == ("emulator",)


def test_figures_that_are_there_are_not_replaced_unless_allowed(folder, m2m):
    given = [*GIVEN, "--figures", "figs", "--figure", "histogram"]
    assert m2m("evaluate", *given)[0] == 0
    before = (folder / "figs" / "histogram-v.png").read_bytes()
    status, _, err = m2m("evaluate", *given, "-o", "other.nc")
    assert (status, "exists already" in err) == (2, True)
    # before anything was computed
    assert not (folder / "other.nc").exists()
    assert m2m("evaluate", *given, "--overwrite")[0] == 0
    # the same scores make the same figures
    assert (folder / "figs" / "histogram-v.png").read_bytes() == before
    # other figures may be there
    other = [*GIVEN, "--figures", "figs", "--figure", "boxplot", "-o", "b.nc"]
    assert m2m("evaluate", *other)[0] == 0


def test_a_file_is_whole_or_not_there(folder, m2m, monkeypatch):
    def full(self, path, **options):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    status, _, err = m2m("evaluate", *GIVEN, "--figures", "figs", "--figure", "histogram")
    assert (status, "No space left" in err) == (2, True)
    assert names(folder / "figs") == []
    assert (folder / "scores.nc").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--figure", "histogram"], "--figure is for figures; say where to write them: --figures"),
        (["--pdf"], "--pdf is for figures"),
        (["--figures", "f", "--figure", "histgram"], "no figure 'histgram'; did you mean 'histogr"),
        (["--figures", "f", "--figure", "histogram(bans=3)"], "does not take the arguments"),
        (["--figures", "f", "--figure", "histogram(3)"], "named arguments; write it as dispersion"),
        (["--figures", "f", "--figure", "histogram("], "cannot be read"),
        (["--figures", "f", "--figure", "histogram(bins=0)"], "a whole number from 1 on"),
        (["--figures", "f", "--figure", "histogram", "histogram(bins=9)"], "asked for twice"),
        (["--figures", "f", "--figure", "os.system"], "refusing to import"),
        (["--figures", "e.safetensors"], "cannot make the folder e.safetensors"),
        (["--figures", "f", "--figure", "layer_profile(axis=2)"], "the axes 0 to 1"),
        (["--figures", "f", "--callback-at", "lab", "--figure", "map2map_callback.mine.Broken"],
         "mine.py, line 22, Broken.draw raised ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(folder, m2m, options, message):
    status, _, err = m2m("evaluate", *GIVEN, *options)
    assert (status, message in err) == (2, True), err
    assert "Traceback" not in err
    assert not list(folder.glob("f/*"))


def test_figures_are_called_as_their_classes_and_all_are_there():
    found = figures_of([])
    assert set(found) == set(figures_available())
    assert {"dispersion", "histogram2d", "cross_section", "layer_profile"} <= set(found)
    assert isinstance(figures_of(["map2map.figures.Histogram(bins=3)"])["histogram"], Histogram)
    assert figures_of(["cross_section(axis=2, index=-1)"])["cross_section"].index == -1
    with pytest.raises(ArtefactError, match="not a RunFigure"):
        figures_of(["map2map.figures.Case"])
    with pytest.raises(RecipeError, match="did you mean 'cross_section'"):
        figures_of(["crosssection"])


def test_names_of_fields_that_are_patterns_are_taken_as_they_are(tmp_path):
    gallery = Gallery({"cross_section": CrossSection()}, ["a", "a-0"])
    (tmp_path / "cross_sectionXa.png").touch()
    (tmp_path / "cross_section-ab.png").touch()
    gallery.check(tmp_path, ["png"], overwrite=False)
    (tmp_path / "cross_section-a-0.png").touch()
    with pytest.raises(SaveError, match=r"cross_section-a-0.png exists already"):
        gallery.check(tmp_path, ["png"], overwrite=False)
