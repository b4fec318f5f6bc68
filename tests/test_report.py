"""The report says what the scores say, to everyone, without a network."""

import base64
import html
import io
import json
import re
import runpy
import shutil
import subprocess
import sys
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from map2map.errors import SaveError, SourceError
from map2map.inks import PAPER, tint
from map2map.report import curves, headline, maps, profiles, report, tables, wording
from map2map.report.drawing import SCREEN, VARIABLES, with_palette
from map2map.report.page import content, render
from map2map.report.scores import Score, Scores, read_scores
from map2map.report.tables import score_rows
from map2map.scores import NAMES

MADE = runpy.run_path(str(Path(__file__).with_name("made_scores.py")))
made_scores, CARD = MADE["made_scores"], MADE["CARD"]

VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture(scope="module")
def dataset():
    return made_scores()


@pytest.fixture(scope="module")
def scores(dataset):
    return Scores(dataset, Path("scores.nc"), CARD, json.loads(dataset.attrs["data"]))


@pytest.fixture(scope="module")
def page(dataset, tmp_path_factory):
    """The text of a page, and the folder with its PDF figures."""
    folder = tmp_path_factory.mktemp("report")
    dataset.to_netcdf(folder / "scores.nc")
    path = report(folder / "scores.nc", pdf=folder / "pdf")
    assert path == folder / "report.html"
    return path


def reported(dataset, folder, **options):
    path = folder / "some.nc"
    dataset.to_netcdf(path)
    return report(path, overwrite=True, **options).read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Elements of a page with their texts; unbalanced tags are refused."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        element = (tag, dict(attrs), [])
        self.found.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        name, _, _ = self.open.pop()
        assert name == tag

    def handle_data(self, data):
        for _, _, texts in self.open:
            texts.append(data)

    def all(self, tag):
        pairs = (
            (attrs, " ".join("".join(t).split())) for name, attrs, t in self.found if name == tag
        )
        return list(pairs)


def plain(text):
    """Numbers as Python writes them: no signs that only look like others."""
    text = text.replace(wording.MINUS, "-").replace(f"{wording.TIMES}10", "e")
    return text.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))


def words(text):
    """What a reader reads."""
    body = re.sub(r"<style.*?</style>|<svg.*?</svg>", "", text, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


# --- the page ----------------------------------------------------------------------------------


def test_a_page_needs_nothing_else(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"https?:|@import|<script|<link|<iframe", text, re.I)
    elements = Elements(text)
    for tag, attrs, _ in elements.found:
        for name in ("src", "href", "xlink:href", "srcset"):
            assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, attrs)
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert "default-src 'none'" in text


def test_ids_are_unique_and_links_lead_to_them(page):
    elements = Elements(page.read_text(encoding="utf-8"))
    ids = [attrs["id"] for _, attrs, _ in elements.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for _, attrs, _ in elements.found if "href" in attrs}
    links |= set(re.findall(r"url\((#[^)]*)\)", page.read_text(encoding="utf-8")))
    assert {link[1:] for link in links if link[0] == "#"} <= set(ids)


def test_every_picture_is_told_in_words(page):
    text = page.read_text(encoding="utf-8")
    figures = re.findall(r"<figure.*?</figure>", text, re.S)
    assert len(figures) == 9
    for figure in figures:
        (alt,) = re.findall(r'role="img" aria-label="([^"]+)"', figure)
        assert len(alt) > 40
        (caption,) = re.findall(r"<figcaption>(.+?)</figcaption>", figure, re.S)
        assert len(caption) > 40


