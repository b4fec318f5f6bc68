"""Pangu against a network of loops over windows and tokens, in the original's names."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from map2map.crops import Crops
from map2map.data import FieldData, Reading
from map2map.emulator import Emulator
from map2map.errors import ArtefactError, GeometryError, RecipeError
from map2map.fields import Field
from map2map.footprints import Footprint
from map2map.grids import Domain
from map2map.losses import WeightedL1
from map2map.models import Pangu
from map2map.models.earth import EarthBlock, Windows, bias_index
from map2map.models.pangu import from_pangu_weather
from map2map.models.patches import centered
from map2map.task import Task
from map2map.train import Output, make_trainer, train

SMALL = {
    "shape": (7, 12),
    "levels": 3,
    "surface": 1,
    "patch": (2, 2, 2),
    "window": (2, 2, 4),
    "width": 8,
    "depths": (2, 3, 2, 1),
    "heads": (2, 4, 2, 1),
}
CHANNELS = (2 * 3 + 1 + 2, 2 * 3 + 1)
"""Two variables on levels, one at the surface, and two masks."""


@pytest.fixture(autouse=True)
def one_thread():
    """Arrays are tiny, and threads that wait for each other slow them down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(channels=CHANNELS, **options):
    """A small network in double precision, with biases that matter."""
    torch.manual_seed(0)
    model = Pangu(*channels, **(SMALL | options)).double().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("attention.bias"):
            torch.nn.init.normal_(parameter)
        elif "norm" in name or name.startswith(("down.0", "mix.0")):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def field(channels=CHANNELS[0], shape=SMALL["shape"], batch=1):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *shape, generator=generator, dtype=torch.float64)


def weights(masks, columns=0, **options):
    """How many it has, without making them."""
    with torch.device("meta"):
        out_chan = 5 * 13 + 4
        model = Pangu(out_chan + masks + 13 * columns, out_chan, columns=columns, **options)
    return sum(p.numel() for p in model.parameters())


LITE = {"patch": (2, 8, 8)}


@pytest.mark.parametrize(
    ("expected", "masks", "columns", "options"),
    [
        (64_220_169, 3, 0, {}),
        (64_210_953, 0, 0, {}),
        (44_603_913, 3, 0, LITE),
        (44_567_049, 0, 0, LITE),
        (44_603_913 + 24_576, 3, 1, LITE),
        (29_024_265, 3, 0, LITE | {"shape": (120, 240)}),
        (28_987_401, 0, 0, LITE | {"shape": (120, 240)}),
        (26_480_649, 3, 0, LITE | {"shape": (24, 48)}),
    ],
)
def test_it_has_as_many_weights_as_the_original(expected, masks, columns, options):
    assert weights(masks, columns, **options) == expected


def test_windows_of_the_original_are_124_and_64():
    with torch.device("meta"):
        full, lite = Pangu(69, 69), Pangu(69, 69, patch=(2, 8, 8))
    rows = [[layer.blocks[0].windows.rows for layer in m.layers] for m in (full, lite)]
    assert rows == [[124, 64, 64, 124], [64, 32, 32, 64]]
    assert [layer.blocks[0].windows.tokens for layer in full.layers[:2]] == [
        (8, 181, 360),
        (8, 91, 180),
    ]
    assert full.layers[0].blocks[0].attention.bias.shape == (3312, 124, 6)


def test_zeros_are_made_up_on_both_sides_and_the_odd_one_above():
    assert centered((13, 721, 1440), (2, 4, 4)) == ((0, 1), (1, 2), (0, 0))
    assert centered((13, 721, 1440), (2, 8, 8)) == ((0, 1), (3, 4), (0, 0))


# tokens, window: with and without zeros, of one longitude window, of odd sizes
WINDOWS = [((4, 6, 8), (2, 2, 4)), ((3, 5, 7), (2, 2, 4)), ((2, 4, 3), (2, 2, 4)),
           ((3, 6, 10), (1, 3, 5))]  # fmt: skip


