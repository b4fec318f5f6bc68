"""Models: networks from (batch, in_chan, *space) to (batch, out_chan, *space) or (batch, out_chan).

The latter *reduce*: they give numbers for the whole input, such as a label or a parameter of the
run that it is of (Racoon, Penguin, Paco, ResNet). Their footprint says so, and they are not tiled.

A model is a class ``Model(in_chan, out_chan, *, ndim, …)`` that keeps every argument as an
attribute of the same name, from which an emulator's card is written. It has a `footprint`, or one
is measured. The blocks that models are built of are in `map2map.models.conv`; those of
the models that pad in `map2map.models.padded` and `map2map.models.double_conv`, of those that
reduce in `map2map.models.reducing`, with the activations of `map2map.models.activations`, of
networks of columns, each of which is the channels of one cell, in `map2map.models.columns`, of
those on graphs, which need torch_geometric (extra `graph`), in `map2map.models.graph_nets`, of
Pangu in `map2map.models.earth`, and of those that double their cells in `map2map.models.doubling`.
Weights of Pangu belong to latitudes, so it is made for the ``shape`` of a grid, and takes no other.

Beside what is in ``__all__`` there is upsampling without weights, with which networks for
super-resolution are compared.
"""

from map2map.models.column_attention import ColumnAttention
from map2map.models.column_cnn import ColumnCNN
from map2map.models.column_fluxes import ColumnFluxes
from map2map.models.column_gat import ColumnGAT
from map2map.models.column_mlp import ColumnMLP
from map2map.models.column_unet import ColumnUNet
from map2map.models.columns import Profile as Profile
from map2map.models.conv import ConvBlock as ConvBlock
from map2map.models.conv import ResBlock as ResBlock
from map2map.models.convnet import ConvNet
from map2map.models.double_conv_unet import DoubleConvUNet
from map2map.models.factorized_fno import FactorizedFNO
from map2map.models.flow_matching import FlowMatching
from map2map.models.fno import FNO
from map2map.models.grid_gat import GridGAT
from map2map.models.grid_gcn import GridGCN
from map2map.models.grid_gin import GridGIN
from map2map.models.grid_graph_unet import GridGraphUNet
from map2map.models.grid_sage import GridSAGE
from map2map.models.neural_operator import NeuralOperator
from map2map.models.paco import Paco
from map2map.models.padded_convnet import PaddedConvNet
from map2map.models.padded_unet import PaddedUNet
from map2map.models.pangu import Pangu
from map2map.models.patch_gan import PatchGAN, PatchGAN42
from map2map.models.penguin import Penguin
from map2map.models.racoon import Racoon
from map2map.models.resnet import ResNet
from map2map.models.sr_discriminator import SRDiscriminator
from map2map.models.sr_generator import SRGenerator
from map2map.models.styled_vnet import StyledVNet
from map2map.models.ufno import UFNO
from map2map.models.unet import UNet
from map2map.models.upsampled_unet import UpsampledUNet
from map2map.models.upsampling import FourierUpsampling as FourierUpsampling
from map2map.models.upsampling import LinearUpsampling as LinearUpsampling
from map2map.models.vnet import VNet

__all__ = [
    "FNO",
    "UFNO",
    "ColumnAttention",
    "ColumnCNN",
    "ColumnFluxes",
    "ColumnGAT",
    "ColumnMLP",
    "ColumnUNet",
    "ConvNet",
    "DoubleConvUNet",
    "FactorizedFNO",
    "FlowMatching",
    "GridGAT",
    "GridGCN",
    "GridGIN",
    "GridGraphUNet",
    "GridSAGE",
    "NeuralOperator",
    "Paco",
    "PaddedConvNet",
    "PaddedUNet",
    "Pangu",
    "PatchGAN",
    "PatchGAN42",
    "Penguin",
    "Racoon",
    "ResNet",
    "SRDiscriminator",
    "SRGenerator",
    "StyledVNet",
    "UNet",
    "UpsampledUNet",
    "VNet",
]