def test_colors_are_those_of_a_light_or_a_dark_page(page):
    text = page.read_text(encoding="utf-8")
    assert not [color for color in VARIABLES if color in text]
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    light, dark = (
        set(re.findall(r"(--[\w-]+):", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.S)
    )
    assert used <= light == dark
    # on paper everything is light, so dark colors are for screens only
    assert re.search(r"prefers-color-scheme: dark\) \{\s*@media screen", text)


def test_the_same_scores_make_the_same_page_from_either_format(page, dataset, tmp_path):
    again = report(page.with_name("scores.nc"), tmp_path / "again.html")
    assert again.read_bytes() == page.read_bytes()
    dataset.to_zarr(tmp_path / "scores.zarr", zarr_format=2, consolidated=False)
    other = report(tmp_path / "scores.zarr").read_text(encoding="utf-8")
    assert other.replace("scores.zarr", "scores.nc") == page.read_text(encoding="utf-8")


def test_every_figure_is_written_as_pdf(page):
    drawn = re.findall(r"<figure", page.read_text(encoding="utf-8"))
    files = list((page.parent / "pdf").iterdir())
    assert len(files) == len(drawn)
    assert all(path.read_bytes().startswith(b"%PDF") and path.suffix == ".pdf" for path in files)


def test_the_table_holds_the_means_and_marks_the_best(page, dataset):
    text = page.read_text(encoding="utf-8")
    table = text[text.index('id="scores"') :]
    elements = Elements(table[table.index("<tbody>") : table.index("</tbody>")] + "</tbody>")
    rows = re.findall(r"<tr>.*?</tr>", table[: table.index("</tbody>")], re.S)[1:]
    shown = {
        re.sub(r" ?\[.*", "", name): row
        for (_, name), row in zip(elements.all("th"), rows, strict=True)
    }
    for name in MADE["SCALARS"]:
        means = dataset[name].mean("run").sel(field="displacement").values
        (row,) = (row for said, row in shown.items() if said.startswith(NAMES[name]))
        cells = Elements(row).all("td")[1:]
        for (_, cell), mean in zip(cells, means, strict=True):
            digits, _, power = re.match(r"-?[\d.]+(e-?\d+)?", plain(cell))[0].partition("e")
            factor = 10.0 ** int(power or 0)
            last = factor * 10.0 ** -len(digits.partition(".")[2])
            assert abs(float(digits) * factor - mean) <= 0.51 * last
        best = int(np.argmin(np.abs(means - dataset[name].attrs["perfect"])))
        assert [attrs.get("class") == "best" for attrs, _ in cells] == [i == best for i in range(3)]


def test_a_score_without_a_perfect_number_has_no_best(dataset, tmp_path):
    path = tmp_path / "scores.nc"
    changed = dataset.copy()
    for name in ("bias", "wasserstein"):
        changed[name] = changed[name].assign_attrs(long_name=f"some {name}")
    del changed.wasserstein.attrs["perfect"]
    changed.to_netcdf(path)
    rows = {row.name: row for row in score_rows(read_scores(path), "displacement")}
    marked = {name: sum(cell.best for cell in row.cells) for name, row in rows.items()}
    assert (marked["bias"], marked[NAMES["wasserstein"]]) == (1, 0)
    assert (rows["bias"].perfect, rows[NAMES["wasserstein"]].perfect) == ("0", wording.DASH)
    values = [cell.value for cell in rows[NAMES["wasserstein"]].cells]
    expected = dataset.wasserstein.mean("run").sel(field="displacement").values
    np.testing.assert_allclose([float(plain(v)) for v in values], expected, 0.1)


def test_what_was_not_scored_is_said_in_its_place(dataset, tmp_path):
    gone = [
        name
        for name, values in dataset.items()
        if {"k", "kb", "bin", "example", "y"} & set(values.dims) or name == "joint_edges"
    ]
    bare = dataset.drop_vars([*gone, "seconds", "k", "kb", "example"])
    bare.attrs = {**dataset.attrs, "card": json.dumps({**CARD, "scores": {}})}
    said = words(reported(bare, tmp_path))
    for sentence in (
        "The scores hold no slices",
        "Spectra were not scored: they need periodic fields",
        "The error against scale was not scored",
        "The bispectrum was not scored",
        "no histogram of truth against emulator",
        "The emulator's card holds no losses",
        "The scores hold no times",
    ):
        assert sentence in said


def test_scores_that_are_nan_are_left_out(dataset, tmp_path):
    data = dataset.copy(deep=True)
    data["divergence_error"] = data["rmse"] * np.nan
    data["divergence_error"].attrs = {"long_name": "error of the divergence"}
    data["transfer"] *= np.nan
    text = reported(data, tmp_path)
    assert "error of the divergence" not in text
    assert "Spectra were not scored: they need" in text
    data.attrs = {**dataset.attrs, "spectra_missing": "the grid is not periodic"}
    assert "Spectra were not scored, since the grid is not periodic." in reported(data, tmp_path)


def test_names_of_users_are_text_and_nothing_else(tmp_path):
    hostile = '<script>alert("x")</script>/../$\\frac{$ & \u5bc6'
    fields = {hostile: ("<b>kg</b>$", 1), hostile.upper(): ("1", 1)}
    methods = {"emulator": 0.1, "_<i>$\\frac{$": 0.3, hostile: 0.4}
    data = made_scores(runs=2, size=8, fields=fields, methods=methods)
    data = data.assign_coords(run=["</table><img src=x>", "${"])
    data["example_run"] = ("example", ["</table><img src=x>"] * 2 + ["${"])
    card = json.loads(json.dumps(CARD).replace("AdamW", "</dd><u onclick=x>"))
    data.attrs |= {"card": json.dumps(card), "emulator": "<i>.safetensors"}
    text = reported(data, tmp_path, title="</title><h1>x", pdf=tmp_path / "pdf")
    elements = Elements(text)
    tags = {tag for tag, _, _ in elements.found}
    assert not {"script", "img", "i", "u"} & tags
    assert len(elements.all("h1")) == 1
    assert not [attrs for _, attrs, _ in elements.found if any(k.startswith("on") for k in attrs)]
    assert hostile in words(text).replace("\\frac{ $", "\\frac{$")
    assert {path.suffix for path in (tmp_path / "pdf").iterdir()} == {".pdf"}
    assert len({*(tmp_path / "pdf").iterdir()}) == text.count("<figure")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pdf", "report.html", "some.nc"]


def with_levels(dataset, levels=7):
    """Scores per level; of one field fewer than another has, the rest is NaN."""
    rng = np.random.default_rng(0)
    dims = ("method", "run", "field", "level")
    shape = (3, 4, 1, levels + 2)
    found = {}
    for name in ("level_bias", "level_mae", "level_rmse", "level_r2"):
        values = rng.uniform(0.1, 0.9, size=shape) * np.array([1, 2, 80])[:, None, None, None]
        values[..., levels:] = np.nan
        found[name] = (dims, values)
    bands = np.sort(rng.normal(size=(3, 4, 1, 5, levels + 2)), axis=3)
    bands[..., levels:] = np.nan
    found["level_bands"] = (("method", "run", "field", "band", "level"), bands)
    return dataset.assign(found).assign_coords(band=[5.0, 25.0, 50.0, 75.0, 95.0])


def test_scores_per_level_are_a_section_if_there_are_any(dataset, page, tmp_path):
    assert 'id="profiles"' not in page.read_text(encoding="utf-8")
    text = reported(with_levels(dataset), tmp_path, pdf=tmp_path / "pdf")
    assert '<a href="#profiles">' in text
    assert '<section id="profiles">' in text
    assert (tmp_path / "pdf" / "profiles-displacement.pdf").exists()
    said = words(text)
    assert "per level, the first of 7 at the top" in said
    assert "Lines are means over 4 runs; the dark band holds the middle 50 %" in said


def test_profiles_are_means_over_runs_with_the_first_level_at_the_top(dataset, tmp_path):
    data = with_levels(dataset)
    picture = profiles.profiles(Scores(data, tmp_path, CARD, {}), "displacement", "x")
    axes = picture.draw(PAPER).axes
    labels = ["bias [Mpc/h]", "MAE [Mpc/h]", "RMSE [Mpc/h]", "R²"]
    assert [axis.get_xlabel() for axis in axes] == labels
    assert axes[0].get_ylim() == (6.5, -0.5)
    for axis, name in zip(axes, ("bias", "mae", "rmse", "r2"), strict=True):
        expected = data[f"level_{name}"].values[:, :, 0, :7].mean(axis=1)
        lines = axis.lines[-3:]
        for line, values in zip(lines, expected[::-1], strict=True):
            np.testing.assert_allclose(line.get_xdata(), values)
            np.testing.assert_array_equal(line.get_ydata(), range(7))
        assert lines[-1].get_color() == tint(PAPER, 0)
    # a baseline far beyond does not press the emulator flat
    assert axes[0].get_xlim()[1] < 20
    assert axes[1].get_xscale() == "log"
    light, dark = (c.get_paths()[0].get_extents() for c in axes[0].collections)
    bands = data.level_bands.values[0, :, 0].mean(axis=0)[:, :7]
    assert (light.x0, light.x1) == (bands[0].min(), bands[4].max())
    assert (dark.x0, dark.x1) == (bands[1].min(), bands[3].max())


def test_fields_on_one_axis_are_drawn_as_lines(dataset, tmp_path):
    data = dataset.isel(y=[0])
    assert "slices-displacement" in reported(data, tmp_path)
    picture = maps.slices(Scores(data, tmp_path, CARD, {}), "displacement", 0, "x")
    values, differences = picture.draw(PAPER).axes[:2]
    truth = data["slice_truth"].values[0, 0, 0, 0]
    made = data["slice"].values[:, 0, 0, 0, 0]
    np.testing.assert_allclose(values.lines[0].get_ydata(), truth)
    np.testing.assert_allclose(differences.lines[-1].get_ydata(), made[0] - truth, atol=1e-6)


def test_of_many_runs_the_worst_are_listed(dataset, tmp_path):
    many = dataset.isel(run=np.arange(1000) % 4).assign_coords(run=[f"n{i}" for i in range(1000)])
    many["relative_l2"].values[0, 777] = 5.0
    found = Scores(many, tmp_path, CARD, {})
    rows = tables.run_rows(found, "displacement")
    assert (len(rows), rows[0].name) == (tables.SHOWN_RUNS, "n777")


def test_one_run_is_shown_once_and_without_intervals(tmp_path):
    data = made_scores(runs=1, size=8)
    text = reported(data, tmp_path)
    assert "There is one run, so there are no intervals" in text
    assert not re.findall(r'class="interval"', text)
    picture = maps.slices(Scores(data, tmp_path, CARD, {}), "displacement", 0, "x")
    images = [axis for axis in picture.draw(PAPER).axes if axis.images]
    assert len(images) == 4


# --- the first sentences -----------------------------------------------------------------------


def told(methods, *, runs=4, **more):
    data = made_scores(runs=runs, size=8, methods=methods, **more)
    return Scores(data, Path("scores.nc"), CARD, json.loads(data.attrs["data"]))


def test_the_headline_compares_with_the_best_baseline():
    found = told({"emulator": 0.1, "bad": 0.8, "good": 0.3})
    what, how_well, cost = headline.headline(found)
    errors = found.data["relative_l2"].values[:, :, 0].mean(axis=1)
    assert what == "This emulator gives displacement from linear."
    assert how_well.startswith("Over 4 held-out runs, the relative L2 error of displacement is 0.0")
    assert "than that of the best baseline, good (" in how_well
    factor = float(re.search(r"([\d.]+) \[[\d., ]+\] times smaller", how_well)[1])
    assert factor == pytest.approx(errors[2] / errors[0], rel=0.01)
    # the median of 0.8, 0.9, 1.0 and 1.1 s against 480 s
    assert (
        cost == "It takes 950 ms per run (median); the simulator takes 8.0 min, 510 times as long."
    )


def test_the_headline_does_not_flatter():
    assert "times larger than that of the best baseline, good" in " ".join(
        headline.headline(told({"emulator": 0.5, "good": 0.2}))
    )
    same = told({"emulator": 0.3, "twin": 0.3})
    own = same.data["relative_l2"].values
    own[1] = own[0][::-1]
    assert "which these runs cannot tell from that of the best baseline, twin" in " ".join(
        headline.headline(same)
    )
    alone = told({"emulator": 0.3}, simulator_seconds=0.1)
    assert "it was compared with no baseline" in " ".join(headline.headline(alone))
    assert "which is more than the simulator's 100 ms" in " ".join(headline.headline(alone))
    assert any("No baseline was scored" in note for note in headline.warnings(alone))


def test_scores_of_what_was_trained_on_are_warned_of(dataset):
    def about(record):
        return Scores(dataset, Path("s.nc"), CARD, record)

    seen = about([{"displacement": {"path": "copy.npy", "blake2b": "00bb"}}])
    assert headline.trained_on(seen) == headline.Seen(("copy.npy",), "digest")
    assert (
        "1 file of those that it is scored on, by their digest (copy.npy)"
        in (headline.warnings(seen)[0])
    )
    assert "held-out" not in " ".join(headline.headline(seen))
    new = about([{"displacement": {"path": "data/pm_00.npy", "blake2b": "09aa"}}])
    assert headline.trained_on(new) == headline.Seen((), "digest")
    assert "held-out" in " ".join(headline.headline(new))
    card = json.loads(json.dumps(CARD).replace("blake2b", "blake2b_of_64_blocks"))
    large = {"displacement": {"path": "a", "blake2b_of_64_blocks": "01bb"}}
    assert headline.trained_on(Scores(dataset, Path("s.nc"), card, large)).files == ("a",)
    # inputs may be shared by all runs; paths tell where there are no digests
    shared = about({"linear": ["data/za_00.npy"], "displacement": ["data/pm_09.npy"]})
    assert headline.trained_on(shared) == headline.Seen((), "path")
    same_input = {"path": "a", "blake2b": "00aa"}
    both = {"linear": same_input, "displacement": {"path": "b", "blake2b": "09bb"}}
    assert headline.trained_on(about(both)) == headline.Seen((), "digest")
    # a path is no proof, since a file may be read by another path
    assert "held-out" not in " ".join(headline.headline(shared))
    assert headline.warnings(shared) == headline.warnings(new)
    named = about({"displacement": ["data/./pm_01.npy", "data/pm_09.npy"]})
    assert headline.trained_on(named) == headline.Seen(("data/pm_01.npy",), "path")
    unknown = about({})
    assert headline.trained_on(unknown) == headline.Seen((), "")
    assert "is not known" in headline.warnings(unknown)[0]
    assert "held-out" not in " ".join(headline.headline(unknown))


def test_the_test_split_of_a_training_is_held_out_though_files_hold_others_too(dataset):
    files = {"train": [{"displacement": {"path": "a.nc"}}], "val": [], "test": []}
    # a year of one store trains, the next one tests
    files["test"] = [{"displacement": {"path": "a.nc"}}]
    record = {"displacement": ["a.nc"]}

    def seen(split, overlap=None, files=files):
        training = {"files": files, "recipe": {"data": {"overlap": overlap}}}
        data = dataset.assign_attrs({} if split is None else {"split": split})
        return headline.trained_on(
            Scores(data, Path("s.nc"), CARD | {"training": training}, record)
        )

    assert seen("test") == headline.Seen((), "split")
    assert seen("test").held_out
    # not if runs may be on several sides, nor for another split
    assert seen("test", True) == seen("train") == seen(None) == headline.Seen(("a.nc",), "path")
    # files that only the test has are none that the emulator knows
    alone = {"train": [{"displacement": {"path": "b.nc"}}], "test": files["test"]}
    assert seen(None, files=alone) == headline.Seen((), "path")


def test_cells_that_do_not_count_are_told(scores, dataset):
    data = dataset.copy()
    zero = dataset["rmse"] * 0
    data["not_finite"], data["masked"] = zero, zero.isel(method=0, drop=True)
    found = Scores(data, scores.path, CARD, scores.about)
    assert headline.warnings(found) == headline.warnings(scores)
    data["not_finite"], data["masked"] = zero + 0.03, zero.isel(method=0, drop=True) + 0.25
    masked, lost = headline.warnings(found)[-2:]
    assert masked == "25 % of the cells of displacement are masked in the truth, and not scored."
    assert lost.startswith("The emulator's displacement is not a number in 3.0 % of the cells")
    assert "not finite" not in {row.name for row in tables.score_rows(found, "displacement")}


def test_a_ratio_of_errors_is_of_means_over_the_same_runs():
    rng = np.random.default_rng(0)
    own = rng.uniform(0.1, 0.9, size=50)
    np.testing.assert_allclose(headline.ratio(own, 3 * own), (3, 3, 3))
    value, low, high = headline.ratio(own, own + rng.normal(scale=0.1, size=50) + 0.5)
    assert low < value < high
    assert all(np.isnan(headline.ratio(np.array([np.nan]), np.array([1.0]))))
    assert headline.ratio(np.array([0.5]), np.array([1.0]))[0] == 2


def test_the_interval_of_a_ratio_is_that_of_the_delta_method():
    rng = np.random.default_rng(0)
    own = rng.uniform(0.4, 0.6, size=400)
    other = own * 2 + rng.normal(scale=0.2, size=400)
    value, low, high = headline.ratio(own, other)
    deviation = np.std(other - value * own) / own.mean() / np.sqrt(400)
    np.testing.assert_allclose([low, high], value + 1.96 * deviation * np.array([-1, 1]), rtol=5e-3)


# --- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "perfect", "written"),
    [
        ((0.17342, 0.1672, 0.1796), 0, ("0.173", "[0.167, 0.180]")),
        ((0.17342, 0.1720, 0.1748), 0, ("0.1734", "[0.1720, 0.1748]")),
        ((0.999871, 0.99985, 0.99989), 1, ("0.99987", "[0.99985, 0.99989]")),
        ((-1.2e-6, -5.1e-6, 2.7e-6), 0, ("-1.2e-6", "[-5.1, 2.7]e-6")),
        ((123456.0, 120000.0, 126000.0), 0, ("1.23e5", "[1.20, 1.26]e5")),
        ((0.5, 0.5, 0.5), 0, ("0.500", "[0.500, 0.500]")),
        ((0.99987, np.nan, np.nan), 1, ("0.99987", "")),
        ((1.0, np.nan, np.nan), 1, ("1.00", "")),
        ((0.0, np.nan, np.nan), 0, ("0", "")),
        ((1e-17, -6e-17, 5e-17), 1, ("0.000", "[0.000, 0.000]")),
        ((0.04123, 0.0409, 0.0415), 1, ("0.041", "[0.041, 0.042]")),
        ((0.0, 0.0, 0.0), 0, ("0.000", "[0.000, 0.000]")),
        ((np.nan, np.nan, np.nan), 0, (wording.DASH, "")),
    ],
)
def test_numbers_have_the_digits_that_they_are_certain_to(value, perfect, written):
    assert tuple(map(plain, wording.score(Score(*value), perfect))) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (2e-6, "2.0 µs"),
        (0.0123, "12 ms"),
        (0.9999, "1.0 s"),
        (9.97, "10 s"),
        (75, "75 s"),
        (480, "8.0 min"),
        (7200, "2.0 h"),
        (864000, "10 days"),
        (np.nan, wording.DASH),
    ],
)
def test_durations_are_in_the_unit_that_suits_them(seconds, written):
    assert wording.duration(seconds) == written