def members(tokens, size, *, shifted):
    """Of every window its tokens: index on the padded grid, and whether each axis went around.

    Keys are (longitude window, row of windows, place in the window).
    """
    padded = [-(-n // m) * m for n, m in zip(tokens, size, strict=True)]
    counts = [n // m for n, m in zip(padded, size, strict=True)]
    found = {}
    for window in product(*map(range, counts)):
        for place, inside in enumerate(product(*map(range, size))):
            where = [
                k * m + i + (m // 2 if shifted else 0)
                for k, m, i in zip(window, size, inside, strict=True)
            ]
            around = tuple(a >= n for a, n in zip(where, padded, strict=True))
            row = window[0] * counts[1] + window[1]
            found[window[2], row, place] = (
                tuple(a % n for a, n in zip(where, padded, strict=True)),
                around,
            )
    return found


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("tokens", "size"), WINDOWS)
def test_windows_hold_the_tokens_that_counting_finds(tokens, size, shifted):
    windows = Windows(tokens, size)
    x = torch.arange(1.0, 1 + np.prod(tokens)).reshape(1, *tokens, 1).repeat(2, 1, 1, 1, 1)
    x[1] *= -1
    cut = windows.cut(x, shifted=shifted)
    low = [(-n % m) // 2 for n, m in zip(tokens, size, strict=True)]
    expected = members(tokens, size, shifted=shifted)
    assert cut.shape == (2, *[1 + max(k[i] for k in expected) for i in range(3)], 1)
    for key, (cell, _) in expected.items():
        inside = tuple(a - b for a, b in zip(cell, low, strict=True))
        is_token = all(0 <= a < n for a, n in zip(inside, tokens, strict=True))
        assert cut[(0, *key)] == (x[(0, *inside)] if is_token else 0)
    torch.testing.assert_close(windows.join(cut, shifted=shifted), x)


@pytest.mark.parametrize("open_ends", [False, True])
@pytest.mark.parametrize(("tokens", "size"), WINDOWS)
def test_tokens_are_apart_that_lie_on_two_sides_of_an_edge(tokens, size, open_ends):
    windows = Windows(tokens, size, open_ends)
    apart = windows.apart()
    expected = members(tokens, size, shifted=True)
    axes = 3 if open_ends else 2
    longitudes = windows.counts[2]
    assert len(apart) == (2 if open_ends and longitudes > 1 else 1)
    for lon in range(longitudes):
        kind = apart[-1] if lon == longitudes - 1 else apart[0]
        for row, i, j in product(range(windows.rows), range(windows.volume), range(windows.volume)):
            sides = [expected[lon, row, place][1][:axes] for place in (i, j)]
            assert kind[row, i, j] == (sides[0] != sides[1])
    # something is, and something is not
    assert apart.any()
    assert not apart.all()


@pytest.mark.parametrize("size", [(2, 6, 12), (2, 2, 4), (1, 3, 5), (3, 1, 1)])
def test_the_bias_is_of_two_levels_two_latitudes_and_a_difference_of_longitudes(size):
    index = bias_index(size)
    places = list(product(*map(range, size)))
    found = {}
    for i, (z, y, x) in enumerate(places):
        for j, (z2, y2, x2) in enumerate(places):
            found.setdefault((z, z2, y, y2, x - x2), set()).add(int(index[i, j]))
    # one entry for each, and none for two; all are used
    assert all(len(entries) == 1 for entries in found.values())
    entries = sorted(entry for each in found.values() for entry in each)
    assert entries == list(range((2 * size[2] - 1) * (size[1] * size[0]) ** 2))
    levels, latitudes, longitudes = size
    for (z, z2, y, y2, dx), (entry,) in found.items():
        upper = (z + levels * z2) * latitudes**2 + y + latitudes * y2
        assert entry == upper * (2 * longitudes - 1) + dx + longitudes - 1


def test_the_original_has_3312_biases():
    assert int(bias_index((2, 6, 12)).max()) + 1 == 3312


# The network as loops, in the names and orders of the original.


def loop_attention(w, x, size, heads, *, shifted, limited_area):
    """Attention of each token to its neighbors in the window, one by one."""
    tokens = x.shape[:3]
    padded = [-(-n // m) * m for n, m in zip(tokens, size, strict=True)]
    low = [(p - n) // 2 for p, n in zip(padded, tokens, strict=True)]
    full = torch.zeros(*padded, x.shape[3], dtype=x.dtype)
    inner = tuple(slice(a, a + n) for a, n in zip(low, tokens, strict=True))
    full[inner] = x
    qkv = full @ w["linear1.weight"].T + w["linear1.bias"]
    width = x.shape[3]
    d = width // heads
    q, k, v = (qkv[..., i * width : (i + 1) * width] for i in range(3))
    found = members(tokens, size, shifted=shifted)
    places = list(product(*map(range, size)))
    out = torch.zeros_like(full)
    for lon, row in {key[:2] for key in found}:
        for i, (z, y, u) in enumerate(places):
            here, side = found[lon, row, i]
            for head in range(heads):
                part = slice(head * d, (head + 1) * d)
                logits = []
                for j, (z2, y2, u2) in enumerate(places):
                    there, other = found[lon, row, j]
                    entry = ((z + size[0] * z2) * size[1] ** 2 + y + size[1] * y2) * (
                        2 * size[2] - 1
                    ) + (u - u2 + size[2] - 1)
                    logit = (q[here][part] * k[there][part]).sum() / d**0.5
                    logit = logit + w["earth_specific_bias"][entry, row, head]
                    axes = 3 if limited_area else 2
                    if side[:axes] != other[:axes]:
                        logit = logit - 100
                    logits.append(logit)
                share = torch.softmax(torch.stack(logits), 0)
                seen = torch.stack([v[found[lon, row, j][0]][part] for j in range(len(places))])
                out[here][part] = share @ seen
    return (out @ w["linear2.weight"].T + w["linear2.bias"])[inner]


def under(state, prefix):
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def loop_layer(state, x, size, heads, depth, *, limited_area):
    for i in range(depth):
        w = under(state, f"blocks.{i}.")
        y = loop_attention(
            under(w, "attention."), x, size, heads, shifted=i % 2 == 1, limited_area=limited_area
        )
        x = x + F.layer_norm(y, y.shape[-1:], w["norm1.weight"], w["norm1.bias"])
        y = F.gelu(F.linear(x, w["mlp.linear1.weight"], w["mlp.linear1.bias"]))
        y = F.linear(y, w["mlp.linear2.weight"], w["mlp.linear2.bias"])
        x = x + F.layer_norm(y, y.shape[-1:], w["norm2.weight"], w["norm2.bias"])
    return x


def below_zero(options):
    """Patches per axis, and zeros that are made up below the first cell."""
    shape = options["levels"], *options["shape"]
    counts = [-(-n // m) for n, m in zip(shape, options["patch"], strict=True)]
    pairs = zip(counts, options["patch"], shape, strict=True)
    return counts, [(c * m - n) // 2 for c, m, n in pairs]


def loop_embed(w, bias, of, counts, patch, low):
    """Tokens of (variable, *space), each from the cells of its patch, one by one."""
    x = torch.zeros(*counts, len(bias), dtype=of.dtype)
    for token in product(*map(range, counts)):
        cells = []
        for channel, *inside in product(range(len(of)), *map(range, patch)):
            cell = [t * m + i - a for t, m, i, a in zip(token, patch, inside, low, strict=True)]
            known = all(0 <= c < n for c, n in zip(cell, of.shape[1:], strict=True))
            cells.append(of[(channel, *cell)] if known else of.new_zeros(()))
        x[token] = w.flatten(1) @ torch.stack(cells) + bias
    return x


def loop_recover(w, bias, x, shape, patch, low):
    """The variables of each cell from its token."""
    out = torch.zeros(len(bias), *shape, dtype=x.dtype)
    for cell in product(*map(range, shape)):
        at = [c + a for c, a in zip(cell, low, strict=True)]
        token = tuple(c // m for c, m in zip(at, patch, strict=True))
        inside = tuple(c % m for c, m in zip(at, patch, strict=True))
        out[(slice(None), *cell)] = x[token] @ w[(slice(None), slice(None), *inside)] + bias
    return out


def loop_down(w, x):
    """Four tokens in one."""
    half = [-(-n // 2) for n in x.shape[1:3]]
    four = torch.zeros(len(x), *half, 4 * x.shape[3], dtype=x.dtype)
    for z, y, u in product(*map(range, four.shape[:3])):
        cells = [(z, 2 * y + i, 2 * u + j) for i, j in product(range(2), range(2))]
        known = [c[1] < x.shape[1] and c[2] < x.shape[2] for c in cells]
        parts = [x[c] if k else x.new_zeros(x.shape[3]) for c, k in zip(cells, known, strict=True)]
        four[z, y, u] = torch.cat(parts)
    four = F.layer_norm(four, four.shape[-1:], w["norm.weight"], w["norm.bias"])
    return four @ w["linear.weight"].T


def loop_up(w, x, like):
    """One token for each of ``like``, a quarter of that above it."""
    x, one, width = x @ w["linear1.weight"].T, torch.zeros_like(like), like.shape[3]
    for z, y, u in product(*map(range, one.shape[:3])):
        part = 2 * (y % 2) + u % 2
        one[z, y, u] = x[z, y // 2, u // 2, part * width : (part + 1) * width]
    one = F.layer_norm(one, one.shape[-1:], w["norm.weight"], w["norm.bias"])
    return one @ w["linear2.weight"].T


def loop_pangu(state, upper, lower, options):
    """One sample: (variable, level, lat, lon) and (variable, lat, lon), in the original's names."""
    patch, (counts, low) = options["patch"], below_zero(options)

    def layer(i, x):
        w, depth = under(state, f"layer{i + 1}."), options["depths"][i]
        wraps = {"limited_area": options["limited_area"]}
        return loop_layer(w, x, options["window"], options["heads"][i], depth, **wraps)

    def parameters(name):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    tokens = loop_embed(*parameters("embedding_layer.conv_plevel"), upper, counts, patch, low)
    name = "embedding_layer.conv_surface"
    lowest = loop_embed(*parameters(name), lower, counts[1:], patch[1:], low[1:])
    skip = x = layer(0, torch.cat([tokens, lowest[None]]))
    x = layer(2, layer(1, loop_down(under(state, "downsample."), x)))
    x = layer(3, loop_up(under(state, "upsample."), x, skip))
    x = torch.cat([x, skip], dim=-1)
    w, b = parameters("_output_layer.conv")
    above = loop_recover(w, b, x[:-1], upper.shape[1:], patch, low)
    w, b = parameters("_output_layer.conv_surface")
    return above, loop_recover(w, b, x[-1], lower.shape[1:], patch[1:], low[1:])


def original_state(options, upper, lower, outputs):
    """Random weights as the original names and shapes them, and what it saves beside."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return torch.from_numpy(rng.normal(size=shape, scale=shape[-1] ** -0.5 if shape[1:] else 1))

    def linear(name, chan, out, bias=True):
        state[f"{name}.weight"] = draw(out, chan)
        if bias:
            state[f"{name}.bias"] = draw(out)

    def norm(name, chan):
        state[f"{name}.weight"], state[f"{name}.bias"] = draw(chan), draw(chan)

    patch, size, width = options["patch"], options["window"], options["width"]
    counts, _ = below_zero(options)
    fine = [counts[0] + 1, *counts[1:]]
    state = {
        "embedding_layer.conv_plevel.weight": draw(width, upper, *patch),
        "embedding_layer.conv_plevel.bias": draw(width),
        "embedding_layer.conv_surface.weight": draw(width, lower, *patch[1:]),
        "embedding_layer.conv_surface.bias": draw(width),
        "_output_layer.conv.weight": draw(2 * width, outputs[0], *patch),
        "_output_layer.conv.bias": draw(outputs[0]),
        "_output_layer.conv_surface.weight": draw(2 * width, outputs[1], *patch[1:]),
        "_output_layer.conv_surface.bias": draw(outputs[1]),
        "constant_masks": draw(1, 2, *options["shape"]),
    }
    linear("downsample.linear", 4 * width, 2 * width, bias=False)
    norm("downsample.norm", 4 * width)
    linear("upsample.linear1", 2 * width, 4 * width, bias=False)
    linear("upsample.linear2", width, width, bias=False)
    norm("upsample.norm", width)
    for i, (depth, heads) in enumerate(zip(options["depths"], options["heads"], strict=True)):
        coarse = i in (1, 2)
        chan = 2 * width if coarse else width
        tokens = [fine[0], *(-(-n // 2) for n in fine[1:])] if coarse else fine
        rows = -(-tokens[0] // size[0]) * -(-tokens[1] // size[1])
        for block in range(depth):
            at = f"layer{i + 1}.blocks.{block}"
            entries = (2 * size[2] - 1) * (size[0] * size[1]) ** 2
            state[f"{at}.attention.earth_specific_bias"] = draw(entries, rows, heads)
            state[f"{at}.attention.position_index"] = torch.zeros(int(np.prod(size)) ** 2).long()
            linear(f"{at}.attention.linear1", chan, 3 * chan)
            linear(f"{at}.attention.linear2", chan, chan)
            norm(f"{at}.norm1", chan)
            norm(f"{at}.norm2", chan)
            linear(f"{at}.mlp.linear1", chan, 4 * chan)
            linear(f"{at}.mlp.linear2", 4 * chan, chan)
    return state


@pytest.mark.parametrize(("prefix", "limited_area"), [("", False), ("", True), ("network.", False)])
def test_weights_of_the_original_give_what_the_original_gives(prefix, limited_area):
    options = SMALL | {"limited_area": limited_area, "heads": (2, 2, 1, 1), "width": 4}
    if limited_area:
        # three windows of longitudes, of which the last is another one than both others
        options["shape"] = (5, 18)
    # two variables on levels, a constant one, one variable and two masks at the surface
    state = original_state(options, 3, 3, (2, 1))
    model = Pangu(2 * 3 + 1 + 2 + 3, 7, columns=1, **options).double().eval()
    model.load_state_dict(from_pangu_weather({prefix + k: v for k, v in state.items()}))
    x = field(12, options["shape"])
    upper = torch.cat([x[0, :6], x[0, 9:]]).reshape(3, 3, *options["shape"])
    expected = loop_pangu(state, upper, x[0, 6:9], options)
    with torch.no_grad():
        found = model(x)[0]
    torch.testing.assert_close(found[:6].reshape(2, 3, *options["shape"]), expected[0])
    torch.testing.assert_close(found[6:], expected[1])


def test_other_weights_are_refused_by_what_they_lack():
    with pytest.raises(ArtefactError, match=r"no weights of Pangu-Weather.*conv_plevel.*there"):
        from_pangu_weather({"conv.weight": torch.zeros(1)})


@pytest.mark.parametrize("shifted", [False, True])
def test_a_roll_by_whole_windows_rolls_what_a_block_gives(shifted):
    torch.manual_seed(0)
    block = EarthBlock(Windows((2, 4, 12), (2, 2, 4)), 8, 2, shifted=shifted, drop=0.0).double()
    torch.nn.init.normal_(block.attention.bias)
    x = torch.randn(1, 2, 4, 12, 8, dtype=torch.float64)
    index, apart = bias_index((2, 2, 4)), block.windows.apart()
    expected = block(x, index, apart).roll(4, 3)
    torch.testing.assert_close(block(x.roll(4, 3), index, apart), expected)


def test_around_the_globe_a_shift_of_the_input_shifts_the_output():
    shape = (7, 48)
    x = field(shape=shape)
    # 2 · 2 cells per patch · 4 patches per window
    step = 16
    model = made(shape=shape)
    with torch.no_grad():
        expected = model(x).roll(step, -1)
        torch.testing.assert_close(model(x.roll(step, -1)), expected, rtol=1e-10, atol=1e-10)
        assert (model(x.roll(step // 2, -1)) - expected.roll(-step // 2, -1)).abs().max() > 1e-3
        area = made(shape=shape, limited_area=True)
        assert (area(x.roll(step, -1)) - area(x).roll(step, -1)).abs().max() > 1e-3


def reach(model, shape, cell):
    """Longitudes whose outputs notice a cell, of a network without inner layers to speak of."""
    x = field(shape=shape)
    other = x.clone()
    other[..., cell] += 1
    with torch.no_grad():
        moved = (model(other) - model(x)).abs().amax(dim=(0, 1, 2))
    return {int(i) for i in (moved > 1e-9).nonzero()}


def test_the_first_longitude_sees_the_last_around_the_globe_and_not_in_a_limited_area():
    shape = (4, 64)
    options = {"shape": shape, "depths": (2, 1, 1, 1)}
    seen = reach(made(**options), shape, 63)
    assert {0, 1} <= seen
    assert 32 not in seen
    # nothing passes exp(-100) that double precision would not lose
    assert 0 not in reach(made(**options, limited_area=True), shape, 63)


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_checkpoints_change_no_gradient(drop_path):
    found = []
    for checkpointing in (False, True):
        model = made(drop_path=drop_path, checkpointing=checkpointing).train()
        torch.manual_seed(3)
        x = field(batch=2).requires_grad_()
        model(x).square().sum().backward()
        found.append([x.grad, *(p.grad for p in model.parameters())])
        assert all(g is not None and g.isfinite().all() for g in found[-1])
    for plain, anew in zip(*found, strict=True):
        assert torch.equal(plain, anew)


def test_checkpoints_keep_less_for_the_gradients():
    kept = []
    for checkpointing in (False, True):
        total = 0

        def count(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        model = made(checkpointing=checkpointing)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model(field().requires_grad_())
        kept.append(total)
    assert kept[1] < kept[0] / 4


def test_later_blocks_are_dropped_more_often():
    model = made(depths=(2, 6, 6, 2), drop_path=0.2)
    drops = [[block.drop for block in layer.blocks] for layer in model.layers]
    expected = np.linspace(0, 0.2, 8)
    fine, coarse = expected[:2], expected[2:]
    for layer, rates in zip(drops, (fine, coarse, coarse, fine), strict=True):
        np.testing.assert_allclose(layer, rates)


def test_dropped_samples_keep_their_input_and_the_mean_stays():
    block = EarthBlock(Windows((2, 2, 4), (2, 2, 4)), 2, 1, shifted=False, drop=0.25)
    x = torch.ones(4000, 1, 1, 1, 2)
    torch.manual_seed(0)
    dropped = block.train()._dropped(x)
    assert set(dropped.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    # one decision per sample
    assert (dropped[..., 0] == dropped[..., 1]).all()
    assert abs(dropped.mean() - 1) < 0.03
    assert block.eval()._dropped(x) is x


def test_masks_and_columns_come_in_and_do_not_come_out():
    model = made((9 + 3, 7), columns=1)
    assert (model.upper, model.masks) == (2, 2)
    x = field(12)
    with torch.no_grad():
        y = model(x)
        assert y.shape == (1, 7, *SMALL["shape"])
        for channel in range(12):
            other = x.clone()
            other[:, channel] += 1
            assert (model(other) - y).abs().max() > 1e-6, channel


def test_another_grid_is_refused_and_tiles_are():
    model = made()
    assert model.footprint == Footprint(0, whole=model.footprint.whole, sizes=(7, 12))
    message = "Pangu cannot take 12 x 7 cells.*takes 7 x 12 cells only"
    with pytest.raises(GeometryError, match=message):
        model(field(shape=(12, 7)))
    with pytest.raises(GeometryError, match="Pangu takes"):
        model(field()[0])


@pytest.mark.parametrize(
    ("channels", "wrong", "message"),
    [
        ((9, 7), {"ndim": 3}, "2 axes"),
        ((9, 7), {"levels": 4}, "the other 6 are no whole variables on 4 levels"),
        ((9, 1), {}, "the other 0 are no whole variables"),
        ((6, 7), {}, "must have 7 or more"),
        ((9, 7), {"columns": 1}, "must have 10 or more"),
        ((9, 7), {"heads": (3, 4, 2, 1)}, "layer 1 has 8 channels, which 3 heads"),
        ((9, 7), {"heads": (1, 5, 2, 1)}, "layer 2 has 16 channels"),
        ((9, 7), {"shape": (7,)}, "`shape` is .* must be 2 positive whole numbers"),
        ((9, 7), {"patch": (2, 0, 2)}, "`patch` is"),
        ((9, 7), {"depths": (2, 2)}, "`depths` is .* must be 4"),
        ((9, 7), {"drop_path": 1.0}, "`drop_path` is 1.0"),
        ((9, 7), {"surface": 0}, "`surface` is 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(channels, wrong, message):
    with pytest.raises(RecipeError, match=message):
        Pangu(*channels, **(SMALL | wrong))


def task_on(tmp_path, **options):
    """A training of two runs of small fields, whose weather turns around the globe."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    for run in range(2):
        turn = rng.random((7, 1, 1)) + np.arange(12) / 12
        state = np.float32(rng.normal(size=(7, 7, 1)) * np.cos(2 * np.pi * turn))
        later = np.roll(state, 2, -1)
        for name, channels in (("Z", slice(0, 3)), ("T", slice(3, 6)), ("MSLP", slice(6, 7))):
            np.save(tmp_path / f"{name}_{run}.npy", state[channels])
            np.save(tmp_path / f"{name}_later_{run}.npy", later[channels])
        np.save(tmp_path / f"masks_{run}.npy", rng.random((2, *SMALL["shape"]), np.float32))
    names = ("Z", "T", "MSLP")
    inputs = [Field(name, kind="scalar") for name in (*names, "masks")]
    targets = [Field(f"{name}_later", kind="scalar") for name in names]
    weights = WeightedL1({"Z_later": 3.0, "T_later": 1.5}, surface={"MSLP_later": 1.5})
    model = partial(Pangu, **SMALL, checkpointing=True, drop_path=0.0)
    optimizer = partial(torch.optim.Adam, lr=1e-2)
    task = Task(inputs, targets, model, loss=weights, optimizer=optimizer)
    files = {f.name: str(tmp_path / f"{f.name}_[01].npy") for f in (*inputs, *targets)}
    domain = Domain(ndim=2, periodic=[False, True])
    data = FieldData(files, domain=domain, reading=Reading(batch_size=1), seed=0, **options)
    return task, data


def test_it_is_trained_saved_loaded_and_applied_like_any_other(tmp_path):
    task, data = task_on(tmp_path)
    output = Output(tmp_path / "out", figures=0)
    trainer = make_trainer(
        output, progress=False, max_epochs=30, accelerator="cpu", logger=False,
    )  # fmt: skip
    emulator = train(task, data, trainer, output)
    fields = {name: np.load(tmp_path / f"{name}_0.npy") for name in ("Z", "T", "MSLP", "masks")}
    emulator.save(tmp_path / "pangu.safetensors")
    found = Emulator.load(tmp_path / "pangu.safetensors")(fields)
    truth = {f"{n}_later": np.load(tmp_path / f"{n}_later_0.npy") for n in ("Z", "T", "MSLP")}
    assert {name: x.shape for name, x in found.items()} == {n: x.shape for n, x in truth.items()}
    error = np.concatenate([found[name] - truth[name] for name in truth])
    assert np.abs(error).mean() < 0.75 * np.abs(np.concatenate([*truth.values()])).mean()
    with pytest.raises(GeometryError, match=r"cannot take 7 x 8 cells.*7 x 12 cells only"):
        emulator({name: x[..., :8] for name, x in fields.items()})


def test_crops_of_another_shape_are_refused_before_training(tmp_path):
    task, data = task_on(tmp_path, crops=Crops(size=[7, 6]))
    with pytest.raises(GeometryError, match=r"Pangu cannot take 7 x 6 cells.*7 x 12 cells only"):
        task.prepare(data)
