"""The V that the U-Net and the V-Net share: down to larger cells, and up again, past skips.

Like conv.py, vocabulary that models may import.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.models.conv import ConvBlock, narrow_like

__all__ = ["adds_input", "v_blocks", "v_footprint", "v_forward"]


def v_blocks(
    conv: type[ConvBlock],
    chans: tuple[int, int],
    *,
    ndim: int,
    width: int,
    depth: int,
    batch_norm: bool,
) -> Iterator[tuple[str, ConvBlock]]:
    """Names and blocks in the order of map2map: of each level, the bottom, and each level again.

    Args:
        conv: The class of the blocks between changes of level.
        chans: Channels of the input and of the output.
        ndim: Number of axes.
        width: Channels inside.
        depth: Number of times that the cells are doubled in size.
        batch_norm: Whether to normalize with the statistics of batches.

    Raises:
        RecipeError: If width or depth are not positive.
    """
    if width < 1 or depth < 1:
        raise RecipeError(f"`width` ({width}) and `depth` ({depth}) must be at least 1")

    def block(kind: type[ConvBlock], seq: str, in_chan: int, out_chan: int) -> ConvBlock:
        seq = seq if batch_norm else seq.replace("B", "")
        return kind(in_chan, out_chan, seq=seq, ndim=ndim)

    for level in range(depth):
        if level == 0:
            yield "conv_l0", block(conv, "CACBA", chans[0], width)
        else:
            yield f"conv_l{level}", block(conv, "CBACBA", width, width)
        yield f"down_l{level}", block(ConvBlock, "DBA", width, width)
    yield "conv_c", block(conv, "CBACBA", width, width)
    for level in reversed(range(depth)):
        yield f"up_r{level}", block(ConvBlock, "UBA", width, width)
        if level == 0:
            yield "conv_r0", block(conv, "CAC", 2 * width, chans[1])
        else:
            yield f"conv_r{level}", block(conv, "CBACBA", 2 * width, width)


def v_footprint(depth: int) -> Footprint:
    """What an output cell of a V of valid convolutions depends on.

    A level of cells of size s cuts 2 s cells per side on the way down and 2 s on the way up, the
    bottom 2 s in all: together 6·2^depth - 4. A size n becomes n / 2 - 2 at each level and must be
    even before, so n + 4 is a multiple of 2^depth. The first cells that are pooled together are the
    third and fourth, and so on all levels.
    """
    cells = 2**depth
    return Footprint(margin=6 * cells - 4, multiple=cells, remainder=-4 % cells, ring=2 % cells)


def v_forward(model: nn.Module, x: Tensor, depth: int, style: Tensor | None = None) -> Tensor:
    """Run the blocks that lie under their names in ``model`` on (batch, channel, *space)."""
    blocks = dict(model.named_children())
    y: Tensor = x
    skips: list[Tensor] = []
    for level in range(depth):
        y = blocks[f"conv_l{level}"](y, style)
        skips.append(y)
        y = blocks[f"down_l{level}"](y, style)
    y = blocks["conv_c"](y, style)
    for level in reversed(range(depth)):
        y = blocks[f"up_r{level}"](y, style)
        # what the smaller V below has cut off, in cells twice as wide
        cut = 2 * v_footprint(depth - level - 1).margin
        y = torch.cat([narrow_like(skips.pop(), y, (cut, cut)), y], dim=1)
        y = blocks[f"conv_r{level}"](y, style)
    return y


def adds_input(bypass: bool | None, chans: tuple[int, int]) -> bool:
    """Whether the input is added to the output: as asked, or wherever the channels are as many.

    Raises:
        RecipeError: If it is asked for with unequal channels.
    """
    if bypass and chans[0] != chans[1]:
        raise RecipeError(
            f"`bypass` adds the input to the output, but they have {chans[0]} and {chans[1]} "
            f"channels; leave it out"
        )
    return chans[0] == chans[1] if bypass is None else bypass
