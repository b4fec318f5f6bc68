"""Applying map2map's 3-D U-Net to a periodic 128³ field, against the classic way.

The classic way: fixed tiles with a halo of 20, float32, contiguous, each read, computed and written
in turn, in a process of its own. All its tiles cost the same, so some are timed for all. Ours: the
tiles that the memory allows, channels-last, in float32 and in bf16, from file to file. Times of the
network alone: the same tiles, already in memory and normalized. Costs per cell are wall and
processor time.

With ``--memory-test``: a 768³ field, with little memory and with much.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from map2map.apply import apply_files
from map2map.arrays import Settings, make_engine, make_tiling
from map2map.emulator import Emulator
from map2map.engine import Running
from map2map.fields import Field, FieldSet
from map2map.grids import Domain, Grid
from map2map.jobs import Job
from map2map.memory import keep_freed_memory
from map2map.models import ConvNet, UNet
from map2map.norms import Standardize
from map2map.runs import Files
from timing import Claim, report, run_child

HALO = 20


def make(folder: Path, size: int) -> Emulator:
    """The emulator, with statistics of batches as after training, and a field."""
    torch.manual_seed(0)
    model = UNet(3, 3, ndim=3)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5) if "var" in name else buffer.normal_(0, 0.1)
    fields = (FieldSet((Field(n, "Mpc/h", "vector", 3),)) for n in ("linear", "displacement"))
    norms = {n: Standardize([0.0] * 3, [5.0] * 3) for n in ("linear", "displacement")}
    emulator = Emulator(*fields, norms, model, Domain(3)).eval()
    emulator.save(folder / "emulator.safetensors")
    rng = np.random.default_rng(0)
    np.save(folder / "linear.npy", 5 * rng.standard_normal((3, size, size, size), np.float32))
    return emulator


def clock() -> np.ndarray:
    """Wall and processor time [s], when the device has done what was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


@torch.inference_mode()
def classic(emulator: Emulator, folder: Path, tile: int, count: int) -> np.ndarray:
    """Cost of fixed tiles, of which so many are computed."""
    field = np.load(folder / "linear.npy", mmap_mode="r")
    out = np.lib.format.open_memmap(folder / "classic.npy", "w+", np.float32, field.shape)
    begin = clock()
    for number in range(-1, count):
        if number == 0:  # the first warms up
            begin = clock()
        start = (tile * number % field.shape[1], 0, 0)
        x = field
        for axis, a in enumerate(start, 1):
            x = x.take(range(a - HALO, a + tile + HALO), axis, mode="wrap")
        y = emulator(torch.from_numpy(np.ascontiguousarray(x))[None])[0].numpy()
        out[(slice(None), *(slice(a, a + tile) for a in start))] = y
    return (clock() - begin) / (count * tile**3)


@torch.inference_mode()
def network_alone(
    emulator: Emulator, running: Running, tile: tuple[int, ...], size: int
) -> np.ndarray:
    """Cost of the network on the same tiles, normalized and in memory."""
    settings = Settings(running, tile=tile)
    engine = make_engine(emulator, settings)
    tiling = make_tiling(engine, emulator, Grid((size,) * 3), settings)
    cost = np.zeros(2)
    mixed = running.precision == "bf16"
    for i in range(len(tiling)):
        shape = tiling[i].read.shape
        x = torch.randn(1, 3, *shape, device=engine.device).contiguous(memory_format=engine.format)
        network = engine.module_for(tiling[i].rings).model
        start = clock()
        with torch.autocast(engine.device.type, torch.bfloat16, enabled=mixed):
            network(x)
        cost += clock() - start
    return cost / size**3


def ours(folder: Path, running: Running, memory: str | None) -> tuple[np.ndarray, tuple[int, ...]]:
    """Cost from file to file, and the tile."""
    job = Job(
        folder / "emulator.safetensors",
        {"linear": Files(str(folder / "linear.npy"))},
        folder / f"ours_{running.precision}.npy",
        settings=Settings(running, memory=memory),
        overwrite=True,
    )
    start = clock()
    made = apply_files(job)
    return (clock() - start) / made.cells, made.tile


def deviation(folder: Path, emulator: Emulator, name: str) -> tuple[float, float]:
    """Largest and rms deviation from float64 in a corner, relative to the output's rms."""
    field, n = np.load(folder / "linear.npy"), 16
    x = field
    for axis in range(3):
        x = x.take(range(-HALO, n + HALO), axis + 1, mode="wrap")
    with torch.no_grad():
        exact = emulator.double()(torch.from_numpy(x).double()[None])[0].numpy()
    emulator.float()
    error = np.load(folder / name, mmap_mode="r")[:, :n, :n, :n] - exact
    rms = np.sqrt((exact**2).mean())
    return float(np.abs(error).max() / rms), float(np.sqrt((error**2).mean()) / rms)


