"""The report of labels and parameters says what their scores say, and no more."""

import html
import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from map2map.errors import SaveError, SourceError
from map2map.evaluate_runs import evaluate_runs
from map2map.fields import Field, FieldSet
from map2map.inks import PAPER
from map2map.predictions import Predictions
from map2map.report import report, run_origin, run_scores, run_words, runs, wording

REPORT = runpy.run_path(str(Path(__file__).with_name("test_report.py")))
Elements, words, plain = REPORT["Elements"], REPORT["words"], REPORT["plain"]

CLASSES = {2: ("newton", "gr"), 3: ("a", "b$<i>", "c")}
NUMBER = rf"-?[\d.]+(e-?\d+)?|{wording.DASH}"


class Run:
    """A run called sim_3, of the seed 0103."""

    def __init__(self, number):
        self.number, self.told = number, {"seed": f"{100 + number:04d}"}

    def __str__(self):
        return f"sim_{self.number}"


def card(targets, digests=("aa", "bb"), only=None):
    only = only or {}
    return {
        "inputs": [{"name": "potential", "units": "1", "kind": "scalar", "channels": 1}],
        "targets": [{"name": f.name, "units": "1", "kind": f.kind} for f in targets],
        "training": {
            "files": {
                split: [{"potential": {"path": f"{split}.h5", "blake2b": digest}}]
                for split, digest in zip(("train", "val"), digests, strict=True)
            },
            "epochs": 3,
            "recipe": {
                "data": {
                    split: {"potential": {"pattern": "x.h5"} | ({"only": chosen} if chosen else {})}
                    for split in ("train", "val")
                    for chosen in [only.get(split)]
                }
            },
        },
        "scores": {
            "loss": {"train": [0.7, 0.5, 0.4], "val": [0.7, 0.6, 0.55]},
            "measures": {"accuracy/train": [0.5, 0.6, 0.8], "accuracy/val": [0.5, 0.7, 0.75]},
        },
    }


def found(targets, outputs, truth, groups, line=None, *, digest="cc", only=None):
    """Scores as `m2m evaluate` lays them out, of runs called sim_0100, sim_0101, …"""
    targets = FieldSet(tuple(targets))
    names = sorted(set(groups.tolist()))
    each = [Run(k) for k in range(max(names) + 1)]
    told = SimpleNamespace(targets=targets, groups=each)
    scores = evaluate_runs(Predictions(told, targets, outputs, groups, truth, line))
    about = {"potential": [{"path": "test.h5", "blake2b": digest}]}
    return scores.assign_attrs(
        format=1,
        card=json.dumps(card(targets, only=only)),
        data=json.dumps(about),
        versions=json.dumps({"map2map": "1"}),
    )


def labels(number=2, *, groups=12, images=6, skill=1.5, line=True, only_class=None, **more):
    rng = np.random.default_rng(number)
    group = np.repeat(np.arange(groups), images)
    label = (group % number) if only_class is None else np.full(len(group), only_class)
    logits = rng.normal(size=(len(group), 1 if number == 2 else number))
    mean_line = rng.normal(size=logits.shape)
    if number == 2:
        logits[:, 0] += skill * (2 * label - 1)
        truth = label[:, None].astype(float)
    else:
        logits[np.arange(len(group)), label] += skill
        truth = np.eye(number)[label]
    target = Field("gravity", "1", "label", 1 if number == 2 else number, classes=CLASSES[number])
    return found([target], logits, truth, group, mean_line if line else None, **more)


def parameters(error=0.1, *, groups=20, line_error=1.0, **more):
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(groups), 3)
    truth = rng.normal(size=(groups, 2))[group] * [1, 10]
    noise = rng.normal(size=truth.shape) * [error, 10 * error]
    line = rng.normal(size=truth.shape) * line_error
    fields = [Field("omega", "1", "parameter", 1), Field("h$0", "km/s", "parameter", 1)]
    return found(fields, truth + noise, truth, group, truth + line, **more)


def held(data):
    return run_scores.run_scores(Path("s.nc"), data)


def reported(data, folder, **options):
    data.to_netcdf(folder / "some.nc")
    page = report(folder / "some.nc", overwrite=True, pdf=folder / "pdf", **options)
    return page.read_text(encoding="utf-8")


