"""Solar and thermal fluxes in columns of air with broken clouds, with and without their sides.

Each layer has a clear and a cloudy region, as parts c of its area. Fluxes are those of regions
[W per m2 of the column]; down and up they are added layer by layer (S08), in each of which they
follow `map2map.physics.two_stream`, and clouds of neighboring layers overlap (H00).

**Without sides** (1-D), radiation that is in a region stays in it within a layer. **With sides**
(3-D) it crosses the edges of clouds at the rates of H16 per meter of height,

    direct beam: L tan(theta) / (pi c),    diffuse: L / (2 c),

for edges of any direction of length L per area: the flux through a wall is tan(theta) cos(phi)
times that of the beam through the ground, which is 1 / pi in the mean over all azimuths phi, of
those that face the sun; and half of an isotropic flux. So a low sun shines on the sides of clouds,
light leaves through them, and they emit. Simpler than in H16: half of the exchange happens before
a layer, and half after it, instead of all the way; edges have the length L = 4 c (1 - c) / D for
clouds of the size D; light that is reflected is spread over the region where it comes up.

The exchange conserves energy, and leaves alone what is the same per area in both regions.

Sources: S08: Shonk & Hogan 2008, *J. Climate* 21, 2352; H00: Hogan & Illingworth 2000, *Q. J. R.
Meteorol. Soc.* 126, 2903; H16: Hogan, Schaefer, Klinger, Chiu & Mayer 2016, *J. Geophys. Res.
Atmos.* 121, 8582; S13: Hogan & Shonk 2013, *J. Atmos. Sci.* 70, 708.

Shapes: (region, band, column) of each layer; a sequence of layers from the top down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from map2map.physics.two_stream import Emission, Layer
from map2map.typing import Array

__all__ = [
    "STEFAN_BOLTZMANN",
    "Clouds",
    "Fluxes",
    "solar_fluxes",
    "thermal_fluxes",
]

STEFAN_BOLTZMANN = 5.670374419e-8
"""[W m-2 K-4]"""

STEEPEST = 20.0
"""Largest tangent of the sun's zenith angle; lower suns shine around the curve of the Earth."""


class Fluxes(NamedTuple):
    """Fluxes through half levels [W m-2], shape (half level, column)."""

    down: Array
    up: Array


@dataclass(frozen=True)
class Clouds:
    """Where clouds are.

    Args:
        fraction: Part of the area that they cover, shape (level, column).
        overlap: Between neighboring layers, shape (level - 1, column): 1 is maximum overlap, 0 is
            random.
        thickness: Of layers [m], shape (level, column).
        size: D, of clouds [m]; infinite: they have no sides, which is 1-D.
    """

    fraction: Array
    overlap: Array
    thickness: Array
    size: float = np.inf

    def parts(self, level: int) -> Array:
        """Clear and cloudy part of the area, (region, 1, column)."""
        cloudy = self.fraction[level]
        return np.stack([1 - cloudy, cloudy])[:, None]

    def passing(self, level: int) -> tuple[Array, Array]:
        """Where fluxes go at the base of a layer: matrices (to, from, 1, column) down and up."""
        above, below = self.fraction[level], self.fraction[level + 1]
        overlap = self.overlap[level]
        cover = overlap * np.maximum(above, below) + (1 - overlap) * (above + below - above * below)
        both = np.clip(above + below - cover, 0, np.minimum(above, below))
        return pour(both, above, below), pour(both, below, above)

    def crossing(self, level: int, rate: Array | float) -> Array | None:
        """What crosses the sides within half a layer: matrices (to, from, 1, column).

        Args:
            level: The layer.
            rate: Part that crosses per length of edges times height, 1/2 or tan(theta) / pi.

        Returns:
            None if clouds have no sides.
        """
        if not np.isfinite(self.size):
            return None
        cloudy = self.fraction[level]
        # the two rates are L rate / (1 - c) and L rate / c, and L = 4 c (1 - c) / D
        sum_of_rates = 4 * rate / self.size
        moved = -np.expm1(-sum_of_rates * self.thickness[level] / 2)
        # exactly nothing where there is one region only
        moved = np.where((cloudy > 0) & (cloudy < 1), moved, 0)
        out_of_clear, out_of_cloud = moved * cloudy, moved * (1 - cloudy)
        return np.stack(
            [
                np.stack([1 - out_of_clear, out_of_cloud]),
                np.stack([out_of_clear, 1 - out_of_cloud]),
            ]
        )[:, :, None]


def pour(both: Array, source: Array, target: Array) -> Array:
    """Matrix (to, from, 1, column) from the regions of one layer to those of the next.

    Args:
        both: Part of the area with clouds in both.
        source: Cloud fraction of the one.
        target: Cloud fraction of the other.
    """
    into = np.where(source > 0, both / np.where(source > 0, source, 1), target)
    clear = 1 - source
    from_clear = np.where(clear > 0, (target - both) / np.where(clear > 0, clear, 1), target)
    from_clear = np.clip(from_clear, 0, 1)
    return np.stack([np.stack([1 - from_clear, 1 - into]), np.stack([from_clear, into])])[
        :, :, None
    ]


def mul(matrix: Array | None, vector: Array) -> Array:
    """Matrix (to, from, …) times vector (from, …); None is the identity."""
    if matrix is None:
        return vector
    product: Array = np.stack([m[0] * vector[0] + m[1] * vector[1] for m in matrix])
    return product


def matmul(first: Array, second: Array) -> Array:
    """Product of matrices (to, from, …)."""
    return np.stack([mul(first, second[:, i]) for i in range(2)], axis=1)


