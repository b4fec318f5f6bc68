"""Penguin: six halvings and three linear layers, after PENGUIN of Johanmkr's MasterThesis."""

from torch import Tensor, nn

from map2map.models.conv import BATCH_NORM, CONV
from map2map.models.reducing import Reducing

__all__ = ["Penguin"]


class Penguin(Reducing):
    """Six convolutions of width 4 that halve the cells, and three linear layers.

    Zeros are made up beyond the edges, in front of every convolution. With the defaults and one
    output channel it is the original network, which loads its weights.

    Args:
        in_chan: Channels of the input.
        out_chan: Numbers that come out.
        ndim: Number of axes.
        width: Channels behind the first convolution; 2, 4, 6, 8 and 10 times as many behind the
            next.
        dropout: Share of the values between the linear layers that training sets to zero.
        slope: What leaky ReLUs multiply negative values by; 0 is a ReLU.
        size: Cells of the input on every axis, for the head "flatten": a multiple of 64, which
            leaves a 64th of the cells to the first linear layer.
        head: "flatten", for one size; or "pool", for any size from 64 on: averages of the features
            in 4^ndim cells, whatever their number, so that the weights are those of 256.
        activation: Behind every layer but the last: "leaky_relu", "relu", "elu", "silu", "gelu",
            "tanh" and others of PyTorch that have no weights, see `ACTIVATIONS`.

    Raises:
        RecipeError: If an argument is out of range.
    """

    def __init__(  # noqa: PLR0913
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 2,
        width: int = 16,
        dropout: float = 0.0,
        slope: float = 0.2,
        size: int = 256,
        head: str = "flatten",
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__(
            in_chan,
            out_chan,
            ndim=ndim,
            width=width,
            dropout=dropout,
            slope=slope,
            size=size,
            head=head,
            activation=activation,
        )

        def block(before: int, after: int) -> nn.Sequential:
            conv = CONV[ndim](before, after, 4, stride=2, padding=1, bias=False)
            return nn.Sequential(conv, BATCH_NORM[ndim](after), self.activated())

        def dense(before: int, after: int) -> list[nn.Module]:
            linear = nn.Linear(before, after)
            return [linear, nn.BatchNorm1d(after), self.activated(), nn.Dropout(dropout)]

        self.conv2d1 = block(in_chan, width)
        self.conv2d2 = block(width, 2 * width)
        self.conv2d3 = block(2 * width, 4 * width)
        self.conv2d4 = block(4 * width, 6 * width)
        self.conv2d5 = block(6 * width, 8 * width)
        self.conv2d6 = block(8 * width, 10 * width)
        self.fc1 = nn.Sequential(nn.Flatten(), *dense(10 * width * self.linear_cells, 10 * width))
        self.fc2 = nn.Sequential(*dense(10 * width, width))
        self.output = nn.Sequential(nn.Linear(width, out_chan))

    def normalized_cells(self, features: int) -> int:  # noqa: ARG002
        """One: its linear layers are normalized, too."""
        return 1

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan).

        Raises:
            GeometryError: If the space does not fit, or a training batch is of one image.
        """
        self.check_input(x)
        x = self.conv2d3(self.conv2d2(self.conv2d1(x)))
        x = self.conv2d6(self.conv2d5(self.conv2d4(x)))
        y: Tensor = self.output(self.fc2(self.fc1(self.pool(x))))
        return y
