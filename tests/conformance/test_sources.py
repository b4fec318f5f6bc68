"""What every source does, whatever the format. The references are numpy's own indexing."""

import pickle
import resource
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from map2map.errors import FieldError, GeometryError, SaveError, SourceError
from map2map.grids import Grid
from map2map.sources import Stored, formats, open_source
from map2map.windows import Window

NUMPY_MODES = {"periodic": "wrap", "reflect": "reflect", "edge": "edge", "zero": "constant"}
SHAPES = {1: (7,), 2: (5, 8), 3: (4, 5, 3)}
CHANNELS = 2


def write(source, path, values, **options):
    """Write one field, in two windows if it can be cut."""
    stored = Stored(path.stem, values.shape[1:], len(values), str(values.dtype))
    with source.create(path, [stored], **options) as sink:
        half = values.shape[1] // 2
        for rows in (slice(0, half), slice(half, values.shape[1])):
            start = (rows.start, *(0,) * (values.ndim - 2))
            if rows.start < rows.stop:
                window = Window(start, (rows.stop, *values.shape[2:]))
                sink.write(path.stem, window, values[:, rows])


@contextmanager
def little_room(size):
    """Files cannot grow beyond so many bytes; it fails as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def bytes_read():
    """Bytes that this process has read by system calls."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.fixture(scope="module", params=formats(), ids=lambda source: source.__name__)
def source(request):
    return request.param


@pytest.fixture(scope="module")
def runs(source, tmp_path_factory):
    """Open runs of 1, 2 and 3 axes, with the values that they hold."""
    folder = tmp_path_factory.mktemp(source.__name__)
    rng = np.random.default_rng(0)
    found = {}
    for ndim, shape in SHAPES.items():
        values = rng.normal(size=(CHANNELS, *shape)).astype("float32")
        path = folder / f"density{ndim}{source.suffixes[0]}"
        write(source, path, values)
        found[ndim] = open_source(path), values
    return found


@pytest.fixture
def path(source, tmp_path):
    return tmp_path / f"density{source.suffixes[0]}"


@st.composite
def windows(draw):
    shape = SHAPES[draw(st.sampled_from(sorted(SHAPES)))]
    start = tuple(draw(st.integers(-2 * n, 2 * n)) for n in shape)
    size = tuple(draw(st.integers(1, 2 * n)) for n in shape)
    return Window(start, tuple(a + n for a, n in zip(start, size, strict=True)))


