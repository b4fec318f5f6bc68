"""Random crops with a halo from packed Zarr, beside what the same field is often stored as.

One window of (3, 104^3) at a random place of a periodic field, read by the sources into a given
buffer: from groups that `m2m pack` lays out, compressed or not; from HDF5 in chunks of one plane
(as a simulation writes it that saves plane by plane), compressed or not; from Zarr in one chunk per
slab of 32 planes; and from the memory map of an npy file. Files are in the page cache; reading is
from one thread, but Zarr decodes on several.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from map2map.grids import Grid
from map2map.layouts import amplification
from map2map.pack import Settings, pack, plan
from map2map.sources import Source, Stored, ZarrSource, open_source
from map2map.windows import Window
from timing import Claim, interleaved, report

CROP, HALO = 64, 20


def field(size: int) -> np.ndarray:
    """A field with a red spectrum, which compresses as simulations do."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((3, size, size, size), np.float32)
    k = [np.fft.fftfreq(size)] * 2 + [np.fft.rfftfreq(size)]
    norm = np.sqrt(sum(axis**2 for axis in np.meshgrid(*k, indexing="ij", sparse=True)))
    modes = np.fft.rfftn(noise, axes=(1, 2, 3)) / np.maximum(norm, 1 / size) ** 1.5
    return np.fft.irfftn(modes, (size,) * 3, axes=(1, 2, 3)).astype(np.float32)


def make(folder: Path, size: int) -> dict[str, Path]:
    """The same field in several files."""
    values = field(size)
    np.save(folder / "x.npy", values)
    made = {"npy, memory map": folder / "x.npy"}
    for name, options in {"": {}, ", gzip": {"compression": "gzip", "compression_opts": 1}}.items():
        path = folder / f"planes{len(options)}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=values, chunks=(3, 1, size, size), **options)
        made[f"HDF5, a chunk per plane{name}"] = path
    path, item = folder / "slabs.zarr", Stored("x", (size,) * 3, 3)
    with ZarrSource.create(path, [item], chunks=(32, size, size)) as sink:
        sink.write("x", Window.whole((size,) * 3), values)
    made["Zarr, a chunk per 32 planes, zstd"] = path
    for compression in ("zstd", "blosc", "none"):
        settings = Settings(CROP, HALO, compression=compression)
        todo = plan({"x": str(folder / "x.npy")}, folder / compression, settings)
        pack(todo, memory=1 << 30)
        made[f"packed, {compression}"] = todo.jobs[0].path
    layout = todo.layouts["x"]
    print(
        f"chunks {layout.chunk}, shards {layout.shard}, read amplification "
        f"{amplification(layout.shape, layout.chunk, (CROP + 2 * HALO,) * 3):.2f}"
    )
    return made


def reader(source: Source, windows: list[Window], out: np.ndarray) -> Callable[[int], None]:
    """What reads one of the windows."""
    name = next(iter(source.fields))
    grid = Grid(source.stored(name).shape)
    return lambda k: source.read(name, windows[k % len(windows)], out, grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="cells per axis of the field")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    width = CROP + 2 * HALO
    starts = rng.integers(0, options.size, (options.rounds + 2, 3)).tolist()
    windows = [Window(tuple(s), tuple(a + width for a in s)) for s in starts]
    out = np.empty((3, width, width, width), np.float32)
    with tempfile.TemporaryDirectory() as name:
        made = make(Path(name), options.size)
        readers = {what: reader(open_source(path), windows, out) for what, path in made.items()}
        reference = None
        for read in readers.values():
            read(0)
            reference = out.copy() if reference is None else reference
            np.testing.assert_array_equal(out, reference)
        seconds = interleaved(readers, options.rounds)
        sizes = {
            what: sum(f.stat().st_size for f in (path.rglob("*") if path.is_dir() else [path]))
            for what, path in made.items()
        }
    packed = seconds["packed, zstd"]
    claims = []
    for what, time in seconds.items():
        claims += [
            Claim(what, 1e3 * time, unit="ms"),
            Claim("  times the packed, zstd", time / packed),
            Claim("  on the disk", sizes[what] / 2**20, unit="MiB"),
        ]
    report(f"A window of 3 x {width}^3 of 3 x {options.size}^3, float32", claims)


if __name__ == "__main__":
    main()
