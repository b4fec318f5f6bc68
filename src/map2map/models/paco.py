"""Paco: periodic convolutions, halved six times, after PACO of Johanmkr's MasterThesis."""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from map2map.models.conv import BATCH_NORM, CONV
from map2map.models.padded import check_padded
from map2map.models.reducing import Reducing

__all__ = ["Paco"]


class Paco(Reducing):
    """Groups of two periodic convolutions and one that halves the cells, and two linear layers.

    The input is taken for periodic: convolutions of width 3 continue at the other end, and so
    features move with shifts of the input by multiples of 2^levels, around the edges. Only the last
    convolution, of width 4, does not continue. With the defaults and one output channel it is the
    original network, which loads its weights, those of the normalization B01, too, which is not
    used there either.

    Args:
        in_chan: Channels of the input.
        out_chan: Numbers that come out.
        ndim: Number of axes.
        width: Half of the channels of the first group; every group has twice as many.
        dropout: Share of the values before both linear layers that training sets to zero.
        slope: What leaky ReLUs multiply negative values by; 0 is a ReLU.
        size: Cells of the input on every axis, for the head "flatten": a multiple of 2^levels,
            at least 4 of them. From k of them the first linear layer gets k - 3 cells.
        head: "flatten", for one size; or "pool", for any size from 4·2^levels on: the mean of the
            features over all cells, so that the weights are those of 4·2^levels.
        levels: Number of groups; fewer take smaller inputs, 4·2^levels cells at least.
        activation: Behind every layer but the last: "leaky_relu", "relu", "elu", "silu", "gelu",
            "tanh" and others of PyTorch that have no weights, see `ACTIVATIONS`.

    Raises:
        RecipeError: If an argument is out of range.
    """

    less = 3
    pooled = 1

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
        levels: int = 6,
        activation: str = "leaky_relu",
    ) -> None:
        check_padded(ndim, slope, levels=levels)
        self.levels, self.step = levels, 2**levels
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
        self.act = self.activated()
        self.names = []
        for name, conv in self._convolutions():
            self.names.append(name)
            self.add_module(f"C{name}", conv)
            self.add_module(f"B{name}", BATCH_NORM[ndim](conv.out_channels))  # type: ignore[arg-type]
        # not used, and so without a gradient, which processes would wait for
        self.get_submodule("B01").requires_grad_(False)
        last = 2 ** (levels + 1) * width
        self.FC1 = nn.Linear(last * self.linear_cells, last // 2)
        self.FC2 = nn.Linear(last // 2, out_chan)
        for module in self.modules():
            if isinstance(module, (*CONV.values(), nn.Linear)):
                # He's, as for a ReLU, whatever the slope
                nn.init.kaiming_normal_(module.weight)  # type: ignore[arg-type]

    def _convolutions(self) -> Iterator[tuple[str, nn.Module]]:
        """Names and convolutions, in their order."""
        conv, before = CONV[self.ndim], self.in_chan
        for group in range(self.levels):
            after = 2 ** (group + 1) * self.width
            for i, chan in enumerate((before, after), start=1):
                ring = conv(chan, after, 3, padding=1, padding_mode="circular")
                yield f"{group}{i}", ring
            yield f"{group}3", conv(after, after, 2, stride=2)
            before = after
        yield f"{self.levels}1", conv(before, 2 * before, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan).

        Raises:
            GeometryError: If the space does not fit, or a training batch is too small.
        """
        self.check_input(x)
        layers = dict(self.named_children())
        for name in self.names:
            x = layers[f"C{name}"](x)
            # the first is not normalized
            x = self.act(x if name == "01" else layers[f"B{name}"](x))
        x = self.pool(x).flatten(1)
        x = F.dropout(x, self.dropout, self.training)
        x = self.act(self.FC1(x))
        y: Tensor = self.FC2(F.dropout(x, self.dropout, self.training))
        return y
