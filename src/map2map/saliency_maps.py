"""Maps of what an emulator's label or parameter hangs on, for samples and for cubes of planes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from map2map.emulator import Emulator
from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.fields import FieldSet
from map2map.grids import Grid
from map2map.kept import read_fields
from map2map.predictions import ahead
from map2map.runs import Run, Runs
from map2map.saliency import saliency_cube
from map2map.saliency_outputs import How, Output
from map2map.typing import Shape
from map2map.windows import Window

__all__ = ["channel_names", "first_of_groups", "of_cubes", "of_samples"]

AXES = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}

MOST = 8
"""How many maps are made if nobody says of which samples."""


class Part(nn.Module):
    """A network that gives one label's logits, or one parameter, of all that another gives."""

    def __init__(self, model: nn.Module, channels: slice) -> None:
        super().__init__()
        self.model, self.channels = model, channels

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, channel)."""
        output: Tensor = self.model(x)[:, self.channels]
        return output


def first_of_groups(runs: Runs, most: int = MOST) -> list[int]:
    """Number of the first sample of each run, at most so many."""
    found: dict[int, int] = {}
    for k, run in enumerate(runs):
        found.setdefault(run.group, k)
    return list(found.values())[:most]


def of_samples(
    emulator: Emulator,
    runs: Runs,
    samples: Sequence[int],
    how: How,
    done: Callable[[int], None] = lambda _: None,
) -> xr.Dataset:
    """Maps of some samples.

    Args:
        emulator: In evaluation mode, on its device.
        runs: With its inputs; with its targets, if the truth is known.
        samples: Their numbers in the order of the runs.
        how: How maps are made.
        done: Called with how many samples are done.

    Returns:
        ``saliency`` and ``input`` [physical units], both (sample, channel, *space); what the
        emulator gives; and the truth, if known.

    Raises:
        RecipeError: If there is no such sample.
        FieldError: If inputs are not finite.
        GeometryError: If samples differ in shape.
    """
    check_numbers(samples, len(runs), "sample")
    if len({runs.shape_of(k) for k in samples}) > 1:
        raise GeometryError("maps are written beside one another: choose samples of one shape")
    model = Part(emulator.model, how.output.channels)
    values = ahead(runs, [range(k, k + 1) for k in samples], emulator.domain)
    maps, inputs, outputs = [], [], []
    for x in values:
        given = encoded(emulator, x)
        maps.append(how.map(model, given).cpu().numpy()[0])
        with torch.no_grad():
            outputs.append(emulator.model(given).double().cpu())
        inputs.append(x[0])
        done(1)
    found = dataset(emulator, how, "sample", np.stack(maps), np.stack(inputs), torch.cat(outputs))
    each = [runs.runs[k] for k in samples]
    return with_names(found, runs, each, how.output, "sample", samples)


def of_cubes(
    emulator: Emulator,
    runs: Runs,
    cubes: Sequence[int],
    how: How,
    batch: int = 32,
    done: Callable[[int], None] = lambda _: None,
) -> xr.Dataset:
    """Sums of the maps of all planes of cubes, whatever the step that planes were learnt at.

    Args:
        emulator: In evaluation mode, on its device.
        runs: Planes of cubes.
        cubes: Numbers of the cubes.
        how: How maps are made: by gradients.
        batch: Planes at a time.
        done: Called with how many planes are done.

    Returns:
        As `of_samples`, along ``run``; logits are means over planes.

    Raises:
        RecipeError: If there is no such cube, or the method is another.
        FieldError: If inputs are not finite.
        GeometryError: If runs are no planes of cubes.
    """
    if runs.domain.planes is None:
        raise GeometryError("the emulator's runs are no planes of cubes: leave out --cube")
    if how.method != "gradient":
        raise RecipeError(f"maps of cubes are sums of gradients, not of the method {how.method!r}")
    check_numbers(cubes, len(runs.groups), "run")
    shapes = {runs.shape_of(runs.groups[k]) for k in cubes}
    if len(shapes) > 1:
        raise GeometryError("maps are written beside one another: choose runs of one shape")
    (shape,) = shapes
    maps, inputs, outputs = [], [], []
    for k in cubes:
        cube = read_cube(runs, k, shape)
        model = Told(emulator.model, how.output.channels)
        before = [0]

        def progress(now: int, _: int, before: list[int] = before) -> None:
            done(now - before[0])
            before[0] = now

        found = saliency_cube(
            model,
            plane_reader(emulator, cube),
            shape,
            runs.domain.planes,
            batch=batch,
            of=how.of,
            channel=how.output.channel,
            progress=progress,
        )
        maps.append(how.signed(found.values))
        inputs.append(cube)
        outputs.append(torch.cat(model.every).mean(dim=0, keepdim=True))
    data = dataset(emulator, how, "run", np.stack(maps), np.stack(inputs), torch.cat(outputs))
    data.saliency.attrs["comment"] += "; each cell is the sum of those of all planes it is in"
    return with_names(data, runs, [runs.groups[k] for k in cubes], how.output, "run", cubes)


class Told(Part):
    """The same, and keeps all that the other gives."""

    def __init__(self, model: nn.Module, channels: slice) -> None:
        super().__init__(model, channels)
        self.every: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, channel)."""
        output: Tensor = self.model(x)
        self.every.append(output.detach().double().cpu())
        return output[:, self.channels]


