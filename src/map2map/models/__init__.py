"""Models: networks from (batch, in_chan, *space) to (batch, out_chan, *space).

A model is a class ``Model(in_chan, out_chan, *, ndim, …)`` that keeps every argument as an
attribute of the same name, from which an emulator's card is written. It has a `footprint`, or one
is measured. The blocks that models are built of are in `map2map.models.conv`; those of
the models that pad in `map2map.models.padded`.
"""

from map2map.models.conv import ConvBlock as ConvBlock
from map2map.models.conv import ResBlock as ResBlock
from map2map.models.convnet import ConvNet
from map2map.models.padded_convnet import PaddedConvNet
from map2map.models.padded_unet import PaddedUNet
from map2map.models.unet import UNet
from map2map.models.vnet import VNet

__all__ = ["ConvNet", "PaddedConvNet", "PaddedUNet", "UNet", "VNet"]