CASES = {
    "two classes": (labels, 7),
    "three classes": (lambda: labels(3), 7),
    "no mean line": (lambda: labels(line=False), 6),
    "one class only": (lambda: labels(only_class=1), 7),
    "one group": (lambda: labels(groups=1), 7),
    "images are groups": (lambda: labels(images=1), 7),
    "two parameters": (parameters, 4),
    "parameters of one group": (lambda: parameters(groups=1), 4),
}


@pytest.fixture(params=CASES, scope="module")
def case(request, tmp_path_factory):
    make, figures = CASES[request.param]
    folder, data = tmp_path_factory.mktemp("runs"), make()
    return reported(data, folder), data, figures, folder


def test_every_kind_of_scores_makes_a_whole_page(case):
    text, _, figures, folder = case
    assert not re.findall(r"https?:|@import|<script|<link|<iframe", text, re.I)
    elements = Elements(text)
    ids = [attrs["id"] for _, attrs, _ in elements.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for _, attrs, _ in elements.found if "href" in attrs}
    links |= set(re.findall(r"url\((#[^)]*)\)", text))
    assert {link[1:] for link in links if link[0] == "#"} <= set(ids)
    assert not {"i", "script"} & {tag for tag, _, _ in elements.found}
    shown = re.findall(r"<figure.*?</figure>", text, re.S)
    assert len(shown) == len(list((folder / "pdf").iterdir())) == figures
    for figure in shown:
        (alt,) = re.findall(r'role="img" aria-label="([^"]+)"', figure)
        (caption,) = re.findall(r"<figcaption>(.+?)</figcaption>", figure, re.S)
        assert min(len(alt), len(caption)) > 30
    assert "nan" not in words(text).lower()


