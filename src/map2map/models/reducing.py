"""What the models share that reduce: from (batch, in_chan, *space) to (batch, out_chan).

Like conv.py, vocabulary that models may import. Their strides leave some cells of features, which
a linear layer sees one by one: so they take inputs of one size, or average the features to as many
cells as the linear layer has weights for.
"""

from torch import Tensor, nn

from map2map.errors import GeometryError, RecipeError
from map2map.footprints import Footprint
from map2map.models.activations import activation_of, check_activation
from map2map.models.padded import check_padded

__all__ = ["AVERAGE", "Reducing", "check_batch", "check_dropout"]

AVERAGE = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
HEADS = "flatten", "pool"


def check_dropout(dropout: float) -> None:
    """Refuse a share that is none, or everything.

    Raises:
        RecipeError: If it is out of range.
    """
    if not 0 <= dropout < 1:
        raise RecipeError(f"`dropout` is {dropout}, but must be at least 0 and below 1")


def check_batch(model: nn.Module, images: int, cells: int) -> None:
    """Refuse a training batch for which batch normalization has one value per channel.

    Args:
        model: Whose mode counts, and whose name is told.
        images: In the batch.
        cells: Of each image, where they are fewest before a batch normalization.

    Raises:
        GeometryError: If it does.
    """
    if model.training and images * cells == 1:
        raise GeometryError(
            f"{type(model).__name__} got a training batch of one image, but its batch "
            f"normalization needs at least two to know their spread; raise `batch_size`, of each "
            f"process, to 2 or more, and see that the last batch of an epoch has as many"
        )


class Reducing(nn.Module):
    """The arguments of a model that reduces, and the input sizes that it takes.

    An input of n cells leaves ``n // step - less`` cells of features on an axis, which a head
    brings to those of the linear layer behind it: "flatten" as they are, so that ``size`` is the
    only size that fits; "pool" by averaging to ``pooled`` cells (fewer are repeated), so that every
    size fits that leaves features. What is left over by the steps, on the high side, is not seen.

    Args:
        in_chan: Channels of the input.
        out_chan: Numbers that come out.
        ndim: Number of axes.
        width: Channels of the first features.
        dropout: Share of the values in front of a linear layer that training sets to zero.
        slope: What activations multiply negative values by; 0 is a ReLU.
        size: Cells of the input on every axis, for the head "flatten".
        head: "flatten" or "pool".
        activation: One of `ACTIVATIONS`; ``slope`` is of "leaky_relu" only.

    Raises:
        RecipeError: If an argument is out of range, or the steps do not divide ``size``.
    """

    step = 64
    less = 0
    pooled = 4

    def __init__(  # noqa: PLR0913
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int,
        width: int,
        dropout: float,
        slope: float,
        size: int,
        head: str,
        activation: str,
    ) -> None:
        super().__init__()
        check_padded(ndim, slope, in_chan=in_chan, out_chan=out_chan, width=width)
        check_dropout(dropout)
        check_activation(activation, slope)
        if head not in HEADS:
            raise RecipeError(f"`head` is {head!r}, but must be {' or '.join(map(repr, HEADS))}")
        self.in_chan, self.out_chan, self.ndim, self.width = in_chan, out_chan, ndim, width
        self.dropout, self.slope, self.size, self.head = dropout, slope, size, head
        self.activation = activation
        if head == "flatten" and (size < self.smallest or size % self.step):
            raise RecipeError(
                f"`size` is {size}, but the features of {type(self).__name__} have cells "
                f"{self.step} times as wide, so it must be {self.some_sizes()}; or set "
                f"`head: pool`, which takes any size from {self.smallest} on"
            )
        # on an axis, in front of the linear layer
        cells = self.pooled if head == "pool" else self.cells(size)
        self.linear_cells = cells**ndim
        self.pool = AVERAGE[ndim](cells) if head == "pool" else nn.Identity()
        smallest = self.smallest if head == "pool" else size
        self.footprint = Footprint(margin=0, minimum=smallest, reduces=True)

    def activated(self) -> nn.Module:
        """A new activation."""
        return activation_of(self.activation, self.slope)

    @property
    def smallest(self) -> int:
        """The smallest input that leaves a cell of features on an axis."""
        return self.step * (self.less + 1)

    def cells(self, size: int) -> int:
        """Cells of features on an axis of so many cells."""
        return size // self.step - self.less

    def some_sizes(self) -> str:
        """The sizes that "flatten" can be made for, for a message."""
        return f"{self.smallest}, {self.smallest + self.step}, … (multiples of {self.step})"

    def check_input(self, x: Tensor) -> None:
        """Refuse an input of another rank or size, and a training batch of too few images.

        Raises:
            GeometryError: If it does not fit; tells which sizes do.
        """
        who, space = type(self).__name__, tuple(x.shape[2:])
        if x.ndim != self.ndim + 2:
            raise GeometryError(
                f"{who} takes (batch, channel, and {self.ndim} axes of space), not a tensor of "
                f"shape {tuple(x.shape)}"
            )
        for axis, n in enumerate(space):
            if self.head == "flatten" and n != self.size:
                raise GeometryError(
                    f"{who} cannot take {n} cells (axis {axis} of {space}): its linear layer has "
                    f"weights for `size` {self.size} only; make it with the size of the data, "
                    f"which can be {self.some_sizes()}, or with `head: pool`, which takes any "
                    f"from {self.smallest} on"
                )
            if n < self.smallest:
                raise GeometryError(
                    f"{who} cannot take {n} cells (axis {axis} of {space}): with `head: pool` it "
                    f"takes any number from {self.smallest} on, the least that leaves a cell of "
                    f"features"
                )
        features = 1
        for n in space:
            features *= self.cells(n)
        check_batch(self, x.shape[0], self.normalized_cells(features))

    def normalized_cells(self, features: int) -> int:
        """The fewest values of an image and channel that a batch normalization gets.

        Args:
            features: Cells that the strides leave.
        """
        return features
