"""Which cells an emulator's answer hangs on: gradients of an output with respect to its input.

For networks from (batch, channel, *space) to (batch, out_chan), such as those of labels and
parameters. They are put into evaluation mode meanwhile, their weights need no gradients, and
samples of a batch do not know each other.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from map2map.errors import GeometryError, RecipeError
from map2map.typing import Array, Shape

__all__ = [
    "CubeSaliency",
    "Of",
    "gradient",
    "integrated_gradients",
    "saliency_cube",
    "smooth_grad",
]

Of = Literal["logit", "score"]
"""Of what the gradient is: the output as it is, or its probability, which is the sigmoid if there
is one output and the softmax over outputs if there are more. Where the network is certain, that of
the probability vanishes."""


def gradient(
    model: nn.Module, x: Tensor, *, of: Of = "logit", channel: int = 0, absolute: bool = False
) -> Tensor:
    """Gradient of one output with respect to each cell of the input (Simonyan et al. 2013).

    Args:
        model: From (batch, channel, *space) to (batch, out_chan).
        x: Input [u], shape (batch, channel, *space).
        of: "logit" or "score".
        channel: Which output.
        absolute: Whether to leave out the sign.

    Returns:
        Shape of the input; in [1/u] for a logit.

    Raises:
        GeometryError: If the network gives no (batch, out_chan).
        RecipeError: If ``of`` or ``channel`` is something else.
    """
    with ready(model):
        found, _ = slopes(model, x, of, channel)
    return found.abs() if absolute else found


def smooth_grad(
    model: nn.Module,
    x: Tensor,
    *,
    copies: int = 32,
    noise: float = 0.1,
    seed: int = 0,
    of: Of = "logit",
    channel: int = 0,
    absolute: bool = False,
) -> Tensor:
    """Mean gradient over copies of the input with noise added (Smilkov et al. 2017).

    Args:
        model: From (batch, channel, *space) to (batch, out_chan).
        x: Input [u], shape (batch, channel, *space).
        copies: How many.
        noise: Standard deviation of the Gaussian noise, as a share of that of the same channel of
            the same sample.
        seed: Of the noise; the same on any device.
        of: "logit" or "score".
        channel: Which output.
        absolute: Whether to leave out the sign, of the mean.

    Raises:
        GeometryError: If the network gives no (batch, out_chan).
        RecipeError: If an option is something else.
    """
    if copies < 1 or noise < 0:
        raise RecipeError(f"needs 1 copy or more and noise >= 0, not {copies} and {noise}")
    random = torch.Generator().manual_seed(seed)
    with ready(model):
        deviation = noise * x.std(dim=list(range(2, x.ndim)), keepdim=True, correction=0)
        total = torch.zeros_like(x)
        for _ in range(copies):
            draw = torch.randn(x.shape, generator=random, dtype=x.dtype).to(x.device)
            found, _ = slopes(model, x + deviation * draw, of, channel)
            total += found
    total /= copies
    return total.abs() if absolute else total


def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    *,
    baseline: Tensor | float = 0.0,
    steps: int = 64,
    of: Of = "logit",
    channel: int = 0,
    absolute: bool = False,
) -> Tensor:
    """Each cell's share of what the output changes from a baseline to the input.

    The gradient is integrated along the straight line between them and multiplied with their
    difference (Sundararajan et al. 2017), so that the cells add up to f(x) - f(baseline), but for
    the error of the integral. More steps make it smaller.

    Args:
        model: From (batch, channel, *space) to (batch, out_chan).
        x: Input [u], shape (batch, channel, *space).
        baseline: An input that says nothing [u], a number or of a shape that fits.
        steps: Points of the Gauss-Legendre quadrature.
        of: "logit" or "score".
        channel: Which output.
        absolute: Whether to leave out the sign.

    Returns:
        Shape of the input; in units of the output.

    Raises:
        GeometryError: If the network gives no (batch, out_chan).
        RecipeError: If an option is something else.
    """
    if steps < 1:
        raise RecipeError(f"needs 1 step or more, not {steps}")
    places, weights = np.polynomial.legendre.leggauss(steps)
    with ready(model):
        start = torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x)
        total = torch.zeros_like(x)
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            found, _ = slopes(model, torch.lerp(start, x, float(place)), of, channel)
            total += float(weight) * found
    total *= x - start
    return total.abs() if absolute else total


@dataclass(frozen=True)
class CubeSaliency:
    """What planes of a cube say about it.

    Args:
        values: Sum of the gradients of all planes that a cell is in, shape (channel, *shape).
        outputs: Of the network, for each axis that planes were taken across: (plane, out_chan).
    """

    values: NDArray[np.float32]
    outputs: dict[int, NDArray[np.float32]]


def saliency_cube(
    model: nn.Module,
    read_plane: Callable[[int, int], Array],
    shape: Shape,
    axes: Sequence[int] = (0, 1, 2),
    *,
    batch: int = 32,
    of: Of = "logit",
    channel: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CubeSaliency:
    """Signed gradients of all planes of a cube, each added to the cells of its plane.

    Each cell of a cube is in one plane across each axis, so its value is the sum of three numbers;
    that is the gradient of the sum of all planes' outputs with respect to the cell. It takes the
    memory of the result and of one batch.

    Args:
        model: From planes (batch, channel, *plane) to (batch, out_chan), on any device.
        read_plane: Called with an axis and an index, gives that plane as the network is to see it,
            shape (channel, *plane): the other axes in their order.
        shape: Cells per axis of the cube.
        axes: Those that planes are taken across.
        batch: Planes at a time.
        of: "logit" or "score".
        channel: Which output.
        progress: Called with the planes that are done, and how many there are.

    Raises:
        GeometryError: If a plane is of another shape, or the network gives no (batch, out_chan).
        RecipeError: If an option is something else.
    """
    check_axes(shape, axes, batch)
    total, done = sum(shape[axis] for axis in axes), 0
    values: NDArray[np.float32] | None = None
    outputs: dict[int, NDArray[np.float32]] = {}
    like = next(model.parameters(), torch.zeros(()))
    with ready(model):
        for axis in axes:
            told = []
            for start in range(0, shape[axis], batch):
                chosen = range(start, min(start + batch, shape[axis]))
                planes = np.stack([plane_of(read_plane, axis, i, shape) for i in chosen])
                x = torch.from_numpy(planes).to(like)
                found, output = slopes(model, x, of, channel)
                if values is None:
                    values = np.zeros((planes.shape[1], *shape), np.float32)
                # a view in which planes come first
                across = np.moveaxis(values, axis + 1, 0)
                across[start : chosen.stop] += found.float().cpu().numpy()
                told.append(output.float().cpu().numpy())
                done += len(chosen)
                if progress is not None:
                    progress(done, total)
            outputs[axis] = np.concatenate(told)
    assert values is not None  # there is an axis, of one plane or more
    return CubeSaliency(values, outputs)


def check_axes(shape: Shape, axes: Sequence[int], batch: int) -> None:
    """Refuse axes that are not there."""
    allowed = range(len(shape))
    if len(shape) < 2 or min(shape) < 1:
        raise GeometryError(f"a cube of shape {tuple(shape)} has no planes")
    if not axes or len(set(axes)) != len(axes) or not set(axes) <= set(allowed):
        raise RecipeError(
            f"planes are taken across different axes among {list(allowed)}, not {list(axes)}"
        )
    if batch < 1:
        raise RecipeError(f"needs a batch of 1 plane or more, not {batch}")


def plane_of(
    read_plane: Callable[[int, int], Array], axis: int, index: int, shape: Shape
) -> NDArray[np.float32]:
    """A plane, checked."""
    plane = np.asarray(read_plane(axis, index), np.float32)
    expected = (*shape[:axis], *shape[axis + 1 :])
    if plane.shape[1:] != expected or plane.ndim != len(shape):
        raise GeometryError(
            f"plane {index} across axis {axis} has shape {plane.shape}, but a cube of shape "
            f"{tuple(shape)} needs (channel, {', '.join(map(str, expected))})"
        )
    return plane


@contextmanager
def ready(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and weights without gradients, which would take memory; then as before."""
    training = [module for module in model.modules() if module.training]
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    model.eval()
    for weight in learning:
        weight.requires_grad_(False)
    try:
        # whatever the caller has switched off
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module in training:
            module.training = True
        for weight in learning:
            weight.requires_grad_(True)


def slopes(model: nn.Module, x: Tensor, of: Of, channel: int) -> tuple[Tensor, Tensor]:
    """Gradient of an output of each sample, shape of x, and the outputs (batch, out_chan)."""
    # a tensor from inference mode cannot be differentiated, its copy can
    x = x.detach().clone().requires_grad_()
    output = model(x)
    if output.ndim != 2 or len(output) != len(x):
        raise GeometryError(
            f"{type(model).__name__} gives shape {tuple(output.shape)} for a batch of {len(x)}; "
            f"saliency is of networks that give (batch, out_chan)"
        )
    (found,) = torch.autograd.grad(chosen_output(output, of, channel).sum(), x)
    return found, output.detach()


def chosen_output(output: Tensor, of: Of, channel: int) -> Tensor:
    """What the gradient is of, shape (batch,)."""
    if not 0 <= channel < output.shape[1]:
        raise RecipeError(f"there is no output {channel}; there are {output.shape[1]}, from 0")
    if of == "logit":
        return output[:, channel]
    if of == "score":
        p = output.sigmoid() if output.shape[1] == 1 else output.softmax(dim=1)
        return p[:, channel]
    raise RecipeError(f"the gradient is of 'logit' or 'score', not of {of!r}")
