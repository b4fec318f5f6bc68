"""Models: networks from (batch, in_chan, *space) to (batch, out_chan, *space) or (batch, out_chan).

The latter *reduce*: they give numbers for the whole input, such as a label or a parameter of the
run that it is of (Racoon, Penguin, Paco, ResNet). Their footprint says so, and they are not tiled.

A model is a class ``Model(in_chan, out_chan, *, ndim, …)`` that keeps every argument as an
attribute of the same name, from which an emulator's card is written. It has a `footprint`, or one
is measured. The blocks that models are built of are in `map2map.models.conv`; those of
the models that pad in `map2map.models.padded`, and of those that reduce in
`map2map.models.reducing`, with the activations of `map2map.models.activations`.
"""

from map2map.models.conv import ConvBlock as ConvBlock
from map2map.models.conv import ResBlock as ResBlock
from map2map.models.convnet import ConvNet
from map2map.models.paco import Paco
from map2map.models.padded_convnet import PaddedConvNet
from map2map.models.padded_unet import PaddedUNet
from map2map.models.penguin import Penguin
from map2map.models.racoon import Racoon
from map2map.models.resnet import ResNet
from map2map.models.unet import UNet
from map2map.models.vnet import VNet

__all__ = [
    "ConvNet",
    "Paco",
    "PaddedConvNet",
    "PaddedUNet",
    "Penguin",
    "Racoon",
    "ResNet",
    "UNet",
    "VNet",
]
