"""Pangu: a step of the weather, after Pangu-Weather (Bi et al. 2023, Nature 619, 533)."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from map2map.errors import ArtefactError, RecipeError
from map2map.footprints import Footprint
from map2map.models.earth import EarthLayer, Windows
from map2map.models.patches import PatchEmbed, PatchRecover, centered, pad_to, unpad
from map2map.typing import Shape

__all__ = ["Pangu", "from_pangu_weather"]

LAYERS = 4


class Pangu(nn.Module):
    """Patches of the atmosphere become tokens, which attend to each other in windows.

    Channels are those of fields in this order: first variables on levels, the levels of one after
    those of another; then variables at the surface; these are inputs and outputs. Inputs alone are
    what follows: masks and other fields at the surface, and last what else is on levels
    (``columns``). So in_chan and out_chan, with ``levels`` and ``surface``, tell how many of each.

    With the defaults, 5 variables on levels, 4 at the surface and 3 masks it is Pangu-Weather, of
    64 220 169 weights; with ``patch: [2, 8, 8]`` Pangu-Weather Lite, of 44 603 913. Zeros fill up
    levels, latitudes and longitudes to whole patches and windows. Weights belong to latitudes, so
    it takes one grid only. Around the globe a shift by 2 patch[2] window[2] longitudes shifts the
    output, if a multiple of it are all of them; zeros between the last longitude and the first
    would be seen.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes; 2, latitude and longitude.
        shape: Latitudes and longitudes of the grid.
        levels: Channels of a variable on levels.
        surface: How many of the outputs are variables at the surface.
        columns: How many fields on levels are inputs alone, such as a constant one.
        patch: Levels, latitudes and longitudes of a patch.
        window: Patches of a window, likewise.
        width: Channels of a token; twice as many where four tokens are one.
        depths: Blocks of the four layers: of tokens, of four tokens in one, twice, of tokens.
        heads: Their attentions side by side, which divide the channels.
        drop_path: Share of the samples for which training leaves out the last block of a layer of
            four tokens in one; from the first block of the first layer on it grows from 0.
        limited_area: Whether the last longitude has no neighbor in the first.
        checkpointing: Whether training computes blocks anew for their gradients, which takes a
            third more time and a fraction of the memory.

    Raises:
        RecipeError: If an argument is out of range, or channels are no whole variables.
    """

    def __init__(  # noqa: PLR0913
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 2,
        shape: Sequence[int] = (721, 1440),
        levels: int = 13,
        surface: int = 4,
        columns: int = 0,
        patch: Sequence[int] = (2, 4, 4),
        window: Sequence[int] = (2, 6, 12),
        width: int = 192,
        depths: Sequence[int] = (2, 6, 6, 2),
        heads: Sequence[int] = (6, 12, 12, 6),
        drop_path: float = 0.2,
        limited_area: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if ndim != 2:
            raise RecipeError(
                f"`ndim` is {ndim!r}, but a field of Pangu has 2 axes, latitude and longitude, "
                f"and its levels are channels"
            )
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.shape = whole_numbers("shape", shape, 2)
        self.patch, self.window = (
            whole_numbers(name, value, 3) for name, value in (("patch", patch), ("window", window))
        )
        self.depths = whole_numbers("depths", depths, LAYERS)
        self.heads = whole_numbers("heads", heads, LAYERS)
        self.levels, self.surface, self.columns, self.width = levels, surface, columns, width
        self.drop_path, self.limited_area = drop_path, limited_area
        self.checkpointing = checkpointing
        self._check()
        self.upper = (out_chan - surface) // levels
        self.masks = in_chan - out_chan - columns * levels

        space = levels, *self.shape
        counts = [-(-n // m) for n, m in zip(space, self.patch, strict=True)]
        # the surface is one more level of tokens, the last
        fine = (counts[0] + 1, *counts[1:])
        self.merged = centered(fine, (1, 2, 2))
        coarse = (fine[0], *(-(-n // 2) for n in fine[1:]))

        step = self.patch[1:]
        self.embed = nn.ModuleDict(
            {
                "levels": PatchEmbed(self.upper + columns, self.patch, space, width),
                "surface": PatchEmbed(surface + self.masks, step, self.shape, width),
            }
        )
        self.layers = nn.ModuleList(
            EarthLayer(
                Windows(coarse if inner else fine, self.window, limited_area),
                (1 + inner) * width,
                self.heads[i],
                drops,
                checkpointing=checkpointing,
            )
            for i, (inner, drops) in enumerate(self._drops())
        )
        self.down = nn.Sequential(
            nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)
        )
        self.up = nn.Linear(2 * width, 4 * width, bias=False)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width, bias=False))
        self.recover = nn.ModuleDict(
            {
                "levels": PatchRecover(2 * width, self.upper, self.patch, space),
                "surface": PatchRecover(2 * width, surface, step, self.shape),
            }
        )
        cause = "its windows are shifted from block to block, and its weights know latitudes"
        self.footprint = Footprint(margin=0, whole=cause, sizes=self.shape)

    def _check(self) -> None:
        """Refuse arguments that do not fit together."""
        for name, least in (("levels", 1), ("surface", 1), ("width", 1), ("columns", 0)):
            if getattr(self, name) < least:
                raise RecipeError(f"`{name}` is {getattr(self, name)}, but must be {least} or more")
        if not 0 <= self.drop_path < 1:
            raise RecipeError(f"`drop_path` is {self.drop_path}, but must be from 0 to below 1")
        upper = self.out_chan - self.surface
        if upper < self.levels or upper % self.levels:
            raise RecipeError(
                f"the targets have {self.out_chan} channels, of which {self.surface} are variables "
                f"at the surface (`surface`); the other {upper} are no whole variables on "
                f"{self.levels} levels (`levels`), of which there must be one at least"
            )
        least = self.out_chan + self.columns * self.levels
        if self.in_chan < least:
            raise RecipeError(
                f"the inputs have {self.in_chan} channels, but must have {least} or more: those "
                f"of the targets, then masks, then {self.columns} (`columns`) fields on "
                f"{self.levels} levels"
            )
        for i, heads in enumerate(self.heads):
            width = self.width * (2 if i in (1, 2) else 1)
            if width % heads:
                raise RecipeError(
                    f"`heads` are {list(self.heads)}, but layer {i + 1} has {width} channels, "
                    f"which {heads} heads do not share evenly"
                )

    def _drops(self) -> list[tuple[bool, list[float]]]:
        """Of each layer, whether it is of four tokens in one, and what its blocks drop."""
        outer, inner = (max(self.depths[i], self.depths[3 - i]) for i in (0, 1))
        last = max(outer + inner - 1, 1)
        rates = [self.drop_path * i / last for i in range(outer + inner)]
        kinds = [(False, rates), (True, rates[outer:]), (True, rates[outer:]), (False, rates)]
        return [
            (is_inner, found[:depth])
            for (is_inner, found), depth in zip(kinds, self.depths, strict=True)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, latitude, longitude) to (batch, out_chan, latitude, longitude).

        Raises:
            GeometryError: If the grid is another one.
        """
        self.footprint.check_input(x.shape, ndim=2, who=type(self).__name__)
        x = self._embedded(x)
        x = self.layers[0](x)
        skip = x
        x = self._merged(x)
        x = self.layers[2](self.layers[1](x))
        x = self._split(x, skip)
        x = self.layers[3](x)
        return self._recovered(torch.cat([x, skip], dim=-1))

    def _embedded(self, x: Tensor) -> Tensor:
        """Tokens, shape (batch, level, latitude, longitude, channel); of the surface, the last."""
        parts = [self.upper * self.levels, self.surface + self.masks, self.columns * self.levels]
        above, below, columns = torch.split(x, parts, dim=1)
        above = torch.unflatten(torch.cat([above, columns], dim=1), 1, (-1, self.levels))
        tokens, lowest = self.embed["levels"](above), self.embed["surface"](below)
        return torch.cat([tokens, lowest[:, None]], dim=1)

    def _merged(self, x: Tensor) -> Tensor:
        """Four tokens in one."""
        x = pad_to(x, (*self.merged, (0, 0)))
        x = torch.unflatten(torch.unflatten(x, 3, (-1, 2)), 2, (-1, 2)).transpose(3, 4)
        y: Tensor = self.down(x.flatten(4))
        return y

    def _split(self, x: Tensor, like: Tensor) -> Tensor:
        """Four tokens of one, as many as ``like`` has."""
        x = torch.unflatten(self.up(x), -1, (2, 2, -1)).transpose(3, 4)
        x = x.flatten(4, 5).flatten(2, 3)
        y: Tensor = self.mix(unpad(x, self.merged, 1))
        return y.reshape(like.shape)

    def _recovered(self, x: Tensor) -> Tensor:
        """Channels of cells from tokens."""
        above, below = self.recover["levels"](x[:, :-1]), self.recover["surface"](x[:, -1])
        return torch.cat([above.flatten(1, 2), below], dim=1)