def around(matrix: Array | None, diagonal: Array) -> Array:
    """Matrix times diagonal times matrix."""
    zero = np.zeros_like(diagonal[0])
    inner = np.stack([np.stack([diagonal[0], zero]), np.stack([zero, diagonal[1]])])
    return inner if matrix is None else matmul(matrix, matmul(inner, matrix))


def resolvent(matrix: Array) -> Array:
    """(1 - matrix)^-1."""
    (a, b), (c, d) = matrix
    determinant = (1 - a) * (1 - d) - b * c
    inverse: Array = np.stack([np.stack([1 - d, b]), np.stack([c, 1 - a])]) / determinant
    return inverse


class Slab(NamedTuple):
    """What a layer does to fluxes that enter: matrices (to, from, band, column), and its sources.

    A slab that is the same from both sides.
    """

    reflected: Array
    transmitted: Array
    up: Array
    down: Array


def solar_fluxes(
    layers: Sequence[Layer],
    clouds: Clouds,
    mu: Array,
    sun: Array,
    ground: tuple[Array, Array],
) -> Fluxes:
    """Solar fluxes.

    Args:
        layers: Both regions of the layers, (region, band, column), from the top down.
        clouds: Where clouds are.
        mu: Cosine of the sun's zenith angle, above 0, shape (column,).
        sun: Flux through a horizontal plane at the top [W m-2], (band, column).
        ground: Albedo for diffuse radiation and for the beam, (band, column).
    """
    tangent = np.minimum(np.sqrt(np.maximum(1 - mu**2, 0)) / mu, STEEPEST)
    beam: Array = sun * clouds.parts(0)
    beams, slabs = [beam], []
    for level, one in enumerate(layers):
        if level:
            beam = mul(clouds.passing(level - 1)[0], beam)
        direct = clouds.crossing(level, tangent / np.pi)
        diffuse = clouds.crossing(level, 0.5)
        entered = mul(direct, beam)
        slabs.append(
            Slab(
                around(diffuse, one.reflected),
                around(diffuse, one.transmitted),
                mul(diffuse, one.beam_up * entered),
                mul(diffuse, one.beam_down * entered),
            )
        )
        beam = mul(direct, one.beam * entered)
        beams.append(beam)
    albedo, of_beam = ground
    scattered = adding(slabs, clouds, albedo, of_beam * beam)
    return Fluxes(scattered.down + np.stack([b.sum(axis=(0, 1)) for b in beams]), scattered.up)


def adding(slabs: Sequence[Slab], clouds: Clouds, albedo: Array, source: Array) -> Fluxes:
    """Diffuse fluxes: reflection and sources of all below each level, then from the top down.

    Args:
        slabs: From the top down.
        clouds: Tell how regions overlap.
        albedo: Of the ground, (band, column).
        source: What the ground sends up beside that, (region, band, column).
    """
    below = around(None, np.broadcast_to(albedo, source.shape))
    under: list[tuple[Array, Array, Array]] = []
    for level in range(len(slabs) - 1, -1, -1):
        slab = slabs[level]
        bounces = resolvent(matmul(slab.reflected, below))
        under.append((below, source, bounces))
        upward = mul(bounces, mul(slab.reflected, source) + slab.down)
        source_here = slab.up + mul(slab.transmitted, source + mul(below, upward))
        twice = matmul(matmul(below, bounces), slab.transmitted)
        here = slab.reflected + matmul(slab.transmitted, twice)
        if level:
            down, up = clouds.passing(level - 1)
            below, source = matmul(up, matmul(here, down)), mul(up, source_here)
    # nothing diffuse comes from above
    down = np.zeros_like(source_here)
    downs, ups = [down], [source_here]
    for level, slab in enumerate(slabs):
        if level:
            down = mul(clouds.passing(level - 1)[0], down)
        below, source, bounces = under[len(slabs) - 1 - level]
        down = mul(bounces, mul(slab.transmitted, down) + mul(slab.reflected, source) + slab.down)
        downs.append(down)
        ups.append(mul(below, down) + source)
    return Fluxes(*(np.stack([f.sum(axis=(0, 1)) for f in flux]) for flux in (downs, ups)))


def thermal_fluxes(
    layers: Sequence[Emission], clouds: Clouds, ground: Array, emissivity: Array
) -> Fluxes:
    """Thermal fluxes; nothing is scattered, and the ground reflects what it does not absorb.

    Args:
        layers: Both regions of the layers, (region, band, column), from the top down.
        clouds: Where clouds are.
        ground: Planck function of the ground [W m-2], (band, column).
        emissivity: Of the ground, (band, column).
    """
    down: Array = np.zeros_like(layers[0].up)
    downs = [down]
    for level, one in enumerate(layers):
        if level:
            down = mul(clouds.passing(level - 1)[0], down)
        sides, parts = clouds.crossing(level, 0.5), clouds.parts(level)
        down = mul(sides, one.transmitted * mul(sides, down) + parts * one.down)
        downs.append(down)
    up: Array = emissivity * ground * clouds.parts(len(layers) - 1) + (1 - emissivity) * down
    ups = [up]
    for level in range(len(layers) - 1, -1, -1):
        one, sides, parts = layers[level], clouds.crossing(level, 0.5), clouds.parts(level)
        up = mul(sides, one.transmitted * mul(sides, up) + parts * one.up)
        ups.append(up)
        if level:
            up = mul(clouds.passing(level - 1)[1], up)
    return Fluxes(*(np.stack([f.sum(axis=(0, 1)) for f in flux]) for flux in (downs, ups[::-1])))