def test_colors_are_those_of_a_light_or_a_dark_page(case):
    text = case[0]
    assert not [color for color in REPORT["VARIABLES"] if color in text]
    assert "#1f77b4" not in text
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    light, dark = (
        set(re.findall(r"(--[\w-]+):", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.S)
    )
    assert used <= light == dark


def shown_table(text):
    """Rows of the table of scores: name, and the numbers of its cells."""
    part = text[text.index('id="scores"') :]
    rows = re.findall(r"<tr>.*?</tr>", part[part.index("<tbody>") : part.index("</table>")], re.S)
    found = {}
    for row in rows:
        elements = Elements(row)
        ((_, name),) = elements.all("th")
        cells = [re.match(NUMBER, plain(cell))[0] for _, cell in elements.all("td")]
        found[name] = cells[1:]
    return found


def close(text, value):
    """A number with as many digits as are written."""
    digits, _, power = text.partition("e")
    factor = 10.0 ** int(power or 0)
    return abs(float(digits) * factor - value) <= 0.51 * factor * 10.0 ** -len(
        digits.partition(".")[2]
    )


@pytest.mark.parametrize("number", [2, 3])
def test_the_table_holds_the_scores_of_the_file_in_the_order_of_its_heads(tmp_path, number):
    data = labels(number)
    text = reported(data, tmp_path)
    table = shown_table(text)
    head = Elements(re.search(r'id="scores".*?(<thead>.*?</thead>)', text, re.S)[1])
    ways = [("group", "emulator"), ("group", "mean_line")]
    ways += [("image", "emulator"), ("image", "mean_line")]
    assert [name for _, name in head.all("th")][2:] == [
        f"{method.replace('_', ' ')}per {'run' if per == 'group' else per}" for per, method in ways
    ]
    classes = CLASSES[number][1:] if number == 2 else CLASSES[number]
    for key, said, each in [
        ("accuracy", "accuracy", None),
        ("cross_entropy", "cross-entropy", None),
        *(("recall", f"recall (TPR) of {name}", name) for name in classes),
        *(("auc", f"area under ROC of {name}", name) for name in classes),
    ]:
        (row,) = (cells for name, cells in table.items() if name.startswith(said))
        at = {"class": each} if each else {}
        for (per, method), cell in zip(ways, row, strict=True):
            value = float(data[key].sel({**at, "per": per, "method": method}))
            assert close(cell, value), (key, per, method)


def test_parameters_have_a_table_each_in_their_units(tmp_path):
    data = parameters()
    text = reported(data, tmp_path)
    tables = text[text.index('id="scores"') : text.index('id="figures"')]
    assert [name for _, name in Elements(tables[tables.index("<h3") :].partition("</section>")[0])
            .all("h3")] == ["omega", "h$0 [km/s]"]  # fmt: skip
    second = tables[tables.index("h$0") :]
    cells = Elements(re.search(r"<tr><th[^>]*>RMSE.*?</tr>", second, re.S)[0]).all("td")[1:]
    expected = [
        float(data.rmse.sel({"parameter": "h$0", "per": per, "method": method}))
        for per in ("group", "sample")
        for method in ("emulator", "mean_line")
    ]
    for (_, cell), value in zip(cells, expected, strict=True):
        assert close(plain(cell).split()[0].removesuffix("(best)"), value)


def test_runs_are_listed_with_their_placeholders_the_wrong_ones_first(tmp_path):
    data = labels(skill=0.0)
    text = reported(data, tmp_path)
    part = text[text.index('id="runs"') : text.index('id="learning"')]
    elements = Elements(part[part.index("<table") : part.index("</table>")] + "</table>")
    heads = [name for _, name in elements.all("th")][:8]
    assert heads == [
        "Run", "seed", "truth", "predicted", "probability of gr", "images", "of them right",
        heads[7],
    ]  # fmt: skip
    rows = [Elements(row) for row in re.findall(r"<tr[ >](?:(?!<tr).)*?<td.*?</tr>", part, re.S)]
    listed = [[cell for _, cell in row.all("td")] for row in rows]
    mine = data.sel({"method": "emulator"})
    wrong = mine.group_predicted.values != mine.group_truth.values
    assert 0 < wrong.sum() < 12
    assert len(listed) == 12
    assert [cells[1] != cells[2] for cells in listed] == sorted(wrong, reverse=True)
    for cells in listed:
        k = int(cells[0]) - 100
        assert cells[1] == CLASSES[2][int(mine.group_truth[k])]
        assert cells[2] == CLASSES[2][int(mine.group_predicted[k])]
        assert close(cells[3], float(mine.group_probability[k, 1]))
        assert cells[4] == "6"
        assert close(cells[5].removesuffix(" %"), 100 * float(mine.group_right[k]))
    believed = [float(c[3]) if c[1] == "gr" else 1 - float(c[3]) for c in listed[wrong.sum() :]]
    assert believed == sorted(believed)


# --- the first sentences -----------------------------------------------------------------------


def test_the_headline_tells_counts_shares_and_wilsons_interval():
    data = labels(groups=40, skill=0.35)
    mine = data.sel({"method": "emulator"})
    right = int((mine.group_predicted == mine.group_truth).sum())
    interval = stats.binomtest(right, 40).proportion_ci(0.95, method="wilson")
    image = float(mine.accuracy.sel(per="image"))
    assert 0.5 < image < right / 40 < 1
    what, how_well, *_ = run_words.headline(held(data))
    assert what == "This emulator tells gravity (newton or gr) from potential."
    assert how_well == (
        f"Of 40 held-out runs (240 images), it gives {right} of 40 runs, {100 * right / 40:.1f} % "
        f"[{100 * interval.low:.1f} %, {100 * interval.high:.1f} %], and {100 * image:.1f} % of "
        f"single images the right class."
    )


def test_whether_labels_beat_the_mean_line_is_a_sign_test_of_runs():
    assert run_words.chance(9, 1) == pytest.approx(stats.binomtest(1, 10).pvalue)
    assert run_words.chance(0, 0) == run_words.chance(3, 3) == 1
    good = " ".join(run_words.headline(held(labels(groups=40, skill=3))))
    assert "The emulator beats the global-mean line over runs: right for" in good
    few = " ".join(run_words.headline(held(labels(groups=4, skill=3))))
    assert "cannot tell whether the emulator beats the global-mean line" in few
    bad = labels(groups=40, skill=-3)
    assert "does not beat the global-mean line" in " ".join(run_words.headline(held(bad)))
    alone = run_words.headline(held(labels(line=False)))
    assert alone[-1] == "It was not compared with the global-mean line."


def test_whether_parameters_beat_the_mean_line_is_said_of_each():
    data = parameters(error=0.1, line_error=1.0)
    said = run_words.headline(held(data))
    rmse = float(data.rmse.sel({"parameter": "h$0", "per": "group", "method": "emulator"}))
    assert f"the RMSE of h$0 is {wording.number(rmse)} km/s (R² 0.99" in " ".join(said)
    assert any(s.startswith("The emulator beats the global-mean line of omega: its") for s in said)
    # errors of h$0 are ten times as large: as large as the line's
    assert any(s.startswith("These runs cannot tell") and "of h$0" in s for s in said)
    worse = " ".join(run_words.headline(held(parameters(error=3.0, line_error=0.1))))
    assert "does not beat the global-mean line of omega" in worse
    alone = " ".join(run_words.headline(held(parameters(groups=1))))
    assert "R² is undefined" in alone
    assert "These runs cannot tell" in alone


def test_how_many_times_larger_the_rmse_is_has_a_paired_bootstrap_interval():
    data = parameters(error=0.1, line_error=1.0)
    (said,) = (s for s in run_words.headline(held(data)) if s.startswith("The emulator beats"))
    value, low, high = map(
        float, re.search(r"is (\S+) times as large \[(\S+), (\S+)\]", said).groups()
    )
    own, other = (
        ((part.group_output - part.group_truth) ** 2).values
        for part in (
            data.sel({"parameter": "omega", "method": m}) for m in ("emulator", "mean_line")
        )
    )
    rng = np.random.default_rng(5)
    drawn = rng.integers(len(own), size=(4000, len(own)))
    expected = np.sqrt(own[drawn].mean(axis=1) / other[drawn].mean(axis=1))
    assert value == pytest.approx(np.sqrt(own.mean() / other.mean()), rel=0.05)
    assert [low, high] == pytest.approx(np.percentile(expected, [2.5, 97.5]), rel=0.1)
    alone = " ".join(run_words.headline(held(parameters(groups=1))))
    assert "times as large (of one run there is no interval)." in alone


def test_a_table_that_is_wider_than_the_page_scrolls_and_shows_that_there_is_more():
    page = runs.render(runs.content(held(parameters())))
    table = page.index('<table class="tight">', page.index('<section id="runs">'))
    assert page[:table].rstrip().endswith('aria-label="Runs one by one">')
    (rule,) = re.findall(r"^\.scroll \{(.*?)^\}", page, re.M | re.S)
    assert "overflow-x: auto" in rule
    # covers that scroll along hide the shade where the table ends
    assert rule.count(" local") == rule.count(" scroll") == 2


def test_all_is_told_from_nearly_all():
    assert run_scores.percent(1.0) == "100 %"
    assert run_scores.percent(0.99999) == "> 99.9 %"
    assert run_scores.percent(0.00001) == "< 0.1 %"


# --- what was trained on -----------------------------------------------------------------------


def test_runs_are_held_out_by_digests_or_by_the_recipe_where_files_hold_several():
    other = run_origin.held_out(held(labels()))
    assert other.proved
    assert "digest" in other.why
    # runs 100 to 111 of a file that was also trained on
    for only, proved, said in [
        ({"train": {"seed": "0:100"}, "val": {"seed": ["0112"]}}, True, "takes none of those"),
        ({"train": {"seed": "0:104"}, "val": {"seed": "104:106"}}, False, "4 and validated on 2"),
        ({"train": {"seed": "0:100"}}, False, "nothing tells apart"),
        ({"train": {"other": "0:100"}, "val": {"seed": "0:1"}}, False, "nothing tells apart"),
        (None, False, "by their digest (test.h5), and nothing tells apart"),
    ]:
        scores = held(labels(digest="aa", only=only))
        found = run_origin.held_out(scores)
        assert found.proved == proved
        assert said in found.why + found.warning
        assert ("held-out" in " ".join(run_words.headline(scores))) == proved
        assert (found.warning in run_words.warnings(scores)) == (not proved)


def test_what_makes_scores_worth_less_is_said():
    assert any("one run" in note for note in run_words.warnings(held(labels(groups=1))))
    one = run_words.warnings(held(labels(only_class=1)))
    assert "No run is newton, so scores that need one are not known." in one
    unknown = labels().drop_attrs(deep=False).assign_attrs(labels().attrs | {"data": "{}"})
    assert "is not known" in run_words.warnings(held(unknown))[0]
    assert run_words.warnings(held(labels())) == []


# --- figures and files -------------------------------------------------------------------------


def test_learning_is_drawn_from_the_card():
    made = runs.content(held(labels()))
    (drawn,) = (p for p in made.pictures if p.name == "measures")
    with REPORT["mpl"].rc_context():
        axis = drawn.draw(PAPER).axes[0]
    assert axis.get_title() == "accuracy"
    assert {tuple(line.get_ydata()) for line in axis.lines} == {(0.5, 0.6, 0.8), (0.5, 0.7, 0.75)}
    assert "normalized fields" not in next(p for p in made.pictures if p.name == "learning").caption
    bare = labels()
    bare.attrs["card"] = "{}"
    text = words(runs.render(runs.content(held(bare))))
    assert "card holds no losses" in text
    assert "no accuracy or other measure" in text


def test_validation_of_every_second_epoch_is_a_line_of_marks_as_the_caption_says():
    data = labels()
    told = json.loads(data.attrs["card"])
    told["scores"] = {
        "loss": {"train": [0.9, 0.8, 0.7, 0.6], "val": [None, 0.8, None, 0.5]},
        "measures": {
            "accuracy/train": [0.5, 0.6, 0.7, 0.8],
            "accuracy/val": [None, 0.6, None, 0.9],
        },
    }
    data.attrs["card"] = json.dumps(told)
    made = runs.content(held(data))
    for name, ends in (("learning", (0.8, 0.5)), ("measures", (0.6, 0.9))):
        (picture,) = (p for p in made.pictures if p.name == name)
        with REPORT["mpl"].rc_context():
            lines = picture.draw(PAPER).axes[0].lines
        (solid,) = (line for line in lines if line.get_linestyle() == "-")
        assert (list(solid.get_xdata()), list(solid.get_ydata())) == ([2, 4], list(ends))
        assert solid.get_marker() == "o"
        assert [line.get_linestyle() for line in lines].count("--") == 1
        assert f"val: {ends[0]:g}00 to {ends[1]:g}00" in picture.alt, picture.alt


def test_the_same_scores_make_the_same_page(tmp_path):
    data = labels()
    assert reported(data, tmp_path) == reported(data, tmp_path)


def test_names_of_users_are_text(tmp_path):
    data = labels()
    hostile = '<script>alert("x")</script>$'
    data = data.assign_coords(group_name=("group", [hostile] * 12))
    text = reported(data, tmp_path, title="</title><h1>x")
    assert "<script" not in text
    assert html.escape(hostile, quote=False).partition('"')[0] in text
    assert len(Elements(text).all("h1")) == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: d.drop_vars("group_predicted"), "lacks group_predicted of the label"),
        (lambda d: d.isel(group=[]), "scores of no group"),
        (lambda d: d.isel(method=[]), "scores of no method"),
        (lambda d: d.isel(method=[1, 0]), "'mean_line' as its first method"),
        (lambda d: d.assign_attrs(kind="other"), "it lacks run, field"),
        (lambda d: d.assign_attrs(kind="saliency"), "it lacks run, field"),
        (lambda d: d.assign_attrs(format=2), "format 2"),
        (lambda d: d.assign_attrs(card="{"), "attribute card"),
        (lambda d: d.drop_vars("method"), "it lacks method"),
    ],
)
def test_damaged_scores_are_refused_by_what_lacks(tmp_path, spoil, said):
    with pytest.raises(SourceError, match=re.escape(said)):
        reported(spoil(labels()), tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_truncated_file_and_one_that_is_there_are_refused(tmp_path):
    reported(labels(), tmp_path)
    with pytest.raises(SaveError, match="exists already"):
        report(tmp_path / "some.nc")
    data = (tmp_path / "some.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="cannot be read as scores"):
        report(tmp_path / "cut.nc")


def test_scores_from_zarr_make_a_page_too(tmp_path):
    labels().to_zarr(tmp_path / "s.zarr", zarr_format=2, consolidated=False)
    assert "This emulator tells gravity" in report(tmp_path / "s.zarr").read_text(encoding="utf-8")