@pytest.mark.parametrize(
    ("ratio", "written"),
    [(0.123, "0.12"), (2.345, "2.3"), (42.4, "42"), (99.7, "100"), (123456, "120\u202f000")],
)
def test_factors_have_two_digits(ratio, written):
    assert wording.times(ratio) == written


def test_a_correlation_is_followed_until_it_first_falls():
    k = np.array([1.0, 2.0, 3.0, 4.0])
    values = np.array([1.0, 0.9, 0.7, 0.95])
    assert tables.crossing(k, values, 0.8) == pytest.approx(2.5)
    assert tables.crossing(k, values, 0.5) == np.inf
    assert tables.crossing(k, values, 1.1) == 0
    assert np.isnan(tables.crossing(k, values * np.nan, 0.5))


def test_quantiles_given_the_truth_are_those_of_the_values():
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, size=400_000)
    made = 0.5 * truth + rng.normal(scale=0.1, size=truth.size)
    edges = np.linspace(-1, 1, 41)
    counts = np.histogram2d(truth, made, bins=(edges, edges))[0]
    centers = (edges[1:] + edges[:-1]) / 2
    np.testing.assert_allclose(maps.conditional(counts, edges, 0.5), 0.5 * centers, atol=0.01)
    # a deviation of 0.1, and what the slope adds within a bin; 84 % of a normal is at 0.994
    upper = maps.conditional(counts, edges, 0.84) - 0.5 * centers
    np.testing.assert_allclose(upper, 0.0994, atol=0.01)
    counts[3] = 0
    assert np.isnan(maps.conditional(counts, edges, 0.5)[3])


