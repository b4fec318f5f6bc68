"""Statistics: compared with numpy on all values at once, where a naive sum or scale would fail."""

import json
import tracemalloc

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from map2map import quantiles as quantiles_module
from map2map import statistics as statistics_module
from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.physics.spectra import power_spectrum
from map2map.quantiles import keys_of
from map2map.sources import Axis, Stored, open_source
from map2map.statistics import (
    Histogram,
    Moments,
    Part,
    Spectrum,
    Statistics,
    Wanted,
    read_pass,
    spacing_of,
    spectrum_memory,
)

QUANTILES = (0.0, 0.01, 0.25, 0.5, 1 / 3, 0.99, 1.0)


def of_blocks(blocks, wanted, dtype):
    """Statistics of values that come block by block, and how many passes they took."""
    found = Statistics(wanted, np.dtype(dtype))
    while found.needs_pass:
        for block in blocks:
            found.add(block)
        found.settle()
    return found


@pytest.fixture
def narrow(monkeypatch):
    """Few buckets and few kept numbers, so that small data take many passes."""
    monkeypatch.setattr(quantiles_module, "BUCKETS", 3)
    monkeypatch.setattr(quantiles_module, "KEEP", 5)
    monkeypatch.setattr(statistics_module, "BLOCK", 7)


rng = np.random.default_rng(0)
HARD = {
    "large offset": 1e9 + rng.normal(size=5000),
    "large offset, float32": (1e6 + rng.normal(size=5000)).astype(np.float32),
    "heavy tails": rng.standard_cauchy(5000) ** 3,
    "constant": np.full(5000, 0.1),
    "constant, float32": np.full(5000, -0.1, np.float32),
    "both signs of zero": np.array([0.0, -0.0, 1e-300, -1e-300] * 500),
    "near the largest number": np.array([-1.7e308, 1.7e308, 0.0, 1.0] * 10),
    "subnormal": 5e-324 * rng.integers(-9, 9, 500),
    "one value": np.array([3.0]),
    "two values": np.array([3.0, -4.0]),
    "ties": rng.integers(0, 3, 5000).astype(np.float32),
    "lognormal, float32": np.exp(5 * rng.normal(size=5000)).astype(np.float32),
}


@pytest.mark.parametrize("values", HARD.values(), ids=HARD)
def test_hard_values_have_numpys_statistics(values, narrow):
    blocks = np.array_split(values, 3)
    found = of_blocks(blocks, Wanted(QUANTILES, 10), values.dtype)
    wide = values.astype(np.longdouble)
    moments = found.moments
    assert (moments.count, moments.low, moments.high) == (len(values), values.min(), values.max())
    scale = float(np.abs(wide).max())
    assert moments.mean == pytest.approx(float(wide.mean()), rel=1e-14, abs=1e-15 * scale)
    # beyond, squares are infinite or zero
    if 1e-150 < scale < 1e150:
        assert moments.std == pytest.approx(float(wide.std()), rel=1e-11, abs=1e-15 * scale)
    # sorting is another road to the same numbers
    for q, value in found.quantiles().items():
        expected = np.quantile(values.astype(np.float64) / 2, q) * 2
        assert value == pytest.approx(float(expected), rel=1e-14, abs=5e-324)
    assert found.histogram.counts.sum() == len(values)


def test_the_naive_formula_fails_where_this_does_not():
    values = HARD["large offset"]
    naive = np.mean(values**2) - np.mean(values) ** 2
    assert abs(naive - values.var()) > 0.1
    assert of_blocks([values], Wanted(), np.float64).moments.std == pytest.approx(values.std())


@given(
    values=arrays(
        np.float32,
        st.integers(1, 60),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    q=st.floats(0, 1),
    parts=st.integers(1, 4),
)
def test_quantiles_are_exact(values, q, parts):
    found = of_blocks(np.array_split(values, parts), Wanted((q,)), np.float32).quantiles()[q]
    expected = np.quantile(values.astype(np.float64), q)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-300)


@given(
    values=arrays(np.float64, 20, elements=st.floats(allow_nan=False, allow_infinity=False)),
)
def test_keys_sort_like_values(values):
    keys = keys_of(values)
    assert keys.dtype == np.uint64
    order = np.argsort(keys, kind="stable")
    assert (np.diff(values[order]) >= 0).all()
    # and differ exactly where values do
    assert ((keys[:, None] == keys) == (values[:, None] == values)).all()


