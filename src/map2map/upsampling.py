"""Baselines on a finer grid: the input, interpolated."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from torch import nn

from map2map.emulator import Emulator
from map2map.fields import FieldSet
from map2map.grids import Domain
from map2map.models import FourierUpsampling, LinearUpsampling
from map2map.typing import Array

__all__ = ["interpolated"]

Baseline = Callable[[int, Mapping[str, Array]], Mapping[str, Array]]
Way = Callable[..., nn.Module]

NAMES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def interpolated(
    partners: Mapping[str, str],
    inputs: FieldSet,
    targets: FieldSet,
    domain: Domain,
    factor: int,
) -> dict[str, Baseline]:
    """Each target is predicted by an input, interpolated.

    Args:
        partners: For targets, inputs of the same units, kind and channels.
        inputs: Fields that the emulator takes.
        targets: Fields that it gives.
        domain: Of the inputs. Beyond an edge where nothing may be made up, linear interpolation
            takes the last cell's value.
        factor: Target cells per input cell and axis.

    Returns:
        By name, "linear", "bilinear" or "trilinear", by the number of axes; and "fourier", which
        has no waves beyond the input's Nyquist, if all axes are periodic.
    """
    assert domain.ndim is not None
    beyond = domain.grid((1,) * domain.ndim).beyond
    filled = replace(domain, pad="edge") if {*beyond} - {"periodic"} else domain
    ways: dict[str, Way] = {NAMES[domain.ndim]: partial(LinearUpsampling, scale_factor=factor)}
    if {*beyond} == {"periodic"}:
        ways["fourier"] = partial(FourierUpsampling, scale_factor=factor)

    return {
        name: made(
            {
                target: emulator(inputs.subset([partner]), targets.subset([target]), filled, way)
                for target, partner in partners.items()
            }
        )
        for name, way in ways.items()
    }


def emulator(inputs: FieldSet, targets: FieldSet, domain: Domain, way: Way) -> Emulator:
    """Interpolates one field."""
    chan, ndim = inputs.channels, domain.ndim
    return Emulator(inputs, targets, {}, way(chan, chan, ndim=ndim), domain).eval()


def made(emulators: Mapping[str, Emulator]) -> Baseline:
    """A baseline of an emulator for each target."""

    def predict(run: int, fields: Mapping[str, Array]) -> Mapping[str, Array]:
        del run
        found = {}
        for target, each in emulators.items():
            (name,) = each.inputs.names
            found[target] = each({name: fields[name]})[target]
        return found

    return predict