# --- pictures ----------------------------------------------------------------------------------


def lines(axis):
    return [np.asarray(line.get_ydata(), float) for line in axis.lines if len(line.get_xdata()) > 2]


def test_spectra_show_means_and_the_emulator_last(scores, dataset):
    top, transfer, correlation = curves.spectra(scores, "displacement", "s").draw(PAPER).axes
    at = {"field": "displacement"}
    expected = [dataset["power_truth"].sel(at).mean("run").values]
    expected += [dataset["power"].sel(at).mean("run").values[i] for i in (2, 1, 0)]
    np.testing.assert_allclose(lines(top), expected)
    for axis, name in ((transfer, "transfer"), (correlation, "correlation")):
        drawn = dataset[name].sel(at).mean("run").values[[2, 1, 0]]
        np.testing.assert_allclose(lines(axis), drawn)
    assert top.lines[-1].get_color() == tint(PAPER, 0)


def test_bands_are_the_intervals_of_the_file(scores, dataset):
    axis = curves.error_by_scale(scores, "displacement", "e").draw(PAPER).axes[0]
    vertices = axis.collections[-1].get_paths()[0].vertices
    at = {"method": "emulator", "field": "displacement"}
    for name in ("error_power_low", "error_power_high"):
        for value in dataset[name].sel(at).values:
            assert np.isclose(vertices[:, 1], value).any()
    np.testing.assert_allclose(lines(axis)[-1], dataset["error_power"].sel(at).mean("run"))