def test_both_zeros_are_one_number():
    for dtype in (np.float32, np.float64):
        assert len(np.unique(keys_of(np.array([0.0, -0.0], dtype)))) == 1


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 3), (np.float64, 5)])
def test_passes_are_as_few_as_is_said(dtype, most, monkeypatch):
    # nothing is kept, so only counting narrows down
    monkeypatch.setattr(quantiles_module, "KEEP", 0)
    values = rng.standard_cauchy(3000).astype(dtype) ** 3
    found = of_blocks([values], Wanted((0.5, 0.9)), dtype)
    assert found.passes <= most
    expected = np.quantile(values.astype(np.float64), [0.5, 0.9])
    np.testing.assert_allclose(list(found.quantiles().values()), expected, rtol=1e-13)
    monkeypatch.undo()
    assert of_blocks([values], Wanted((0.5, 0.9)), dtype).passes == 2
    assert of_blocks([values], Wanted(), dtype).passes == 1


def test_many_values_take_the_passes_and_the_memory_that_are_said():
    values = (1e9 + rng.normal(size=1_000_000)).astype(np.float64)
    blocks = np.array_split(values, 10)
    expected = np.quantile(values, QUANTILES)
    tracemalloc.start()
    found = of_blocks(blocks, Wanted(QUANTILES, 50), np.float64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(list(found.quantiles().values()), expected, rtol=1e-15)
    assert found.passes == 3
    assert peak < values.nbytes * 2 + 30 * 65536 * 8


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40).map(np.array),
    cut=st.integers(0, 40),
)
def test_moments_merge_to_those_of_all_values(values, cut):
    first, second = Moments(), Moments()
    first.add(values[:cut])
    second.add(values[cut:])
    first.merge(second)
    assert first.count == len(values)
    assert first.mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-9)
    assert first.std == pytest.approx(values.std(), rel=1e-9, abs=1e-7)


def test_values_that_are_not_finite_are_counted_and_left_out():
    values = np.array([np.nan, 1.0, np.inf, 3.0, -np.inf, np.nan, np.nan])
    found = of_blocks([values, values[:1]], Wanted((0.5,), 2), np.float64)
    moments = found.moments
    assert (moments.count, moments.nan, moments.inf) == (2, 4, 2)
    assert (moments.mean, moments.std, moments.low, moments.high) == (2, 1, 1, 3)
    assert found.quantiles() == {0.5: 2.0}
    assert found.histogram.counts.tolist() == [1, 1]


def test_nothing_but_nan_has_no_statistics_and_raises_nothing():
    found = of_blocks([np.full(4, np.nan)], Wanted((0.5,), 5), np.float64)
    assert (found.moments.count, found.moments.nan, found.passes) == (0, 4, 1)
    assert np.isnan(found.moments.std)
    assert found.quantiles() == {}
    assert found.histogram is None


@given(
    values=st.lists(st.floats(-100, 100), min_size=1, max_size=50).map(np.array),
    bins=st.integers(1, 12),
    limits=st.tuples(st.floats(-50, 0), st.floats(0.5, 50)),
)
def test_histograms_are_numpys(values, bins, limits):
    ours = Histogram(bins, *limits)
    ours.add(values)
    inside = (values >= limits[0]) & (values <= limits[1])
    np.testing.assert_allclose(ours.edges, np.linspace(*limits, bins + 1), rtol=1e-13, atol=1e-13)
    # by its own edges, as a rounding of these moves a value on an edge
    expected, _ = np.histogram(values[inside], ours.edges)
    np.testing.assert_array_equal(ours.counts, expected)
    assert ours.below == (values < limits[0]).sum()
    assert ours.above == (values > limits[1]).sum()


def test_a_value_on_an_edge_is_in_the_bin_above_it():
    for _ in range(300):
        low, bins = rng.normal(), int(rng.integers(1, 60))
        found = Histogram(bins, low, low + rng.lognormal(sigma=3))
        found.add(found.edges)
        assert found.counts.tolist() == [1] * (bins - 1) + [2]