class TestEverySource:
    @given(
        window=windows(),
        beyond=st.sampled_from(sorted(NUMPY_MODES)),
        dtype=st.sampled_from(["float32", "float64"]),
    )
    def test_every_window_equals_the_slice_of_the_whole_padded_by_numpy(
        self, runs, window, beyond, dtype
    ):
        run, values = runs[window.ndim]
        shape = values.shape[1:]
        periodic = beyond == "periodic"
        grid = Grid(shape, periodic=periodic, pad="refuse" if periodic else beyond)
        around = 4 * max(shape)
        padded = np.pad(values, [(0, 0)] + [(around, around)] * len(shape), NUMPY_MODES[beyond])
        cut = [
            slice(a + around, b + around) for a, b in zip(window.start, window.stop, strict=True)
        ]
        out = np.full((CHANNELS, *window.shape), np.nan, dtype)
        run.read(run.path.stem, window, out, grid)
        np.testing.assert_array_equal(out, padded[(slice(None), *cut)])

    @given(window=windows())
    def test_without_a_grid_all_axes_are_periodic(self, runs, window):
        run, values = runs[window.ndim]
        expected = values
        for axis, (a, b) in enumerate(zip(window.start, window.stop, strict=True)):
            expected = np.take(expected, np.arange(a, b), axis=axis + 1, mode="wrap")
        out = np.empty(expected.shape)
        run.read(run.path.stem, window, out)
        np.testing.assert_array_equal(out, expected)

    @given(window=windows())
    def test_a_window_that_wraps_is_at_most_two_copies_per_axis(self, runs, window):
        run, values = runs[window.ndim]
        sizes = [min(n, m) for n, m in zip(window.shape, values.shape[1:], strict=True)]
        stop = tuple(a + n for a, n in zip(window.start, sizes, strict=True))
        window = Window(window.start, stop)
        copies = []

        class Counting(type(run)):
            def _fill(self, stored, todo):
                copies.extend(todo)
                super()._fill(stored, todo)

        out = np.empty((CHANNELS, *window.shape))
        Counting(run.path).read(run.path.stem, window, out)
        assert 1 <= len(copies) <= 2**window.ndim
        assert sum(target.size for _, target in copies) == out.size

    def test_it_reads_back_what_was_written(self, source, path):
        values = np.random.default_rng(0).normal(size=(3, 6, 5, 4))
        write(source, path, values)
        run = source(path)
        assert list(run.fields) == ["density"]
        stored = run.stored("density")
        assert (stored.shape, stored.channels, stored.dtype) == ((6, 5, 4), 3, "float64")
        out = np.empty_like(values)
        run.read("density", Window.whole((6, 5, 4)), out)
        np.testing.assert_array_equal(out, values)

    def test_a_buffer_may_be_a_view_of_another_type_and_order(self, runs):
        run, values = runs[3]
        whole = np.zeros((3, 5, 4, CHANNELS + 1), "float16").transpose(3, 2, 1, 0)
        run.read(run.path.stem, Window.whole(SHAPES[3]), whole[1:])
        np.testing.assert_array_equal(whole[1:], values.astype("float16"))
        assert not whole[0].any()

    def test_an_axis_less_or_more_is_channels(self, source, runs):
        run, values = runs[3]
        name = run.path.stem
        flat = source(run.path, ndim=2)
        assert flat.stored(name).channels == CHANNELS * 4
        out = np.empty((CHANNELS * 4, 5, 3))
        grid = Grid((5, 3), periodic=False, pad="reflect")
        flat.read(name, Window((-2, 0), (3, 3)), out, grid)
        mirrored = np.pad(values, [(0, 0), (0, 0), (2, 0), (0, 0)], "reflect")[:, :, :5]
        np.testing.assert_array_equal(out, mirrored.reshape(-1, 5, 3))
        scalar = source(run.path, ndim=4)
        assert (scalar.stored(name).channels, scalar.stored(name).shape) == (1, values.shape)
        out = np.empty((1, 1, 4, 5, 3))
        scalar.read(name, Window((1, 0, 0, 0), (2, 4, 5, 3)), out)
        np.testing.assert_array_equal(out[0], values[1:])

    def test_a_missing_field_names_its_neighbours(self, runs):
        run, _ = runs[2]
        with pytest.raises(FieldError, match=r"no field 'densty2'.*did you mean 'density2'\?"):
            run.read("densty2", Window((0, 0), (1, 1)), np.empty((CHANNELS, 1, 1)))

    def test_a_missing_file_is_named_with_its_neighbours(self, source, runs):
        run, _ = runs[2]
        path = run.path.with_name(f"densty2{source.suffixes[0]}")
        for opened in (source, open_source):
            with pytest.raises(SourceError, match=r"no file or folder .*did you mean 'density2"):
                opened(path)

    def test_what_does_not_fit_is_refused(self, source, runs):
        run, _ = runs[2]
        name, window = run.path.stem, Window((0, 0), (2, 3))
        with pytest.raises(GeometryError, match=r"buffer of shape \(2, 2, 3\), not \(1, 2, 3\)"):
            run.read(name, window, np.empty((1, 2, 3)))
        with pytest.raises(GeometryError, match=r"\(5, 8\) cells, but the grid has \(8, 5\)"):
            run.read(name, window, np.empty((2, 2, 3)), Grid((8, 5)))
        with pytest.raises(FieldError, match=r"buffer of dtype int32"):
            run.read(name, window, np.empty((2, 2, 3), "int32"))
        with pytest.raises(SourceError, match=r"has 3 axes.*4 spatial axes were asked for"):
            source(run.path, ndim=4).stored(name)
        with pytest.raises(SourceError, match=r"4 spatial axes"):
            _ = source(run.path, ndim=4).fields
        with pytest.raises(GeometryError, match=r"at least 1 spatial axis"):
            source(run.path, ndim=0)

    def test_it_survives_pickling_and_stays_small(self, runs):
        run, values = runs[3]
        out = np.empty_like(values)
        run.read(run.path.stem, Window.whole(SHAPES[3]), out)
        pickled = pickle.dumps(run)
        assert len(pickled) < 2000
        out[:] = np.nan
        pickle.loads(pickled).read(run.path.stem, Window.whole(SHAPES[3]), out)
        np.testing.assert_array_equal(out, values)

    def test_threads_read_at_the_same_time(self, runs):
        def read(start):
            run, values = runs[2]
            out = np.empty((CHANNELS, 3, 3))
            run.read(run.path.stem, Window((start, 0), (start + 3, 3)), out)
            expected = np.take(values, np.arange(start, start + 3), 1, mode="wrap")[..., :3]
            return np.array_equal(out, expected)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(200)))

    def test_a_crop_does_not_read_the_whole_file(self, source, path):
        values = np.random.default_rng(0).random((1, 1024, 1024), "float32")
        write(source, path, values)
        run = source(path)
        assert run.fields
        out = np.empty((1, 16, 16), "float32")
        run.read("density", Window((0, 0), (16, 16)), out)
        before = bytes_read()
        tracemalloc.start()
        run.read("density", Window((-8, 500), (8, 516)), out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        expected = np.roll(values, 8, axis=1)[:, :16, 500:516]
        np.testing.assert_array_equal(out, expected)
        assert peak < values.nbytes / 10
        assert bytes_read() - before < values.nbytes / 10

    def test_a_file_that_changes_its_shape_is_noticed(self, source, path):
        write(source, path, np.ones((1, 3, 3)))
        run = source(path)
        assert run.fields
        write(source, path, np.ones((1, 1, 3)), overwrite=True)
        with pytest.raises(SourceError, match=r"now has shape .*1, 3\).*open it again"):
            run.read("density", Window.whole((3, 3)), np.empty((1, 3, 3)))

    def test_a_file_that_is_replaced_is_read_anew(self, source, path):
        out = np.empty((1, 3, 3))
        for value in (1.0, 2.0):
            write(source, path, np.full((1, 3, 3), value), overwrite=True)
            source(path).read("density", Window.whole((3, 3)), out)
            assert (out == value).all()


class TestEverySink:
    def test_a_failure_leaves_what_was_there_and_nothing_else(self, source, path):
        values = np.ones((1, 4, 4))
        write(source, path, values)
        stored = Stored("density", (4, 4))

        def fail():
            with source.create(path, [stored], overwrite=True) as sink:
                sink.write("density", Window.whole((4, 4)), 2 * values)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert [item.name for item in path.parent.iterdir()] == [path.name]
        out = np.empty((1, 4, 4))
        source(path).read("density", Window.whole((4, 4)), out)
        np.testing.assert_array_equal(out, values)

    def test_nothing_is_there_before_all_is_written(self, source, path):
        with source.create(path, [Stored("density", (4, 4))]) as sink:
            assert not path.exists()
            sink.write("density", Window.whole((4, 4)), np.ones((1, 4, 4), "float32"))
        assert [item.name for item in path.parent.iterdir()] == [path.name]

    @pytest.mark.parametrize("room", [0, 40_000, 300_000])
    def test_a_full_disk_leaves_what_was_there(self, source, path, room):
        write(source, path, np.ones((1, 4, 4)))
        values = np.random.default_rng(0).random((1, 512, 512))
        options = {"chunks": (512, 512)} if source.__name__ == "ZarrSource" else {}
        expected = pytest.raises(SaveError, match=r"cannot write .*density.*unchanged.*free space")
        with expected, little_room(room):
            write(source, path, values, overwrite=True, **options)
        assert [item.name for item in path.parent.iterdir()] == [path.name]
        out = np.empty((1, 4, 4))
        source(path).read("density", Window.whole((4, 4)), out)
        assert (out == 1).all()

    def test_it_refuses_to_overwrite_unasked(self, source, path):
        write(source, path, np.ones((1, 4, 4)))
        with pytest.raises(SaveError, match=r"exists already; .*overwrite"):
            source.create(path, [Stored("density", (4, 4))])

    def test_it_never_overwrites_a_folder_of_other_things(self, source, path):
        path.mkdir()
        (path / "thesis.tex").touch()
        with pytest.raises(SaveError, match=r"not a run of this format"):
            source.create(path, [Stored("density", (4, 4))], overwrite=True)
        assert (path / "thesis.tex").exists()

    def test_what_does_not_fit_is_refused(self, source, path):
        ones = np.ones((1, 4, 4), "float32")
        with source.create(path, [Stored("density", (4, 4))]) as sink:
            with pytest.raises(GeometryError, match=r"must lie inside the grid of \(4, 4\)"):
                sink.write("density", Window((-1, 0), (3, 4)), ones)
            with pytest.raises(GeometryError, match=r"must lie inside"):
                sink.write("density", Window((0,), (4,)), ones)
            with pytest.raises(GeometryError, match=r"shape \(1, 4, 4\), not \(4, 4\)"):
                sink.write("density", Window.whole((4, 4)), ones[0])
            with pytest.raises(FieldError, match=r"complex64 would be cut short"):
                sink.write("density", Window.whole((4, 4)), ones.astype("complex64"))
            with pytest.raises(FieldError, match=r"did you mean 'density'"):
                sink.write("dens", Window.whole((4, 4)), ones)
            sink.write("density", Window.whole((4, 4)), ones)
        with pytest.raises(SaveError, match="not open"):
            sink.write("density", Window.whole((4, 4)), ones)
        with pytest.raises(FieldError, match="dtype complex64"):
            source.create(path, [Stored("density", (4, 4), dtype="complex64")], overwrite=True)
        with pytest.raises(FieldError, match="different names"):
            source.create(path, [], overwrite=True)

    def test_a_folder_that_cannot_be_written_is_named(self, source, tmp_path):
        (tmp_path / "file").touch()
        path = tmp_path / "file" / f"density{source.suffixes[0]}"
        sink = source.create(path, [Stored("density", (4, 4))])
        with pytest.raises(SaveError, match=r"cannot write .*permissions of"), sink:
            pass


def test_every_format_is_public_and_claims_a_suffix():
    suffixes = [suffix for source in formats() for suffix in source.suffixes]
    assert len(formats()) >= 4
    assert len(set(suffixes)) == len(suffixes)