def whole_numbers(name: str, value: Sequence[int], count: int) -> Shape:
    """So many positive whole numbers.

    Raises:
        RecipeError: If they are not.
    """
    found = tuple(value)
    if len(found) != count or not all(isinstance(n, int) and n > 0 for n in found):
        raise RecipeError(f"`{name}` is {value!r}, but must be {count} positive whole numbers")
    return found


NAMES = (
    (r"embedding_layer\.conv_plevel\.", "embed.levels."),
    (r"embedding_layer\.conv_surface\.", "embed.surface."),
    (r"attention\.earth_specific_bias$", "attention.bias"),
    (r"attention\.linear1\.", "attention.qkv."),
    (r"attention\.linear2\.", "attention.out."),
    (r"mlp\.linear1\.", "mlp.0."),
    (r"mlp\.linear2\.", "mlp.2."),
    (r"downsample\.norm\.", "down.0."),
    (r"downsample\.linear\.", "down.1."),
    (r"upsample\.linear1\.", "up."),
    (r"upsample\.norm\.", "mix.0."),
    (r"upsample\.linear2\.", "mix.1."),
    (r"_output_layer\.conv\.weight", "recover.levels.linear.weight"),
    (r"_output_layer\.conv\.bias", "recover.levels.bias"),
    (r"_output_layer\.conv_surface\.weight", "recover.surface.linear.weight"),
    (r"_output_layer\.conv_surface\.bias", "recover.surface.bias"),
)
"""Names of weights in the Pangu-Weather of AI4sim's model-collection, and of mfai, and here. In
between are ``layer1.blocks.0.`` there and ``layers.0.blocks.0.`` here, and so on."""