def speed(size: int, rounds: int, memory: str | None) -> None:
    """Classic tiles, ours, and the network alone take turns."""
    ways = {
        "fp32": Running(fold_batch_norm=True, winograd=True),
        "bf16": Running("bf16", fold_batch_norm=True),
    }
    costs: dict[str, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        emulator = make(folder, size)
        # memory that is touched for the first time, and libraries that are loaded
        ours(folder, ways["fp32"], memory)
        for _ in range(rounds):
            for tile, count in ((32, 4), (64, 1)):
                # in a process of its own, whose memory is managed as PyTorch finds it
                child = run_child([__file__, "--classic", str(tile), str(count), name])
                found = np.array([float(word) for word in child.output.split()[-2:]])
                costs.setdefault(f"classic {tile}", []).append(found)
            for precision, running in ways.items():
                found, tiles = ours(folder, running, memory)
                costs.setdefault(precision, []).append(found)
                alone = network_alone(emulator, running, tiles, size)
                costs.setdefault(f"{precision} alone", []).append(alone)
        off = {p: deviation(folder, emulator, f"ours_{p}.npy") for p in ways}

    def ratio(a: str, b: str, which: int = 0) -> float:
        return median(x[which] / y[which] for x, y in zip(costs[a], costs[b], strict=True))

    claims = [
        Claim(key, 1e-3 / median(c[0] for c in cost), unit="thousand cells/s")
        for key, cost in costs.items()
    ]
    for precision, limits in (("fp32", (2.5, 6)), ("bf16", (4, 10))):
        for tile, limit in zip((64, 32), limits, strict=True):
            pair = f"classic {tile}", precision
            claims.append(
                Claim(f"{precision} against tiles of {tile}", ratio(*pair), limit, at_least=True)
            )
            claims.append(Claim("  in processor time", ratio(*pair, 1)))
    for precision in ways:
        pair = precision, f"{precision} alone"
        claims.append(Claim(f"{precision}: wall time / network alone", ratio(*pair), 1.15))
        claims.append(Claim("  in processor time", ratio(*pair, 1)))
    claims.append(Claim("fp32: largest deviation from fp64 / rms", off["fp32"][0], 1e-5))
    claims.append(Claim("bf16: rms deviation / rms", off["bf16"][1]))
    report(f"Applying map2map's 3-D U-Net to {size}³ cells, on the CPU, tiles of {tiles}", claims)


def gpu(size: int) -> None:
    """The same network on a GPU: the rate, and the share of the time that it computes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        emulator = make(folder, size).cuda()
        running = Running("bf16", fold_batch_norm=True, device="cuda")
        ours(folder, running, None)
        cost, tile = ours(folder, running, None)
        network_alone(emulator, running, tile, size)
        alone = network_alone(emulator, running, tile, size)
    report(
        f"Applying map2map's 3-D U-Net to {size}³ cells, on a GPU, tiles of {tile}",
        [
            Claim("rate", 1e-6 / cost[0], unit="million cells/s"),
            Claim(
                "share of the time that the GPU computes", alone[0] / cost[0], 0.95, at_least=True
            ),
        ],
    )


def memory_test(size: int) -> None:
    """A small network on a large field."""
    one = (FieldSet((Field(n, "1", "scalar", 1),)) for n in ("a", "b"))
    torch.manual_seed(0)
    emulator = Emulator(*one, {}, ConvNet(1, 1, ndim=3, width=8, depth=3), Domain(3))
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        emulator.save(folder / "emulator.safetensors")
        shape = (1, size, size, size)
        field = np.lib.format.open_memmap(folder / "a.npy", "w+", np.float32, shape)
        rng = np.random.default_rng(0)
        for i in range(size):
            field[:, i] = rng.standard_normal((1, size, size), np.float32)
        del field
        for memory in ("1GiB", "8GiB"):
            out = str(folder / f"{memory}.npy")
            done = run_child(
                ["-m", "map2map.cli", "apply", str(folder / "emulator.safetensors"),
                 f"a={folder}/a.npy", "-o", out, "--memory", memory]
            )  # fmt: skip
            if done.status:
                raise SystemExit(done.output)
            peaks[memory] = done.peak / 1024
        few, many = (np.load(folder / f"{m}.npy", mmap_mode="r") for m in peaks)
        off = max(float(np.abs(few[:, i] - many[:, i]).max()) for i in range(size))
    report(
        f"A {size}³ field with little memory",
        [
            Claim("peak with --memory 1GiB", peaks["1GiB"], 1.6, unit="GiB"),
            Claim("peak with --memory 8GiB", peaks["8GiB"], unit="GiB"),
            Claim("largest difference of the results", off, 1e-6),
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128, help="cells per axis")
    parser.add_argument("--rounds", type=int, default=1, help="how often all take turns")
    parser.add_argument("--memory", help="what tiles may take")
    parser.add_argument("--memory-test", action="store_true", help="the 768³ field as well")
    parser.add_argument("--classic", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.classic is not None:
        tile, count, folder = options.classic
        emulator = Emulator.load(Path(folder) / "emulator.safetensors")
        print(*classic(emulator, Path(folder), int(tile), int(count)))
        return
    logging.basicConfig(level=logging.WARNING)
    keep_freed_memory()
    speed(options.size, options.rounds, options.memory)
    if torch.cuda.is_available():
        gpu(512)
    else:
        print("Applying on a GPU: not measured, there is none here\n")
    if options.memory_test:
        memory_test(768)


if __name__ == "__main__":
    main()
