"""Scores of random fields, counted here with numpy alone, as `m2m evaluate` lays them out."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

SPACING = 2.0

CARD: dict[str, Any] = {
    "format": 1,
    "inputs": [{"name": "linear", "units": "Mpc/h", "kind": "vector", "channels": 3}],
    "targets": [{"name": "displacement", "units": "Mpc/h", "kind": "vector", "channels": 3}],
    "norms": {
        "linear": {"class_path": "map2map.norms.Displacement", "init_args": {"z": 0.0, "std": 6.0}}
    },
    "model": {
        "class_path": "map2map.models.UNet",
        "init_args": {"in_chan": 3, "out_chan": 3, "width": 8, "bypass": None, "batch_norm": False},
    },
    "footprint": {"margin": 8, "multiple": 2, "scale": 1, "whole": None},
    "grid": {"ndim": 3, "periodic": True, "pad": "refuse", "spacing": SPACING},
    "training": {
        "files": {
            split: [
                {
                    "linear": {"path": f"data/za_{run}.npy", "bytes": 8, "blake2b": f"{run}aa"},
                    "displacement": {
                        "path": f"data/pm_{run}.npy",
                        "bytes": 8,
                        "blake2b": f"{run}bb",
                    },
                }
            ]
            for split, run in (("train", "00"), ("val", "01"))
        },
        "seed": 42,
        "epochs": 6,
        "optimizer_steps": 24,
        "recipe": {
            "model": {
                "loss": {"class_path": "torch.nn.MSELoss"},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.002}},
            }
        },
    },
    "scores": {
        "loss": {
            "train": [0.045, 0.039, 0.032, 0.027, 0.025, 0.024],
            "val": [0.042, 0.034, 0.029, 0.0262, 0.0249, 0.0251],
        }
    },
    "versions": {"map2map": "1.0.0.dev0", "torch": "2.13.0"},
}


def gaussian(rng: np.random.Generator, size: int, components: int) -> np.ndarray:
    """A smooth random field, shape (component, size, size, size)."""
    modes = np.fft.rfftn(rng.normal(size=(components, *[size] * 3)), axes=(1, 2, 3))
    one = np.fft.fftfreq(size)
    k = np.sqrt(one[:, None, None] ** 2 + one[:, None] ** 2 + np.fft.rfftfreq(size) ** 2)
    modes *= np.where(k > 0, np.maximum(k, 1e-9) ** -1.2, 0)
    field = np.fft.irfftn(modes, s=[size] * 3, axes=(1, 2, 3))
    return 5 * field / field.std()


def smoothed(field: np.ndarray, cells: float) -> np.ndarray:
    """Convolved with a Gaussian of so many cells."""
    size = field.shape[-1]
    one = (2 * np.pi * np.fft.fftfreq(size) * cells) ** 2 / 2
    half = (2 * np.pi * np.fft.rfftfreq(size) * cells) ** 2 / 2
    window = np.exp(-(one[:, None, None] + one[:, None] + half))
    modes = np.fft.rfftn(field, axes=(1, 2, 3)) * window
    return np.fft.irfftn(modes, s=[size] * 3, axes=(1, 2, 3))


def shells(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean wavenumber and cross power in shells one fundamental mode wide, over all modes."""
    size = a.shape[-1]
    n = np.fft.fftfreq(size) * size
    radius = np.sqrt(n[:, None, None] ** 2 + n[:, None] ** 2 + n**2)
    cross = (np.fft.fftn(a, axes=(1, 2, 3)) * np.conj(np.fft.fftn(b, axes=(1, 2, 3)))).real.sum(0)
    shell = np.ceil(radius - 1e-9).astype(int)
    pairs = [(radius[shell == i].mean(), cross[shell == i].mean()) for i in range(1, size // 2 + 1)]
    k, power = np.array(pairs).T
    return k * 2 * np.pi / (size * SPACING), power * SPACING**3 / size**3


def bootstrap(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over axis 1 (run), and its 95 % interval."""
    mean = values.mean(axis=1)
    runs = values.shape[1]
    if runs == 1:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    chosen = np.random.default_rng(1).integers(runs, size=(500, runs))
    low, high = np.percentile(values[:, chosen].mean(axis=2), [2.5, 97.5], axis=1)
    return mean, low, high


def predictions(
    rng: np.random.Generator, truth: np.ndarray, methods: Sequence[str], errors: Mapping[str, float]
) -> np.ndarray:
    """What methods make of a truth: smoothed and with noise, as much as each is wrong."""
    made = []
    for method in methods:
        wrong = errors[method]
        noise = rng.normal(scale=wrong * truth.std(), size=truth.shape)
        made.append(smoothed(truth, 1.5 * wrong) + smoothed(noise, 0.5))
    return np.stack(made)


def made_scores(
    *,
    runs: int = 4,
    size: int = 12,
    methods: Mapping[str, float] | None = None,
    fields: Mapping[str, tuple[str, int]] | None = None,
    simulator_seconds: float | None = 480.0,
) -> xr.Dataset:
    """Scores of so many runs.

    Args:
        runs: How many.
        size: Cells per axis.
        methods: How wrong each method is; the emulator first.
        fields: Units and components of each field.
        simulator_seconds: What the simulator takes.
    """
    methods = methods or {"emulator": 0.1, "lpt": 0.3, "linear": 0.6}
    fields = fields or {"displacement": ("Mpc/h", 3)}
    rng = np.random.default_rng(0)
    names = list(methods)
    found: dict[str, list[Any]] = {}
    truths, mades = [], []
    for _ in range(runs):
        truths.append([gaussian(rng, size, components) for _, components in fields.values()])
        mades.append([predictions(rng, truth, names, methods) for truth in truths[-1]])
    for each in SCALARS:
        values = [
            [SCALARS[each](m, t) for t, m in zip(*pair, strict=True)]
            for pair in zip(truths, mades, strict=True)
        ]
        found[each] = np.array(values).transpose(2, 0, 1)  # (method, run, field)
    data: dict[str, Any] = {}
    for name, values in found.items():
        attrs = {
            "units": "1" if name in {"relative_l2", "r2"} else "field",
            "long_name": LONG[name],
            "perfect": 1.0 if name == "r2" else 0.0,
        }
        data[name] = (("method", "run", "field"), values, attrs)
        for part, part_values in zip(("mean", "low", "high"), bootstrap(values), strict=True):
            data[f"{name}_{part}"] = (("method", "field"), part_values, attrs)
    wrong = np.array(
        [
            [
                np.percentile(np.abs(m - t), [50, 90, 99], axis=(1, 2, 3, 4))
                for t, m in zip(*pair, strict=True)
            ]
            for pair in zip(truths, mades, strict=True)
        ]
    )
    data["error_percentile"] = (
        ("method", "run", "field", "percentile"),
        wrong.transpose(3, 0, 1, 2),
        {"units": "field", "long_name": "percentiles of the absolute error", "perfect": 0.0},
    )
    k = _spectra(data, truths, mades)
    _examples(data, found["relative_l2"], truths, mades)
    _joint(data, truths, mades)
    data["seconds"] = (("run",), 0.8 + 0.1 * np.arange(runs), {"units": "s"})
    attrs = {
        "format": 1,
        "card": json.dumps(CARD),
        "emulator": "out/emulator.safetensors",
        "emulator_digest": f"sha256:{'e' * 64}",
        "data": json.dumps(
            {"displacement": [{"path": "data/pm_09.npy", "bytes": 8, "blake2b": "09bb"}]}
        ),
        "versions": json.dumps({"map2map": "1.0.0.dev0"}),
        "spacing": SPACING,
        "periodic": 1,
    }
    if simulator_seconds is not None:
        attrs["simulator_seconds"] = simulator_seconds
    coords = {
        "method": names,
        "run": [f"run_{i:02d}" for i in range(runs)],
        "field": list(fields),
        "units": ("field", [units for units, _ in fields.values()]),
        "kind": ("field", ["vector" if n > 1 else "scalar" for _, n in fields.values()]),
        "k": ("k", k, {"units": "rad / (Mpc/h)"}),
        "kb": ("kb", k[::2], {"units": "rad / (Mpc/h)"}),
        "percentile": [50.0, 90.0, 99.0],
        "component": np.arange(max(n for _, n in fields.values())),
        "example": ["best", "median", "worst"],
    }
    return xr.Dataset(data, coords, attrs)


def _spectra(data: dict[str, Any], truths: list[Any], mades: list[Any]) -> np.ndarray:
    shape = (len(mades[0][0]), len(truths), len(truths[0]))
    k, _ = shells(truths[0][0], truths[0][0])
    truth = np.zeros((*shape[1:], len(k)))
    power, cross = np.zeros((*shape, len(k))), np.zeros((*shape, len(k)))
    for run in range(shape[1]):
        for field in range(shape[2]):
            own = truths[run][field]
            truth[run, field] = shells(own, own)[1]
            for method, made in enumerate(mades[run][field]):
                power[method, run, field] = shells(made, made)[1]
                cross[method, run, field] = shells(made, own)[1]
    correlation = cross / np.sqrt(power * truth)
    cube = {"units": "field^2 L^3", "long_name": "power spectrum"}
    curves = {
        "transfer": (np.sqrt(power / truth), "transfer function", 1.0),
        "correlation": (correlation, "correlation coefficient r", 1.0),
        "error_power": (1 - correlation**2, "1 - r^2", 0.0),
    }
    dims = ("method", "run", "field", "k")
    data["power_truth"] = (dims[1:], truth, cube)
    data["power"] = (dims, power, cube)
    for name, (values, long_name, perfect) in curves.items():
        attrs = {"units": "1", "long_name": long_name, "perfect": perfect}
        data[name] = (dims, values, attrs)
        for part, part_values in zip(("mean", "low", "high"), bootstrap(values), strict=True):
            data[f"{name}_{part}"] = (("method", "field", "k"), part_values, attrs)
    # of the shape of a bispectrum; its numbers are the power's, since the page only draws them
    attrs = {"units": "field^3 L^6", "long_name": "equilateral bispectrum"}
    data["bispectrum_truth"] = (("run", "field", "kb"), truth[..., ::2] ** 2, attrs)
    data["bispectrum"] = (("method", "run", "field", "kb"), power[..., ::2] ** 2, attrs)
    return k


def _examples(data: dict[str, Any], errors: np.ndarray, truths: list[Any], mades: list[Any]):
    rank = np.argsort(errors[0, :, 0])
    chosen = [rank[0], rank[len(rank) // 2], rank[-1]]
    size = truths[0][0].shape[-1]
    most = max(len(truth) for truth in truths[0])
    shape = (len(truths[0]), most, size, size)
    truth = np.full((3, *shape), np.nan, np.float32)
    made = np.full((len(mades[0][0]), 3, *shape), np.nan, np.float32)
    for row, run in enumerate(chosen):
        for field, own in enumerate(truths[run]):
            truth[row, field, : len(own)] = own[:, size // 2]
            made[:, row, field, : len(own)] = mades[run][field][:, :, size // 2]
    data["example_run"] = (("example",), [f"run_{i:02d}" for i in chosen])
    dims = ("example", "field", "component", "y", "x")
    data["slice_truth"] = (dims, truth, {"units": "field"})
    data["slice"] = (("method", *dims), made, {"units": "field"})


def _joint(data: dict[str, Any], truths: list[Any], mades: list[Any]) -> None:
    counts, edges = [], []
    for field in range(len(truths[0])):
        truth = np.concatenate([run[field].ravel() for run in truths])
        made = np.concatenate([run[field][0].ravel() for run in mades])
        edge = np.linspace(truth.min(), truth.max(), 65)
        counts.append(np.histogram2d(truth, made, bins=(edge, edge))[0])
        edges.append(edge)
    data["joint"] = (("field", "bin", "bin_output"), np.array(counts))
    data["joint_edges"] = (("field", "edge"), np.array(edges), {"units": "field"})


def _over(function):
    """A score of every method, from predictions (method, …) and a truth."""
    return lambda made, truth: np.array([function(each, truth) for each in made])


SCALARS = {
    "rmse": _over(lambda p, t: np.sqrt(((p - t) ** 2).mean())),
    "mae": _over(lambda p, t: np.abs(p - t).mean()),
    "bias": _over(lambda p, t: (p - t).mean()),
    "r2": _over(lambda p, t: 1 - ((p - t) ** 2).sum() / ((t - t.mean()) ** 2).sum()),
    "relative_l2": _over(lambda p, t: np.sqrt(((p - t) ** 2).sum() / (t**2).sum())),
    "max_error": _over(lambda p, t: np.abs(p - t).max()),
    "wasserstein": _over(lambda p, t: np.abs(np.sort(p.ravel()) - np.sort(t.ravel())).mean()),
}
LONG = {
    "rmse": "root mean square error",
    "mae": "mean absolute error",
    "bias": "mean error",
    "r2": "coefficient of determination R²",
    "relative_l2": "relative L2 error",
    "max_error": "largest error",
    "wasserstein": "Wasserstein distance of the distributions",
}