def test_the_histogram_of_a_constant_is_about_it():
    for value in (0.0, 1.0, -1e30):
        found = of_blocks([np.full(9, value)], Wanted((), 3), np.float64).histogram
        assert found.counts.tolist() == [0, 9, 0]
        assert found.edges[0] < value < found.edges[-1]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"quantiles": (0.5, 1.5, -1)}, "between 0 and 1, not 1.5, -1"),
        ({"quantiles": (np.nan,)}, "between 0 and 1, not nan"),
        ({"bins": -1}, "1 or more bins"),
        ({"bins": 2, "limits": (1, 1)}, "from low to high"),
        ({"bins": 2, "limits": (0, np.inf)}, "from low to high"),
    ],
)
def test_what_cannot_be_wanted_is_refused(wanted, message):
    with pytest.raises(RecipeError, match=message):
        Wanted(**wanted)


# --- of files ------------------------------------------------------------------------------------


def test_a_file_is_read_in_slabs_and_bytes_are_told(tmp_path, monkeypatch):
    values = rng.normal(size=(2, 40, 30))
    np.save(tmp_path / "x.npy", values)
    source = open_source(tmp_path / "x.npy")
    part = Part(source, source.stored("x"), (Statistics(Wanted((0.3,)), np.dtype(float)),))
    told = []
    again = read_pass([part], memory=2 * 8 * 2 * 30 * 7, tell=told.append)
    assert again == [part]
    assert told == [2 * 7 * 30 * 8] * 5 + [2 * 5 * 30 * 8]
    assert sum(told) == part.nbytes == values.nbytes
    while again:
        again = read_pass(again)
    assert part.into[0].quantiles()[0.3] == pytest.approx(np.quantile(values, 0.3), rel=1e-14)


def test_the_spectrum_is_the_mean_of_the_files(tmp_path):
    values = rng.normal(size=(3, 2, 8, 8))
    mean = Spectrum((0.5, 0.5), 1 << 20)
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", values[k])
        source = open_source(tmp_path / f"{k}.npy")
        mean.add(source, source.stored(str(k)))
    powers = [power_spectrum(v, 0.5, 2) for v in values]
    np.testing.assert_allclose(mean.k, powers[0][0])
    np.testing.assert_allclose(mean.power, np.mean([power for _, power in powers], axis=0))
    np.save(tmp_path / "other.npy", np.ones((2, 6, 8)))
    other = open_source(tmp_path / "other.npy")
    with pytest.raises(GeometryError, match=r"'other' .*\(6, 8\) cells, and other wavenumbers"):
        mean.add(other, other.stored("other"))
    with pytest.raises(GeometryError, match=r"spectrum of field 'other' of .* MiB are allowed"):
        Spectrum(1.0, 100).add(other, other.stored("other"))
    values[0, 0, 0, 0] = np.inf
    np.save(tmp_path / "0.npy", values[0])
    source = open_source(tmp_path / "0.npy")
    with pytest.raises(FieldError, match="values that are not finite"):
        Spectrum(1.0, 1 << 20).add(source, source.stored("0"))


@pytest.mark.parametrize("shape", [(1, 1 << 16), (3, 256, 256), (2, 40, 40, 40)])
def test_a_spectrum_takes_the_memory_that_is_said(tmp_path, shape):
    np.save(tmp_path / "x.npy", rng.random(shape, np.float32))
    source = open_source(tmp_path / "x.npy")
    stored = source.stored("x")
    needed = spectrum_memory(stored)
    tracemalloc.start()
    Spectrum(1.0, needed).add(source, stored)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert needed / 2 < peak < needed + (1 << 16)


