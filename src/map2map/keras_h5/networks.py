"""The models that pad as lists of layers, and back.

A list is recognized by comparison with that of a model of the same sizes, layer by layer, so
nothing is read that would be computed differently.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from map2map.errors import ArtefactError
from map2map.keras_h5.layers import Layer, Network, Weights
from map2map.models import PaddedConvNet, PaddedUNet

__all__ = ["layers_of", "model_of"]

KERNEL = (2, 3, 1, 0)
"""Axes of PyTorch's kernels, (out, in, y, x) or transposed (in, out, y, x), in Keras's order."""

MAX_LEVELS = 16
"""A U-Net with more has more cells in its largest cell than a field has."""


def layers_of(model: nn.Module) -> list[Layer]:
    """The layers of a model with its weights.

    Raises:
        ArtefactError: If it is neither of the models that pad, or has other than two axes.
    """
    kind = type(model).__name__
    if not isinstance(model, PaddedConvNet | PaddedUNet):
        raise ArtefactError(
            f"a Keras file that clients read holds a PaddedConvNet or a PaddedUNet, not a {kind}: "
            f"the others have layers that the form does not know; try --to onnx"
        )
    if model.ndim != 2:
        raise ArtefactError(
            f"a Keras file that clients read holds networks on 2 axes, but this {kind} is on "
            f"{model.ndim}; try --to onnx"
        )
    chans = model.in_chan, model.out_chan
    if isinstance(model, PaddedConvNet):
        layers = convnet(*chans, model.width, model.depth, model.kernel_size, model.slope)
    else:
        layers = unet(*chans, model.width, model.levels, model.slope)
    weights = iter([weights_of(conv) for conv in convs_of(model)])
    return [
        replace(layer, weights=next(weights)) if layer.kind in ("conv", "double") else layer
        for layer in layers
    ]


def model_of(network: Network) -> PaddedConvNet | PaddedUNet:
    """The model that computes what a network does, with its weights.

    Raises:
        ArtefactError: If there is none; names the first layer that differs.
    """
    layers = network.layers
    convs = [layer for layer in layers if layer.kind in ("conv", "double")]
    slopes = [layer.slope for layer in layers if layer.kind == "activation"]
    if len(convs) < 2:
        raise ArtefactError(f"the network has {len(convs)} convolutions; it must have 2 or more")
    chans = layers[0].chan, convs[-1].chan
    width, kernel_size, slope = convs[0].chan, convs[0].width, slopes[0] if slopes else 1.0
    levels = 1 + sum(layer.kind == "double" for layer in layers)
    if 1 < levels <= MAX_LEVELS:
        expected, name = unet(*chans, width, levels, slope), "PaddedUNet"
    else:
        expected = convnet(*chans, width, len(convs) - 1, kernel_size, slope)
        name = "PaddedConvNet"
    check_same(layers, expected, name)
    model: PaddedConvNet | PaddedUNet
    if levels > 1:
        model = PaddedUNet(*chans, width=width, levels=levels, slope=slope)
    else:
        model = PaddedConvNet(
            *chans,
            width=width,
            depth=len(convs) - 1,
            kernel_size=kernel_size,
            slope=slope,
            dropout=network.dropout,
        )
    with torch.no_grad():
        for conv, layer in zip(convs_of(model), convs, strict=True):
            assert layer.weights is not None
            assert conv.bias is not None
            kernel, bias = (torch.from_numpy(array) for array in layer.weights)
            back = [KERNEL.index(axis) for axis in range(4)]
            conv.weight.copy_(kernel.permute(back))
            conv.bias.copy_(bias)
    return model


def check_same(found: Sequence[Layer], expected: Sequence[Layer], name: str) -> None:
    """Refuse layers that are not those of a model.

    Raises:
        ArtefactError: If they are not; names the first that differs.
    """

    def told(layer: Layer) -> str:
        words = {
            "input": "the input",
            "conv": f"a convolution of width {layer.width} to {layer.chan} channels",
            "double": f"a transposed convolution to {layer.chan} channels",
            "activation": f"an activation of slope {layer.slope:g}",
            "pool": "a maximum of 2 x 2 cells",
            "join": "channels put behind each other",
        }
        names = [found[number].name or "?" for number in layer.inputs]
        return words[layer.kind] + f" (of {' and '.join(names)})" * bool(names)

    for here, there in zip(found, expected, strict=False):
        if here != there:
            raise ArtefactError(
                f"the network is none that map2map has: layer {here.name!r} is {told(here)}, where "
                f"a {name} has {told(there)}"
            )
    if len(found) != len(expected):
        end, more = sorted((found, expected), key=len)
        which = "lacks" if end is found else "has"
        raise ArtefactError(
            f"the network is none that map2map has: behind layer {found[len(end) - 1].name!r} it "
            f"{which} {told(more[len(end)])}, compared with a {name}"
        )


class Chain:
    """A list of layers that grows.

    Args:
        in_chan: Channels of the input.
        slope: Of all activations.
    """

    def __init__(self, in_chan: int, slope: float) -> None:
        self.layers = [Layer("input", (), in_chan, name="input_1")]
        self.slope = slope

    def add(self, layer: Layer) -> None:
        """Add a layer."""
        self.layers.append(layer)

    @property
    def last(self) -> int:
        """Number of the layer that was added last."""
        return len(self.layers) - 1

    def conv(self, name: str, chan: int, width: int = 3, *, double: bool = False) -> None:
        """Add a convolution of what is last, and an activation."""
        kind = "double" if double else "conv"
        self.add(Layer(kind, (self.last,), chan, width, name=name))  # type: ignore[arg-type]
        if self.slope != 1:
            name = f"{name}_activation"
            self.add(Layer("activation", (self.last,), chan, slope=self.slope, name=name))

    def output(self, name: str, chan: int) -> list[Layer]:
        """Add a convolution of width 1 without activation, and give all layers."""
        self.add(Layer("conv", (self.last,), chan, 1, name=name))
        return self.layers


def convnet(
    in_chan: int, out_chan: int, width: int, depth: int, kernel_size: int, slope: float
) -> list[Layer]:
    """The layers of a `PaddedConvNet`, called as Keras calls them by itself."""
    chain = Chain(in_chan, slope)
    for i in range(depth):
        chain.conv(f"conv2d_{i}" if i else "conv2d", width, kernel_size)
    return chain.output(f"conv2d_{depth}", out_chan)


def unet(in_chan: int, out_chan: int, width: int, levels: int, slope: float) -> list[Layer]:
    """The layers of a `PaddedUNet`, called as 2Dto2D-DLE's."""
    chain = Chain(in_chan, slope)
    skips = []
    for level in range(levels):
        chan = width * 2**level
        if level:
            pool = f"unet_down{level}_encode_maxpool"
            chain.add(Layer("pool", (chain.last,), chan // 2, name=pool))
        prefix = f"unet_down{level}_conv" if level else "unet_down0"
        chain.conv(f"{prefix}_0", chan)
        chain.conv(f"{prefix}_1", chan)
        skips.append(chain.last)
    skips.pop()
    for step, level in enumerate(reversed(range(levels - 1))):
        chan, prefix = width * 2**level, f"unet_up{step}"
        chain.conv(f"{prefix}_decode_trans_conv", chan, double=True)
        chain.conv(f"{prefix}_conv_before_concat_0", chan)
        inputs = chain.last, skips.pop()
        chain.add(Layer("join", inputs, 2 * chan, name=f"{prefix}_concat"))
        chain.conv(f"{prefix}_conv_after_concat_0", chan)
        chain.conv(f"{prefix}_conv_after_concat_1", chan)
    return chain.output("unet_output", out_chan)


def convs_of(model: nn.Module) -> list[_ConvNd]:
    """The convolutions of a model that pads, in the order of its layers."""
    return [module for module in model.modules() if isinstance(module, _ConvNd)]


def weights_of(conv: _ConvNd) -> Weights:
    """Kernel in Keras's order, and bias."""
    assert conv.bias is not None
    kernel, bias = conv.weight.detach().cpu(), conv.bias.detach().cpu()
    return kernel.permute(KERNEL).contiguous().float().numpy(), bias.float().numpy()
