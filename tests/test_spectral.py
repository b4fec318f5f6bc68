"""Spectral convolutions are those of Fourier transforms, and the same on grids of any size."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from map2map.errors import RecipeError
from map2map.models import FNO, UFNO, FactorizedFNO
from map2map.models.spectral import (
    SpectralConv,
    along,
    modes_of,
    turns_along,
    turns_of,
)

SHAPES = [
    ((16,), (5,)),
    ((7,), (9,)),  # more modes than there are
    ((8,), (4,)),  # all but the Nyquist mode
    ((16, 12), (4, 5)),
    ((6, 9), (5, 3)),
    ((9, 1, 6), (3, 2, 3)),
    ((8, 7, 6), (3, 2, 5)),
]
TOLERANCE = {torch.float64: 2e-15, torch.float32: 2e-6}


def conv_of(modes, dtype, chans=(3, 4)):
    torch.manual_seed(0)
    return SpectralConv(*chans, modes).to(dtype)


def by_fft(conv, x):
    """The same, mode by mode on the coefficients of a fast Fourier transform."""
    *_, last = axes = range(2, x.ndim)
    cells, modes = x.shape[2:], conv.modes
    coefficients = torch.fft.rfftn(x, dim=list(axes), norm="forward")
    kept = [2 * m - 1 for m in modes[:-1]] + [modes[-1]]
    real, imaginary = conv.weight.detach().reshape(2, *kept, conv.in_chan, conv.out_chan)
    made = torch.zeros(len(x), conv.out_chan, *coefficients.shape[2:], dtype=coefficients.dtype)
    for k in product(*(range(1 - m, m) for m in modes[:-1]), range(modes[-1])):
        if all(2 * abs(i) < n for i, n in zip(k, cells, strict=True)):
            at = tuple(i % n for i, n in zip(k, cells, strict=True))
            index = (*(i + m - 1 for i, m in zip(k[:-1], modes, strict=False)), k[-1])
            matrix = torch.complex(real[index], imaginary[index])
            made[(..., *at)] = coefficients[(..., *at)] @ matrix
    assert last == x.ndim - 1
    return torch.fft.irfftn(made, s=cells, dim=list(axes), norm="forward")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("shape", "modes"), SHAPES)
def test_it_is_what_a_fourier_transform_gives(shape, modes, dtype):
    conv = conv_of(modes, dtype)
    x = torch.randn(2, 3, *shape, dtype=dtype)
    expected = by_fft(conv, x)
    with torch.no_grad():
        found = conv(x, turns_of(x, modes))
    assert expected.std() > 0.1
    atol = TOLERANCE[dtype] * expected.abs().max()
    torch.testing.assert_close(found, expected, rtol=0, atol=float(atol))


@pytest.mark.parametrize(("shape", "padding"), [((16, 12), 3), ((16, 12), 0.25), ((9,), 1)])
def test_padding_is_a_domain_with_zeros_at_its_end(shape, padding):
    modes = (5,) * len(shape)
    conv = conv_of(modes, torch.float64)
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    cells = [round(padding * n) if padding < 1 else padding for n in shape]
    wide = F.pad(x, [n for after in reversed(cells) for n in (0, after)])
    expected = by_fft(conv, wide)[(..., *(slice(0, n) for n in shape))]
    with torch.no_grad():
        found = conv(x, turns_of(x, modes, padding))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_on_large_grids_phases_stay_exact():
    """The worst of a million cells and the highest of 12 modes, in single precision."""
    x = torch.zeros(1, 1, 1 << 20)
    turn = turns_along(x, 2, 12) * 2**9.5
    k, j = 11, np.arange(1 << 20)
    expected = np.cos(2 * np.pi * (k * j % (1 << 20)) / (1 << 20))
    np.testing.assert_allclose(turn[k], expected, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_an_axis_lines_are_convolved_one_by_one(axis):
    conv = conv_of((3,), torch.float64)
    x = torch.randn(2, 3, 5, 6, 7, dtype=torch.float64)
    with torch.no_grad():
        found = along(conv, x, axis, turns_along(x, axis + 2, 3)).movedim(axis + 2, -1)
    lines = x.movedim(axis + 2, -1)
    for i, j in product(range(lines.shape[2]), range(lines.shape[3])):
        expected = by_fft(conv, lines[:, :, i, j])
        torch.testing.assert_close(found[:, :, i, j], expected, rtol=0, atol=1e-14)


def wave(n, ndim):
    """A field of few modes, at the corners of a grid of the unit box."""
    places = np.meshgrid(*[np.arange(n) / n] * ndim, indexing="ij")
    parts = [np.sin(2 * np.pi * (x + 0.1 * i)) + np.cos(4 * np.pi * x) / 3
             for i, x in enumerate(places)]  # fmt: skip
    return torch.from_numpy(np.prod(parts, axis=0) + 0.2)[None, None]


@pytest.mark.parametrize("options", [{}, {"padding": 0.25, "positions": "nodes"}])
@pytest.mark.parametrize("kind", [FNO, FactorizedFNO])
@pytest.mark.parametrize("ndim", [1, 2])
def test_weights_hold_for_any_resolution_of_the_same_field(kind, ndim, options):
    """Up to what an activation makes of modes that the coarse grid does not have."""
    torch.manual_seed(0)
    model = kind(1, 2, ndim=ndim, width=6, modes=4, depth=2, **options).double()
    with torch.no_grad():
        coarse, fine = model(wave(32, ndim)), model(wave(64, ndim))
    every_other = fine[(..., *[slice(None, None, 2)] * ndim)]
    # zeros beyond an edge are a jump, which sums over cells resolve to first order
    close = 0.05 if options else 1e-3
    assert (coarse - every_other).std() < close * coarse.std()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_without_positions_it_moves_with_a_periodic_field(ndim):
    torch.manual_seed(0)
    x = torch.randn(1, 2, *[8] * ndim, dtype=torch.float64)
    shifts, axes = (3, 1, 5)[:ndim], tuple(range(2, ndim + 2))
    for kind in (FNO, FactorizedFNO):
        model = kind(2, 3, ndim=ndim, width=4, modes=4, depth=2).double()
        with torch.no_grad():
            moved = model(x.roll(shifts, axes))
            torch.testing.assert_close(moved, model(x).roll(shifts, axes), rtol=0, atol=1e-12)
            told = kind(2, 3, ndim=ndim, width=4, modes=4, positions="cells").double()
            assert (told(x.roll(shifts, axes)) - told(x).roll(shifts, axes)).std() > 1e-3


def test_padding_makes_opposite_edges_strangers():
    """A kernel of few modes reaches everywhere, but further round the edge than across."""
    torch.manual_seed(0)
    x = torch.zeros(1, 1, 32, dtype=torch.float64)
    x[..., 0] = 1
    conv = conv_of((8,), torch.float64, (1, 1))
    with torch.no_grad():
        wrapped = conv(x, turns_of(x, (8,)))
        half = conv(x, turns_of(x, (8,), 0.5))
    # on a ring of 48 cells, the last of 32 is 31 away, as the 17th from the other side
    kernel = by_fft(conv, F.pad(x, (0, 16)))
    torch.testing.assert_close(half, kernel[..., :32], rtol=0, atol=1e-14)
    assert not torch.allclose(wrapped, half, atol=1e-3)


def test_factorized_layers_can_share_their_convolutions():
    own, shared = (
        FactorizedFNO(1, 1, ndim=2, width=4, modes=3, depth=3, shared=s) for s in (False, True)
    )
    conv = 2 * 2 * 3 * 4 * 4
    count = [sum(p.numel() for p in m.parameters()) for m in (own, shared)]
    assert count[0] - count[1] == 2 * conv
    x = torch.randn(1, 1, 6, 5)
    with torch.no_grad():
        for i in range(3):
            own.spectral[i].load_state_dict(shared.spectral[0].state_dict())
            own.feed[i].load_state_dict(shared.feed[i].state_dict())
        own.lift.load_state_dict(shared.lift.state_dict())
        own.project.load_state_dict(shared.project.state_dict())
        torch.testing.assert_close(own(x), shared(x))


def test_a_ufno_without_unets_is_an_fno_and_with_them_is_not():
    torch.manual_seed(0)
    x = torch.randn(2, 1, 9, 6)
    plain = FNO(1, 1, ndim=2, width=4, modes=3)
    bare, full = (UFNO(1, 1, ndim=2, width=4, modes=3, unet_depth=n) for n in (0, 2))
    bare.load_state_dict(plain.state_dict())
    missing = full.load_state_dict(plain.state_dict(), strict=False)
    assert missing.missing_keys
    assert all(name.startswith("unets.") for name in missing.missing_keys)
    with torch.no_grad():
        torch.testing.assert_close(bare(x), plain(x))
        assert not torch.allclose(full(x), plain(x), atol=1e-3)


@pytest.mark.parametrize("kind", [FNO, FactorizedFNO, UFNO])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modes": 0}, "`modes` is 0"),
        ({"modes": [3]}, "one for each of the 2"),
        ({"padding": -0.1}, "`padding` is -0.1, but must be a share"),
        ({"padding": 2.5}, "`padding` is 2.5"),
        ({"padding": float("nan")}, "`padding` is nan"),
        ({"positions": "cell"}, "unknown positions 'cell'; did you mean 'cells'"),
        ({"width": 0}, "`width` is 0"),
        ({"depth": 0}, "`depth` is 0"),
    ],
)
def test_arguments_out_of_range_are_refused(kind, options, words):
    with pytest.raises(RecipeError, match=words):
        kind(1, 1, ndim=2, **options)


def test_arguments_of_their_own_are_refused_too():
    with pytest.raises(RecipeError, match="`expansion` is 0"):
        FactorizedFNO(1, 1, expansion=0)
    for wrong in (-1, 5):
        with pytest.raises(RecipeError, match=f"`unet_depth` is {wrong}, but must be from 0 to"):
            UFNO(1, 1, depth=4, unet_depth=wrong)
    with pytest.raises(RecipeError, match="1, 2 or 3 axes"):
        FNO(1, 1, ndim=4)
    assert modes_of([3, 4], 2) == (3, 4)
    assert modes_of(5, 3) == (5, 5, 5)


@pytest.mark.parametrize("kind", [FNO, FactorizedFNO, UFNO])
@pytest.mark.parametrize("padding", [0.0, 0.5, 3.0])
def test_modes_that_a_training_grid_does_not_have_do_nothing_on_a_finer_one(kind, padding):
    """What is left out is just what gets no gradient there."""
    torch.manual_seed(0)
    options = {"levels": 1} if kind is UFNO else {}
    model = kind(1, 1, width=3, modes=[7, 9], depth=2, padding=padding, **options).double()
    expected = {0.0: (4, 5), 0.5: (6, 7), 3.0: (6, 6)}[padding]
    assert model.learn_on((8, 9)) == expected
    small = kind(1, 1, width=3, modes=list(expected), depth=2, padding=padding, **options).double()
    others = {k: v for k, v in model.state_dict().items() if not k.startswith("spectral")}
    small.load_state_dict(others, strict=False)
    model(torch.randn(2, 1, 8, 9, dtype=torch.float64)).square().sum().backward()
    for (name, large), few in zip(
        model.spectral.named_parameters(), small.spectral.parameters(), strict=True
    ):
        # real and imaginary part together, because a mean has no phase
        learnt = (large.grad != 0).reshape(2, -1, 9).any(0).any(-1).repeat(2)
        torch.testing.assert_close((large != 0).flatten(1).any(1), learnt, msg=name)
        few.data = large.data[learnt]
    x = torch.randn(1, 1, 24, 25, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), small(x), rtol=0, atol=1e-13)
