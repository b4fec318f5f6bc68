"""The laws of a derived field, over every one there is."""

import inspect

import numpy as np
import pytest

import map2map.derived
from map2map.derived import (
    Box,
    BulkFlux,
    Charlette,
    Combination,
    Coordinate,
    Derived,
    Gradient,
    GradientNorm,
    GrowthDifference,
    Increment,
    Magnitude,
    MixedLayerWarming,
)
from map2map.grids import Grid
from map2map.readers import DerivedReader, InMemory
from map2map.sources import Axis
from map2map.specs import build, describe
from map2map.windows import Window

# how to build each: from the fields a (one channel) and v (as many as axes)
MADE = {
    Gradient: lambda ndim: Gradient("a", ndim - 1),
    GradientNorm: lambda ndim: GradientNorm("a"),
    Charlette: lambda ndim: Charlette("a", width=0.8, cutoff=0.4, beta=0.6),
    Combination: lambda ndim: Combination(["v", "v"], [2.0, -0.5], channels=ndim),
    GrowthDifference: lambda ndim: GrowthDifference("v", "v", (10, 1), Om=0.3, channels=ndim),
    Increment: lambda ndim: Increment("v", "v", channels=ndim),
    Magnitude: lambda ndim: Magnitude(["a", "v"]),
    MixedLayerWarming: lambda ndim: MixedLayerWarming(["a", "a"], 30.0, "6h"),
    Coordinate: lambda ndim: Coordinate("a", 0),
    BulkFlux: lambda ndim: BulkFlux(["latent", "stress_x"], "a", "a", 285.0, 0.007, 288.0),
}
CLASSES = [
    item
    for item in (getattr(map2map.derived, name) for name in map2map.derived.__all__)
    if inspect.isclass(item) and issubclass(item, Derived) and item is not Derived
]
SHAPES = {1: (9,), 2: (8, 7), 3: (6, 5, 7)}


def reader(derived, ndim, periodic=False):
    rng = np.random.default_rng(0)
    shape = SHAPES[ndim]
    values = {"a": rng.normal(size=(1, *shape)), "v": rng.normal(size=(ndim, *shape))}
    axes = tuple(Axis(f"x{i}", 5.0 - 0.5 * (i + 1) * np.arange(n)) for i, n in enumerate(shape))
    memory = InMemory(values, axes)
    needs = {name: (memory, name) for name in derived.needs}
    box = Box(tuple(-0.5 * (i + 1) for i in range(ndim)), tuple(np.asarray(a.values) for a in axes))
    whole = derived.compute({name: values[name] for name in derived.needs}, box)
    return DerivedReader(derived, needs), whole, Grid(shape, None, periodic, "reflect")


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
class TestEveryDerivedField:
    def test_computed_per_window_it_equals_computed_whole_then_cut(self, cls, ndim):
        made, whole, grid = reader(MADE[cls](ndim), ndim)
        assert whole.shape == (made.derived.channels, *grid.shape)
        rng = np.random.default_rng(1)
        for _ in range(20):
            start = tuple(int(rng.integers(n - 1)) for n in grid.shape)
            stop = tuple(
                int(rng.integers(a + 1, n + 1)) for a, n in zip(start, grid.shape, strict=True)
            )
            window = Window(start, stop)
            found = np.empty((len(whole), *window.shape))
            made.read("x", window, found, grid)
            np.testing.assert_allclose(found, whole[(slice(None), *window.slices)], rtol=1e-12)

    def test_beyond_the_edges_the_field_itself_is_made_up(self, cls, ndim):
        made, whole, grid = reader(MADE[cls](ndim), ndim)
        window = Window((-3,) * ndim, tuple(n + 2 for n in grid.shape))
        found = np.empty((len(whole), *window.shape))
        made.read("x", window, found, grid)
        expected = np.pad(whole, [(0, 0)] + [(3, 2)] * ndim, mode="reflect")
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    def test_it_is_made_again_from_data(self, cls, ndim):
        derived = MADE[cls](ndim)
        again = build(describe(derived), base=Derived)
        assert type(again) is cls
        assert vars(again) == vars(derived)
        assert again.needs == derived.needs
