"""Convolutions that a style acts on: numbers of a sample, such as its redshift.

Vocabulary, like conv.py, which gives its blocks to a network and the style to its convolutions.
"""

import copy
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from map2map.errors import GeometryError, RecipeError

__all__ = ["Modulation", "Styled", "StyledConv", "check_style", "make_styled", "through"]

Modulation = Literal["weights", "film"]
"""How a style acts on a convolution; see `StyledConv`."""

EPSILON = 1e-8
"""Added to the sum of squares that a weight is divided by the root of."""


class Styled(nn.Module):
    """A network that may take a style, shape (batch, style_chan)."""

    def settled(self, style: Tensor) -> nn.Module:
        """A copy for one style, shape (style_chan,), that takes none: of ordinary convolutions."""
        made = copy.deepcopy(self)
        for parent in list(made.modules()):
            if hasattr(parent, "style_chan") and not isinstance(parent, StyledConv):
                cast(Any, parent).style_chan = 0
            for name, child in list(parent.named_children()):
                if isinstance(child, StyledConv):
                    setattr(parent, name, child.plain(style.to(child.weight)))
        return made


class StyledConv(nn.Module):
    """A convolution that a style s, shape (batch, style_chan), acts on.

    - "weights": the weights of input channel i are multiplied by s' = style_weight s + style_bias,
      then those of each output channel are divided by the root of the sum of their squares; the
      bias is added as it is (Karras et al. 2020, "Analyzing and improving the image quality of
      StyleGAN", section 2.2). It is computed by scaling inputs and outputs instead of weights, so
      that all samples of a batch share one convolution, and a derivative with respect to the style
      takes no second one.
    - "film": the outputs are multiplied and shifted by linear functions of the style (Perez et al.
      2018, "FiLM: visual reasoning with a general conditioning layer", eq. 2).

    With "weights" the parameters are those of map2map's styled convolution: ``weight``, ``bias``,
    ``style_weight`` (in, style_chan) and ``style_bias`` (in), which starts at 1.

    Args:
        conv: The convolution, transposed or not, whose weights are taken over.
        style_chan: Numbers of the style.
        modulation: How it acts.
    """

    def __init__(self, conv: _ConvNd, style_chan: int, modulation: Modulation = "weights") -> None:
        super().__init__()
        if modulation not in ("weights", "film"):
            raise RecipeError(f"`modulation` is {modulation!r}; it is 'weights' or 'film'")
        if style_chan < 1 or conv.groups != 1:
            raise RecipeError(
                f"a styled convolution has one group and a style of 1 or more numbers, not "
                f"{conv.groups} and {style_chan}"
            )
        self.modulation, self.style_chan = modulation, style_chan
        self.transposed = isinstance(conv, _ConvTransposeNd)
        self.kind, self.arguments = type(conv), arguments_of(conv)
        self.weight = cast(nn.Parameter, conv.weight)
        self.bias = cast(nn.Parameter | None, conv.bias)
        film = modulation == "film"
        rows = 2 * conv.out_channels if film else conv.in_channels
        # as PyTorch draws a linear layer's
        bound = style_chan**-0.5
        self.style_weight = nn.Parameter(torch.empty(rows, style_chan).uniform_(-bound, bound))
        self.style_bias = nn.Parameter(torch.ones(rows))
        if film:
            # the second half is what is added
            with torch.no_grad():
                self.style_bias[conv.out_channels :] = 0

    def factors(self, style: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """What inputs are multiplied by, outputs are, and what is added: (batch, channel) each.

        What is the same for all samples has a batch of 1.

        Raises:
            GeometryError: If the style has another shape.
        """
        if style.ndim != 2 or style.shape[1] != self.style_chan:
            raise GeometryError(
                f"the style has shape {tuple(style.shape)}, but the network takes "
                f"(batch, {self.style_chan})"
            )
        acts = torch.addmm(self.style_bias, style, self.style_weight.t())
        if self.modulation == "film":
            scale, added = acts.chunk(2, dim=1)
            return None, scale, added if self.bias is None else added + scale * self.bias
        taps = tuple(range(2, self.weight.ndim))
        squares = self.weight.square().sum(dim=taps)
        # of a transposed convolution the input channels come first
        squares = squares if self.transposed else squares.t()
        scale = torch.rsqrt(acts.square() @ squares + EPSILON)
        shift = None if self.bias is None else self.bias[None]
        return acts, scale, shift

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Convolve (batch, channel, *space), each sample with its style (batch, style_chan)."""
        into, scale, shift = self.factors(style)
        ones = (1,) * (x.ndim - 2)
        if into is not None:
            x = x * into.reshape(*into.shape, *ones)
        function = CONVOLVE[self.transposed, x.ndim - 2]
        y: Tensor = function(x, self.weight, stride=self.arguments["stride"])
        y = y * scale.reshape(*scale.shape, *ones)
        return y if shift is None else y + shift.reshape(*shift.shape, *ones)

    def plain(self, style: Tensor) -> _ConvNd:
        """The ordinary convolution that it is for one style, shape (style_chan,)."""
        into, scale, shift = self.factors(style[None])
        weight: Tensor = self.weight
        over_in = 0 if self.transposed else 1
        if into is not None:
            weight = weight * along(into[0], over_in, weight.ndim)
        weight = weight * along(scale[0], 1 - over_in, weight.ndim)
        conv: _ConvNd = self.kind(**{**self.arguments, "bias": shift is not None})
        conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
        if shift is not None:
            conv.bias = nn.Parameter(shift[0].detach().clone(), requires_grad=False)
        return conv


CONVOLVE: dict[tuple[bool, int], Any] = {
    (False, 1): nn.functional.conv1d,
    (False, 2): nn.functional.conv2d,
    (False, 3): nn.functional.conv3d,
    (True, 1): nn.functional.conv_transpose1d,
    (True, 2): nn.functional.conv_transpose2d,
    (True, 3): nn.functional.conv_transpose3d,
}


def along(values: Tensor, axis: int, ndim: int) -> Tensor:
    """Values shaped to lie along one of several axes."""
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def arguments_of(conv: _ConvNd) -> dict[str, Any]:
    """What a valid convolution is made with.

    Raises:
        RecipeError: If it pads or is dilated.
    """
    if set(conv.padding) != {0} or set(conv.dilation) != {1}:
        raise RecipeError(f"a style acts on convolutions that neither pad nor are dilated: {conv}")
    return {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
    }


def make_styled(module: nn.Module, style_chan: int, modulation: Modulation) -> None:
    """Let a style act on all convolutions of a network; nothing if it has no numbers.

    Raises:
        RecipeError: If there are fewer than none.
    """
    if style_chan < 0:
        raise RecipeError(f"`style_chan` is {style_chan}; a style has 0 or more numbers")
    if modulation not in ("weights", "film"):
        raise RecipeError(f"`modulation` is {modulation!r}; it is 'weights' or 'film'")
    if style_chan == 0:
        return
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _ConvNd):
                setattr(parent, name, StyledConv(child, style_chan, modulation))


def through(layer: nn.Module, x: Tensor, style: Tensor | None) -> Tensor:
    """The output of a layer, or of a sequence, to which a style is given where one is taken."""
    if style is not None and isinstance(layer, nn.Sequential):
        for part in layer:
            x = through(part, x, style)
        return x
    y: Tensor = layer(x, style) if isinstance(layer, StyledConv) else layer(x)
    return y


def check_style(model: nn.Module, style: Tensor | None, style_chan: int) -> None:
    """Refuse a call without the style that a network takes, or with one that it does not.

    Raises:
        GeometryError: If there is one too many, or none.
    """
    if (style is None) == (style_chan > 0):
        raise GeometryError(
            f"{type(model).__name__} takes a style of {style_chan} numbers, and none was given; "
            f"call it with (x, style), style of shape (batch, {style_chan})"
            if style is None
            else f"{type(model).__name__} takes no style, but one was given; make it with "
            f"style_chan={style.shape[-1]}"
        )