COMPUTED = ("position_index", "constant_masks", "const2")
"""What they save beside weights: here it is computed, or an input."""


def from_pangu_weather(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of AI4sim's Pangu-Weather, or of a training of it, under their names here.

    Convolutions of patches are linear layers here; all else has the same shape. The orders of
    channels, windows and biases are the same.

    Args:
        state: Weights by name; in front of all names may be that of the network in its training.

    Raises:
        ArtefactError: If it is no such network.
    """
    known = "embedding_layer.conv_plevel.weight"
    first = next((name for name in state if name.endswith(known)), None)
    if first is None:
        raise ArtefactError(
            f"these are no weights of Pangu-Weather, which has {known}; there "
            f" are {', '.join(list(state)[:3])}, …"
        )
    prefix = first.removesuffix(known)
    found = {}
    for name, value in state.items():
        bare = name.removeprefix(prefix)
        if not name.startswith(prefix) or bare.endswith(COMPUTED):
            continue
        for older, ours in NAMES:
            bare = re.sub(older, ours, bare)
        if bare.startswith("embed.") and bare.endswith("weight"):
            value = value.flatten(1)
        elif bare.startswith("recover.") and bare.endswith("weight"):
            value = value.flatten(1).T.contiguous()
        found[re.sub(r"^layer([1-4])\.", lambda m: f"layers.{int(m[1]) - 1}.", bare)] = value
    return found