def test_the_spacing_is_that_of_coordinates():
    even = Axis("y", 3 - 0.5 * np.arange(4))
    uneven = Axis("x", np.array([0.0, 1.0, 2.5]))
    assert spacing_of(Stored("f", (4, 4), axes=(even, even))) == (0.5, 0.5)
    assert spacing_of(Stored("f", (4, 3), axes=(even, Axis("x")))) is None
    assert spacing_of(Stored("f", (4, 3))) is None
    with pytest.raises(GeometryError, match="axis 'x' of field 'f' is not evenly spaced"):
        spacing_of(Stored("f", (4, 3), axes=(even, uneven)))


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Three files of a vector field; the last has a NaN."""
    values = rng.normal(size=(3, 2, 16, 12))
    values[2, 0, 0, 0] = np.nan
    for k in range(3):
        np.save(tmp_path / f"a_{k}.npy", values[k])
    return values


def rows_of(m2m, *words):
    status, out, err = m2m("stats", *words, "--json")
    assert status == 0, err
    return json.loads(out)


def test_values_are_pooled_over_files_of_a_name(files, m2m):
    (row,) = rows_of(m2m, "a=a_*.npy", "--quantiles", "0.1", "--bins=5")
    assert (row["field"], row["count"], row["nan"]) == ("a", 3 * 2 * 16 * 12 - 1, 1)
    assert row["files"] == ["a_0.npy", "a_1.npy", "a_2.npy"]
    for key, expected in {
        "mean": np.nanmean(files),
        "std": np.nanstd(files),
        "min": np.nanmin(files),
        "max": np.nanmax(files),
    }.items():
        assert row[key] == pytest.approx(expected)
    assert row["quantiles"]["0.1"] == pytest.approx(np.nanquantile(files, 0.1))
    counts, edges = np.histogram(files[np.isfinite(files)], 5)
    assert row["histogram"]["counts"] == counts.tolist()
    np.testing.assert_allclose(row["histogram"]["edges"], edges)


def test_files_and_channels_are_told_apart_when_asked(files, m2m):
    rows = rows_of(m2m, "a=a_*.npy", "--per-file", "--per-channel")
    assert [(row["files"], row["channel"]) for row in rows] == [
        ([f"a_{k}.npy"], c) for k in range(3) for c in range(2)
    ]
    means = [row["mean"] for row in rows]
    np.testing.assert_allclose(means, np.nanmean(files, axis=(2, 3)).ravel())
    rows = rows_of(m2m, "a=a_*.npy", "--per-channel")
    np.testing.assert_allclose([r["std"] for r in rows], np.nanstd(files, axis=(0, 2, 3)))
    # files without a name are fields of their own
    assert [row["field"] for row in rows_of(m2m, "a_0.npy", "a_1.npy")] == ["a_0", "a_1"]


def test_the_fields_of_a_file_have_units_and_a_spectrum_in_them(tmp_path, m2m):
    values = rng.normal(size=(2, 16, 16)).astype(np.float32)
    with netCDF4.Dataset(tmp_path / "f.nc", "w") as file:
        for name in ("y", "x"):
            file.createDimension(name, 16)
            file.createVariable(name, "f8", (name,))[:] = 2.5 * np.arange(16)
            file[name].units = "km"
        for name, value in zip("uv", values, strict=True):
            file.createVariable(name, "f4", ("y", "x"))[:] = value
            file[name].units = "m/s"
    rows = rows_of(m2m, "f.nc", "--spectrum")
    assert [(row["field"], row["units"]) for row in rows] == [("u", "m/s"), ("v", "m/s")]
    k, power = power_spectrum(values[1], 2.5)
    np.testing.assert_allclose(rows[1]["spectrum"]["k"], k)
    np.testing.assert_allclose(rows[1]["spectrum"]["power"], power)
    assert rows[1]["spectrum"]["length"] == "km"
    (row,) = rows_of(m2m, "w=f.nc::v", "--spectrum", "--spacing=5")
    np.testing.assert_allclose(row["spectrum"]["k"], k / 2)
    assert row["field"] == "w"
    (row,) = rows_of(m2m, "f.nc::v", "--spectrum", "--spacing", "2.5", "2.5")
    np.testing.assert_allclose(row["spectrum"]["power"], power)


def test_a_spectrum_that_cannot_be_is_left_out_with_a_word(files, m2m, caplog):
    (row,) = rows_of(m2m, "a=a_*.npy", "--spectrum")
    assert "spectrum" not in row
    assert row["nan"] == 1
    assert "no spectrum: field 'a_2' of a_2.npy has values that are not finite" in caplog.text


@pytest.mark.parametrize("name", ["s.json", "s.nc"])
def test_all_is_saved(files, m2m, tmp_path, name):
    np.save(tmp_path / "b.npy", np.full((1, 8), np.nan))
    words = ["a=a_0.npy", "b=b.npy", "--quantiles", "0.5", "--bins=4", "--spectrum"]
    assert m2m("stats", *words, "-o", name)[0] == 0
    if name == "s.json":
        first, second = json.loads((tmp_path / name).read_text())
        median, mean, total = first["quantiles"]["0.5"], first["mean"], first["histogram"]["counts"]
        assert (second["mean"], second["nan"], "histogram" in second) == (None, 8, False)
        power = first["spectrum"]["power"]
    else:
        with xr.open_dataset(tmp_path / name) as found:
            first = found.isel(row=0)
            assert found["field"].values.tolist() == ["a", "b"]
            median, mean, total = first["quantiles"].item(), first["mean"].item(), first.histogram
            assert np.isnan(found["mean"].values[1])
            assert found["nan"].values.tolist() == [0, 8]
            power = first["power"].values
    np.testing.assert_allclose([median, mean], [np.median(files[0]), files[0].mean()])
    assert np.sum(total) == files[0].size
    np.testing.assert_allclose(power, power_spectrum(files[0], 1.0, 2)[1])


def test_the_table_shows_what_was_asked(files, m2m):
    status, out, _ = m2m("stats", "a=a_*.npy", "--quantiles", "--bins=0")
    lines = [line.split() for line in out.splitlines()]
    assert status == 0
    assert lines[0] == ["field", "units", "values", "NaN", "inf", "min", "max", "mean", "std"]
    assert lines[1][:5] == ["a", "-", "1151", "1", "0"]
    assert float(lines[1][-1]) == pytest.approx(np.nanstd(files), rel=1e-4)
    _, out, _ = m2m("stats", "a=a_*.npy", "--per-file", "--per-channel", "--quantiles", "0.5")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:3] == ["field", "file", "channel"]
    assert lines[0][-1] == "q0.5"
    assert lines[2][:3] == ["a", "a_0.npy", "1"]
    assert len(lines) == 7


@pytest.mark.parametrize(
    "words",
    [
        ["a=a_0.npy", "--spectrum"],
        ["a=a_0.npy", "--per-channel", "--spectrum"],
        ["a=a_*.npy", "--per-file"],
        ["a=a_0.npy", "--bins=0"],
        ["l=line.npy", "--spectrum"],
    ],
)
def test_figures_are_drawn(files, m2m, tmp_path, words):
    np.save(tmp_path / "line.npy", np.ones((1, 16)))
    assert m2m("stats", *words, "--plot", "s.png")[0] == 0
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    # nothing half-written is left beside it
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["b_*.npy"], "no file matches 'b_*.npy'"),
        (["a_0.npy::b"], "no field 'b'"),
        (["a_0.npy", "-o", "s.csv"], "its name ends with one of .json, .nc"),
        (["a_0.npy", "--plot", "s.gif"], "its name ends with one of .png"),
        (["a_0.npy", "-o", "there.json"], "there.json exists already; choose another name"),
        (["a_0.npy", "--quantiles", "2"], "quantiles lie between 0 and 1, not 2"),
        (["a_0.npy", "--bins=-1"], "1 or more bins"),
        (["a_0.npy", "--range", "1", "0"], "from low to high"),
        (
            ["a_0.npy", "--spectrum", "--memory=1KiB"],
            "the spectrum of field 'a_0' of a_0.npy needs",
        ),
        (["a_0.npy", "--spectrum", "--spacing", "1", "1", "1"], "--spacing takes 1 or 2 positive"),
        (["a_0.npy", "--spectrum", "--spacing=0"], "--spacing takes 1 or 2 positive"),
        (
            ["a=a_0.npy", "a=c.npy", "--per-channel"],
            "channels of field 'a' are 2 in a_0.npy, but 1",
        ),
        (["cut.npy"], "cut.npy is truncated"),
    ],
)
def test_bad_input_is_refused(files, m2m, tmp_path, words, message):
    np.save(tmp_path / "c.npy", np.ones((1, 4, 4)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "c.npy").read_bytes()[:-3])
    (tmp_path / "there.json").write_text("{}")
    status, out, err = m2m("stats", *words)
    assert (status, out) == (2, "")
    assert message in err
    assert (tmp_path / "there.json").read_text() == "{}"


def test_units_that_differ_are_not_pooled(tmp_path, m2m):
    for k, units in enumerate(("K", "degC")):
        with netCDF4.Dataset(tmp_path / f"t_{k}.nc", "w") as file:
            file.createDimension("x", 4)
            file.createVariable("t", "f4", ("x",))[:] = np.arange(4)
            file["t"].units = units
    for more in ([], ["--per-channel"]):
        status, _, err = m2m("stats", "t_*.nc", *more)
        assert status == 2
        assert "units of field 't' are K in t_0.nc, but degC in t_1.nc" in err
    assert [row["units"] for row in rows_of(m2m, "t_*.nc", "--per-file")] == ["K", "degC"]


def test_a_file_is_replaced_when_asked(files, m2m, tmp_path):
    (tmp_path / "s.json").write_text("{}")
    assert m2m("stats", "a_0.npy", "-o", "s.json", "--overwrite")[0] == 0
    assert json.loads((tmp_path / "s.json").read_text())[0]["field"] == "a_0"