def test_a_method_has_one_color_in_all_pictures(scores):
    pictures = [
        curves.spectra(scores, "displacement", "a"),
        curves.error_by_scale(scores, "displacement", "b"),
        curves.bispectrum(scores, "displacement", "c"),
        curves.runs(scores, "displacement", "d"),
    ]
    names = ["emulator", "lpt", "linear"]
    for inks in (PAPER, SCREEN):
        for picture in pictures:
            box = picture.draw(inks).legends[0]
            shown = {
                text.get_text(): line.get_color()
                for text, line in zip(box.get_texts(), box.get_lines(), strict=True)
            }
            assert {n: shown[n] for n in names} == dict(zip(names, inks.methods, strict=False))


def test_differences_are_drawn_about_zero_on_one_scale(scores, dataset):
    figure = maps.slices(scores, "displacement", 0, "x").draw(PAPER)
    images = [axis.images[0] for axis in figure.axes if axis.images]
    truth = dataset["slice_truth"].values[:, 0, 0]
    made = dataset["slice"].values[:, :, 0, 0]
    for row in range(3):
        drawn = [np.asarray(image.get_array()) for image in images[4 * row : 4 * row + 4]]
        np.testing.assert_allclose(drawn[0], truth[row])
        np.testing.assert_allclose(drawn[1], made[0, row])
        np.testing.assert_allclose(drawn[2], made[0, row] - truth[row], atol=1e-6)
        np.testing.assert_allclose(drawn[3], made[1, row] - truth[row], atol=1e-6)
    assert len({image.get_clim() for image in [*images[2::4], *images[3::4]]}) == 1
    low, high = images[2].get_clim()
    assert low == -high
    inside = np.abs(made[0] - truth) <= high
    assert inside.mean() == pytest.approx(0.99, abs=0.01)
    assert len({image.get_clim() for image in [*images[0::4], *images[1::4]]}) == 1


