"""ConvNet: a plain stack of valid convolutions; the baseline that a deeper model has to beat."""

from itertools import pairwise

from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.models.conv import BLOCK_SLOPE, CONV, check_ndim

__all__ = ["ConvNet"]


class ConvNet(nn.Module):
    """``depth`` valid convolutions with leaky ReLUs between them.

    Every convolution shrinks the field, so no cell is ever computed from made-up padding.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels inside.
        depth: Number of convolutions.
        kernel_size: Their width in cells; odd.

    Raises:
        RecipeError: If an argument is not positive, or the kernel has no middle cell.
    """

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 3,
        width: int = 32,
        depth: int = 4,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        if width < 1 or depth < 1:
            raise RecipeError(f"`width` ({width}) and `depth` ({depth}) must be at least 1")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise RecipeError(
                f"`kernel_size` is {kernel_size}, but must be odd, so that an output cell lies in "
                f"the middle of what it sees"
            )
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.width, self.depth, self.kernel_size = width, depth, kernel_size
        chans = [in_chan, *[width] * (depth - 1), out_chan]
        layers: list[nn.Module] = []
        for before, after in pairwise(chans):
            layers += [
                CONV[ndim](before, after, kernel_size),
                nn.LeakyReLU(BLOCK_SLOPE, inplace=True),
            ]
        # no activation at the end: the output may be negative
        self.convs = nn.Sequential(*layers[:-1])
        self.footprint = Footprint(margin=depth * (kernel_size // 2), ring=0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *smaller space).

        Raises:
            GeometryError: If there are too few cells.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        y: Tensor = self.convs(x)
        return y