def plane_reader(
    emulator: Emulator, cube: NDArray[np.float32]
) -> Callable[[int, int], NDArray[np.float32]]:
    """Planes of a cube, normalized."""

    def read(axis: int, number: int) -> NDArray[np.float32]:
        plane = np.ascontiguousarray(cube[(slice(None),) * (1 + axis) + (number,)])
        values: NDArray[np.float32] = encoded(emulator, plane[None])[0].cpu().numpy()
        return values

    return read


def read_cube(runs: Runs, number: int, shape: Shape) -> NDArray[np.float32]:
    """All inputs of a run, shape (channel, *shape)."""
    cube = np.empty((runs.inputs.channels, *shape), np.float32)
    read_fields(runs, runs.groups[number], runs.inputs, Window.whole(shape), Grid(shape), cube)
    if not np.isfinite(cube).all():
        bad = int((~np.isfinite(cube)).sum())
        raise FieldError(f"{runs.groups[number]} holds {bad} NaN or infinite values; mend the data")
    return cube


def encoded(emulator: Emulator, x: NDArray[np.float32]) -> Tensor:
    """Inputs as the network sees them, on its device."""
    device = next(emulator.parameters(), torch.empty(0)).device
    with torch.no_grad():
        return emulator.encode_input(torch.from_numpy(x).to(device))


def check_numbers(numbers: Sequence[int], count: int, what: str) -> None:
    """Refuse numbers of samples or runs that are not there, or there twice."""
    for number in numbers:
        if not 0 <= number < count:
            raise RecipeError(f"there is no {what} {number}; there are {count}, from 0")
    if not numbers or len(set(numbers)) < len(numbers):
        raise RecipeError(f"choose one {what} or more, each once, not {list(numbers)}")


def dataset(
    emulator: Emulator,
    how: How,
    along: str,
    maps: NDArray[np.float32],
    inputs: NDArray[np.float32],
    outputs: Tensor,
) -> xr.Dataset:
    """Maps, inputs and what the emulator gives, from all of the network's outputs."""
    names, units = channel_names(emulator.inputs)
    dims = (along, "channel", *AXES[maps.ndim - 2])
    field = how.output.field
    kind = "logit" if how.of == "logit" else "probability"
    of = f"{kind} of {how.output.name}" if field.kind == "label" else f"normalized {field.name}"
    what = "integrated gradient" if how.method == "integrated" else "gradient"
    comment = (
        f"{what} of the {of} with respect to the inputs as the network sees them, normalized by "
        f"the emulator, so it has no units"
    )
    if how.method == "integrated":
        comment += "; from 0, the mean of the training where norms standardize"
    found = xr.Dataset(
        {
            "saliency": (dims, maps, {"units": "1", "long_name": "saliency", "comment": comment}),
            "input": (dims, inputs, {"long_name": "input of the emulator, in units of channels"}),
        },
        {"channel": names, "channel_units": ("channel", units)},
        {
            "kind": "saliency",
            "target": field.name,
            "class": how.output.name if field.kind == "label" else "",
            "method": how.method,
            "of": how.of if field.kind == "label" else "value",
            "signed": int(not how.absolute),
        },
    )
    if field.kind == "label":
        logits = outputs[:, how.output.channels].numpy()
        name = how.output.name
        found["logit"] = (along, how.output.logits(logits), of_class("logit", name))
        found["probability"] = (
            along,
            how.output.probability(logits),
            of_class("probability", name),
        )
    else:
        device = next(emulator.parameters(), torch.empty(0)).device
        with torch.no_grad():
            physical = emulator.decode_target(outputs.float().to(device)).double().cpu().numpy()
        value = physical[:, how.output.channels.start]
        about = {"units": field.units or "1", "long_name": f"{field.name} that the emulator gives"}
        found["output"] = (along, value, about)
    return found


def of_class(what: str, name: str) -> dict[str, str]:
    """Attributes of a number of a class."""
    return {"units": "1", "long_name": f"{what} of {name}"}


def with_names(
    found: xr.Dataset,
    runs: Runs,
    each: Sequence[Run],
    output: Output,
    along: str,
    numbers: Sequence[int],
) -> xr.Dataset:
    """The same with names of runs, what their placeholders stand for, and the truth if known."""
    coords: dict[str, Any] = {along: list(numbers), "name": (along, [str(run) for run in each])}
    taken = {str(name) for name in found.variables} | {*coords, *found.dims, "truth"}
    for key in each[0].told:
        if key not in taken:
            coords[key] = (along, [run.told[key] for run in each])
    found = found.assign_coords(coords)
    if runs.numbers is None:
        return found
    values = runs.numbers[[run.group for run in each]][:, output.channels]
    if output.field.kind == "parameter":
        about = {"units": output.field.units or "1", "long_name": f"true {output.field.name}"}
        return found.assign(truth=(along, values[:, 0].astype(float), about))
    classes = output.field.classes or ()
    places = values[:, 0] > 0.5 if len(classes) == 2 else values.argmax(axis=1)
    about = {"long_name": f"true {output.field.name}"}
    return found.assign(truth=(along, [classes[int(place)] for place in places], about))


def channel_names(inputs: FieldSet) -> tuple[list[str], list[str]]:
    """Name and units of each channel of the inputs."""
    names, units = [], []
    for field in inputs:
        channels = inputs.slices[field.name]
        several = channels.stop - channels.start > 1
        for k in range(channels.stop - channels.start):
            names.append(f"{field.name}_{k}" if several else field.name)
            units.append(field.units or "1")
    return names, units