def test_cells_without_a_value_are_grey_and_told(dataset):
    data = dataset.copy(deep=True)
    data["slice_truth"][..., :2, :3] = np.nan
    masked = maps.slices(Scores(data, Path("s.nc"), CARD, {}), "displacement", 0, "x")
    assert masked.caption.endswith("Grey cells have no value.")
    image = next(axis.images[0] for axis in masked.draw(PAPER).axes if axis.images)
    rgb = 255 * image.to_rgba(image.get_array())[..., :3]
    assert (rgb[:2, :3].round() == 0x99).all()
    assert not (rgb[2:].round() == 0x99).all(axis=-1).any()
    whole = maps.slices(Scores(dataset, Path("s.nc"), CARD, {}), "displacement", 0, "x")
    assert "Grey" not in whole.caption


@pytest.mark.parametrize(("levels", "expected"), [(1, [0]), (3, [0, 1, 2]), (9, [0, 4, 8])])
def test_of_many_levels_three_are_drawn(dataset, levels, expected):
    field = dataset.field.values[0]
    wide = dataset.isel(component=np.arange(levels) % dataset.sizes["component"])
    wide = wide.assign_coords(component=np.arange(levels))
    wide["slice_truth"] = xr.ones_like(wide["slice_truth"])
    found = Scores(wide, Path("scores.nc"), CARD, json.loads(dataset.attrs["data"]))
    assert maps.drawn(found, field) == expected


def test_other_components_are_those_of_the_median_run(scores, dataset):
    picture = maps.slices(scores, "displacement", 2, "x")
    assert "component 2 [Mpc/h] for the emulator's median run" in picture.caption
    images = [axis.images[0] for axis in picture.draw(PAPER).axes if axis.images]
    drawn = [np.asarray(image.get_array()) for image in images]
    np.testing.assert_allclose(drawn[0], dataset["slice_truth"].values[1, 0, 2])
    np.testing.assert_allclose(drawn[1], dataset["slice"].values[0, 1, 0, 2])


def test_images_keep_their_colors_in_a_smaller_file():
    rng = np.random.default_rng(0)
    for count in (7, 256, 1000):
        colors = rng.integers(256, size=(count, 4), dtype=np.uint8)
        pixels = colors[rng.integers(count, size=(40, 50))]
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        uri = with_palette(base64.b64encode(out.getvalue()).decode())
        small = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
        shown = np.asarray(Image.open(io.BytesIO(small)).convert("RGBA"))
        np.testing.assert_array_equal(shown, pixels)
        assert (len(small) < 0.5 * len(out.getvalue())) == (count <= 256)


def test_a_ratio_to_a_bispectrum_that_is_not_known_is_left_out(scores, dataset):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 2000))
    # a normal mean is beyond two standard errors in 4.6 % of the cases
    assert curves.significant(values).mean() == pytest.approx(0.046, abs=0.01)
    assert curves.significant(values + 1).all()
    figure = curves.bispectrum(scores, "displacement", "b").draw(PAPER)
    mean = dataset[["bispectrum", "bispectrum_truth"]].sel(field="displacement").mean("run")
    expected = (mean["bispectrum"] / mean["bispectrum_truth"]).values[::-1]
    np.testing.assert_allclose([line.get_ydata() for line in figure.axes[1].lines[:3]], expected)
    data = dataset.copy()
    signs = xr.DataArray([1.0, -1.0, 1.0, -1.0], dims="run")
    data["bispectrum_truth"] = xr.ones_like(dataset["bispectrum_truth"]) * signs
    unknown = curves.bispectrum(Scores(data, scores.path, CARD, {}), "displacement", "b")
    assert "ratios to it would mean nothing" in unknown.caption
    assert len(unknown.draw(PAPER).axes) == 1


def test_runs_are_in_the_order_of_the_emulators_errors(scores, dataset):
    axis = curves.runs(scores, "displacement", "r").draw(PAPER).axes[0]
    errors = dataset["relative_l2"].sel(field="displacement").values
    order = np.argsort(errors[0])
    drawn = [np.asarray(line.get_ydata(), float) for line in axis.lines]
    np.testing.assert_allclose(drawn, errors[::-1, order])
    names = [label.get_text() for label in axis.get_xticklabels()]
    assert names == [scores.runs[i] for i in order]


def test_losses_are_drawn_with_the_lowest_marked(scores):
    picture = next(p for p in content(scores).pictures if p.name == "learning")
    axis = picture.draw(PAPER).axes[0]
    loss = CARD["scores"]["loss"]
    drawn = [list(line.get_ydata()) for line in axis.lines]
    assert drawn == [loss["train"], loss["val"], [min(loss["val"])]]
    assert "MSELoss" in picture.caption


def test_drawing_leaves_matplotlibs_settings_alone(scores):
    before = dict(mpl.rcParams)
    render(content(scores))
    assert dict(mpl.rcParams) == before


# --- bad input ---------------------------------------------------------------------------------


def spoiled(dataset, path, change):
    data = dataset.copy()
    data.attrs = dict(dataset.attrs)
    data = change(data) or data
    data.to_netcdf(path)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.attrs.pop("format") and None, "not a scores file: it lacks the attribute"),
        (lambda d: d.drop_vars("run"), "not a scores file: it lacks run"),
        (lambda d: d.attrs.update(format=2), "scores of format 2, but this version reads 1"),
        (lambda d: d.drop_vars("relative_l2"), "lacks relative_l2 of every method"),
        (lambda d: d.isel(run=[]), "scores of no run"),
        (lambda d: d.isel(method=[1, 0]), "has 'lpt' as its first method"),
        (lambda d: d.attrs.update(card="{"), "the attribute card of .* is damaged"),
    ],
)
def test_what_is_no_scores_file_is_refused(dataset, tmp_path, change, said):
    path = spoiled(dataset, tmp_path / "bad.nc", change)
    with pytest.raises(SourceError, match=said):
        read_scores(path)


def test_missing_foreign_and_truncated_files_are_refused(dataset, tmp_path):
    with pytest.raises(SourceError, match=r"there are no scores .*none\.nc"):
        report(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("no scores")
    (tmp_path / "folder").mkdir()
    dataset.to_netcdf(tmp_path / "whole.nc")
    whole = (tmp_path / "whole.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 2])
    for name in ("text.nc", "folder", "cut.nc"):
        with pytest.raises(SourceError, match=r"cannot be read as scores.*m2m evaluate"):
            report(tmp_path / name)
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(SourceError, match="not a scores file"):
        report(tmp_path / "other.nc")
    assert not (tmp_path / "report.html").exists()


def test_nothing_is_replaced_unless_allowed(page, tmp_path, monkeypatch):
    source, out = page.with_name("scores.nc"), tmp_path / "mine.html"
    out.write_text("mine")
    with pytest.raises(SaveError, match=r"mine.html exists already.*--overwrite"):
        report(source, out)
    (tmp_path / "learning.pdf").write_text("mine")
    with pytest.raises(SaveError, match=r"learning.pdf exists already"):
        report(source, tmp_path / "new.html", pdf=tmp_path)
    with pytest.raises(SaveError, match="it is a folder"):
        report(source, tmp_path, overwrite=True)

    def full(picture, path):
        raise OSError("No space left on device")

    monkeypatch.setattr("map2map.report.page.save_pdf", full)
    with pytest.raises(SaveError, match="No space left"):
        report(source, out, pdf=tmp_path, overwrite=True)
    assert out.read_text() == (tmp_path / "learning.pdf").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"mine.html", "learning.pdf"}


# --- the command -------------------------------------------------------------------------------


def test_the_command_writes_beside_the_scores_and_says_so(dataset, tmp_path, m2m):
    (tmp_path / "run").mkdir()
    dataset.to_netcdf(tmp_path / "run/scores.nc")
    status, out, _ = m2m("report", "run/scores.nc", "--title", "A <title>")
    assert (status, out) == (0, "")
    assert "<h1>A &lt;title&gt;</h1>" in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    status, _, err = m2m("report", "run/scores.nc")
    assert status == 2
    assert err.startswith("m2m report: error: run/report.html exists already")
    assert err.count("\n") == 1
    assert m2m("report", "run/scores.nc", "--overwrite", "-o", "a.html", "--pdf", "p")[0] == 0
    assert (tmp_path / "a.html").exists()
    assert len(list((tmp_path / "p").glob("*.pdf"))) == 9


def test_bad_input_is_one_message(tmp_path, m2m):
    (tmp_path / "bad.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for name in ("none.nc", "bad.nc"):
        status, out, err = m2m("report", name)
        assert (status, out, err.count("\n")) == (2, "", 1)


def test_a_report_needs_no_torch(page, tmp_path):
    code = (
        "import sys\nfrom map2map.cli import main\n"
        f"argv = ['report', {str(page.with_name('scores.nc'))!r}, '-o', 'x.html', '--pdf', 'p']\n"
        "assert main(argv) == 0\n"
        "heavy = {'torch', 'lightning', 'jsonargparse', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # a line and nothing else, even from the libraries that write fonts
    assert done.stderr == "wrote x.html\nwrote its figures to p\n"


# --- in a browser ------------------------------------------------------------------------------

FRAMES = """<!DOCTYPE html><meta charset="utf-8"><body>
<iframe width="1200" height="900" srcdoc="{page}"></iframe>
<iframe width="390" height="800" srcdoc="{page}"></iframe>
<script>
onload = () => {{
  const seen = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement;
    const boxes = [...page.querySelectorAll("main > section figure svg")]
      .filter(svg => !svg.closest("details")).map(svg => svg.getBoundingClientRect());
    return {{
      width: root.scrollWidth, view: root.clientWidth, height: root.scrollHeight,
      pictures: boxes.map(box => [box.width, box.height]),
      loaded: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name),
      line: getComputedStyle(page.querySelector("figure svg path[style*='--method-0']")).stroke,
      best: getComputedStyle(page.querySelector("td.best b")).fontWeight,
    }};
  }});
  document.body.replaceChildren(document.createTextNode(JSON.stringify(seen)));
}};
</script>"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Runs headless Chromium: what it writes to stdout and stderr."""
    program = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if program is None:
        pytest.skip("no Chromium is installed, so no browser looks at the page")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--enable-logging=stderr"]
    options += [f"--disable-{what}" for what in ("gpu", "quic", "component-update", "sync")]
    options += ["--disable-background-networking", "--no-first-run"]

    def run(*more):
        profile = tmp_path_factory.mktemp("profile")
        return subprocess.run(
            [program, *options, f"--user-data-dir={profile}", *more],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )

    return run


def test_a_browser_shows_the_page_on_a_desk_and_on_a_phone(browser, tmp_path):
    others = {f"the baseline_of_a_long_name number {i}": 0.2 + 0.1 * i for i in range(5)}
    crowded = made_scores(runs=2, size=8, methods={"emulator": 0.1, **others})
    text = html.escape(reported(crowded, tmp_path))
    (tmp_path / "frames.html").write_text(FRAMES.format(page=text), encoding="utf-8")
    done = browser("--dump-dom", (tmp_path / "frames.html").as_uri())
    seen = json.loads(html.unescape(re.search(r"\[\{.*\}\]", done.stdout, re.S)[0]))
    for frame in seen:
        assert frame["width"] == frame["view"], "the page has to be scrolled sideways"
        assert len(frame["pictures"]) == 7
        assert all(width > 250 and height > 150 for width, height in frame["pictures"])
        assert [name for name in frame["loaded"] if not name.startswith("data:")] == []
        assert frame["line"] == "rgb(0, 114, 178)"
        assert frame["best"] == "700"
    desk, phone = seen
    assert phone["height"] > 1.2 * desk["height"]
    assert "Content Security Policy" not in done.stderr


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_paints_the_page_light_or_dark(page, browser, tmp_path, dark):
    shot = tmp_path / "shot.png"
    more = ["--blink-settings=preferredColorScheme=0"] if dark else []
    browser(*more, "--window-size=1200,3000", f"--screenshot={shot}", page.as_uri())
    pixels = mpl.image.imread(shot)[..., :3]
    assert pixels.shape == (3000, 1200, 3)
    assert (pixels[5, 5].mean() < 0.2) == dark
    # slices of many colors, letters and lines
    assert len(np.unique((255 * pixels[::3, ::3]).astype(int).reshape(-1, 3), axis=0)) > 200


def test_figures_that_were_drawn_before_are_shown_too(dataset, tmp_path):
    folder = tmp_path / "figs"
    folder.mkdir()
    for name in ("profiles-b", "box_plot-a", "profiles-a-1"):
        Image.new("RGB", (9, 5), (255, 0, 0)).save(folder / f"{name}.png")
    text = reported(dataset, tmp_path, figures=folder)
    images = [attrs for tag, attrs, _ in Elements(text).found if tag == "img"]
    assert [image["alt"] for image in images] == [
        "a: box plot, of all runs", "a-1: profiles, of all runs", "b: profiles, of all runs"
    ]  # fmt: skip
    for image in images:
        head, _, body = image["src"].partition(",")
        assert head == "data:image/png;base64"
        with Image.open(BytesIO(b64decode(body))) as shown:
            assert shown.size == (9, 5)
    assert 'href="#figures"' in text
    assert "the figures beside them" in text
    (folder / "bad-a.png").write_text("no picture")
    with pytest.raises(SourceError, match=r"bad-a.png is no PNG"):
        reported(dataset, tmp_path, figures=folder)
    with pytest.raises(SourceError, match="m2m evaluate --figures FOLDER draws some"):
        reported(dataset, tmp_path, figures=tmp_path / "none")
