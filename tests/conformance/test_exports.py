"""The laws of every export: its file gives what the emulator gives, at other sizes too."""

import re
import subprocess
import sys
import textwrap
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import map2map.models
import map2map.norms
from map2map.emulator import Emulator
from map2map.exports import formats
from map2map.exports.writing import find, write
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.models import Profile
from map2map.norms import Affine, Chain, Exp, FunctionNorm, Log, Log1p, Norm, Scale, Standardize

FORMATS = [name for name, module in formats().items() if hasattr(module, "run")]


def profiles(channels):
    """Channels as the lowest of 8 levels."""
    return (Profile(channels, above=8 - channels),)


MODELS = [
    ("ColumnMLP", 2, {}),
    ("ColumnCNN", 1, {"inputs": profiles(2), "kernel_size": 2, "pool": 2}),
    ("ColumnUNet", 2, {"inputs": profiles(3), "outputs": profiles(3), "levels": 3}),
    ("ColumnAttention", 1, {"inputs": profiles(2), "outputs": profiles(2), "heads": 2}),
    ("ConvNet", 1, {}),
    ("ConvNet", 2, {"depth": 2, "kernel_size": 5}),
    ("ConvNet", 3, {"depth": 3}),
    ("DoubleConvUNet", 1, {"upsample": "linear"}),
    ("DoubleConvUNet", 2, {"residual": True}),
    ("DoubleConvUNet", 3, {"levels": 2, "head": False}),
    ("FNO", 2, {"modes": 4, "depth": 2, "padding": 0.25, "positions": "cells"}),
    ("FactorizedFNO", 3, {"modes": 3, "depth": 1}),
    ("UFNO", 1, {"modes": 4, "depth": 2, "unet_depth": 1}),
    ("PaddedConvNet", 1, {"kernel_size": 5, "slope": 0.0, "dropout": 0.1}),
    ("PaddedConvNet", 2, {"depth": 3}),
    ("PaddedUNet", 2, {"levels": 3}),
    ("PaddedUNet", 3, {"levels": 2}),
    ("SRGenerator", 2, {"scale_factor": 4, "chan_base": 8, "chan_min": 4, "noise": False}),
    ("UNet", 1, {"depth": 3, "batch_norm": False}),  # sizes 8 k + 4
    ("UNet", 2, {}),
    ("UNet", 3, {"depth": 1}),
    ("UpsampledUNet", 2, {"scale_factor": 4, "upsampling": "linear"}),
    ("UpsampledUNet", 2, {"scale_factor": 6, "upsampling": "linear"}),
    ("UpsampledUNet", 3, {}),
    ("VNet", 1, {}),
    ("VNet", 2, {"depth": 1, "batch_norm": False}),
    ("VNet", 3, {"depth": 1, "bypass": False}),
]
ROUNDOFF = 5e-6
"""Largest deviation, in units of the rms: some tens of float32's last digit, which is 1.2e-7."""

REFUSED = re.compile(
    "Guard failed|Expected input|exported for|cannot take|[Dd]imension|[Ii]nvalid input shape"
    "|Kernel size can't be greater|Output size is too small"
)
"""What runtimes say of a size that a graph does not take."""


@pytest.fixture(autouse=True)
def one_thread():
    """Arrays are tiny, and threads that wait for each other slow them down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def emulator(name, ndim, options):
    """Vector and scalar in, two scalars out, with statistics of batches as if it were trained."""
    torch.manual_seed(0)
    kind = getattr(map2map.models, name)
    width = {} if "chan_base" in dict(options) else {"width": 4}
    model = kind(ndim + 1, ndim + 1, ndim=ndim, **width, **dict(options))
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    inputs = FieldSet(
        (
            Field("v", "km/s", "vector" if ndim > 1 else "scalar", ndim),
            Field("rho", "kg/m3", "scalar", 1),
        )
    )
    targets = FieldSet((Field("T", "K", "scalar", 1), Field("q q", "1", "scalar", ndim)))
    norms = {
        "v": Scale(300.0),
        "rho": Chain([Log1p(), Standardize(0.5, 2.0)]),
        "T": Affine(-2.0, 7.0),
    }
    return Emulator(inputs, targets, norms, model, Domain(ndim=ndim)).eval()


def windows(made, batch, size, seed=0):
    """Physical inputs by name: velocities of hundreds, densities that are not negative."""
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(batch, made.ndim, *size)) * 300
    rho = rng.uniform(0, 20, size=(batch, 1, *size))
    return {"v": torch.from_numpy(v).float(), "rho": torch.from_numpy(rho).float()}


def by_hand(made, fields):
    """What the emulator gives, in float64 and with the norms written out."""
    x = [fields["v"].double() / 300, (torch.log1p(fields["rho"].double() + 1e-7) - 0.5) / 2]
    with torch.no_grad():
        y = made.model.double()(torch.cat(x, dim=1))
    made.model.float()
    return {"T": y[:, :1] * 7 - 2, "q q": y[:, 1:]}


def allowed_sizes(rule, ndim):
    """Input sizes that no export was made with: alike and not."""
    far = [rule.minimum + k * rule.multiple for k in (5, 1, 4)]
    return [[far[1]] * ndim, far[:ndim]]


def rule_gap(rule):
    """The sizes between the two smallest allowed ones."""
    return rule.minimum + 1, rule.minimum + rule.multiple


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(("name", "ndim", "options"), MODELS)
def test_a_file_gives_the_same_numbers_at_any_size(tmp_path, to, name, ndim, options):
    made = emulator(name, ndim, tuple(options.items()))
    path = tmp_path / "file"
    check = write(made, path, to)
    assert 0 <= max(check.deviations.values()) < ROUNDOFF
    for batch, size in zip((1, 3), allowed_sizes(made.footprint, ndim), strict=True):
        fields = windows(made, batch, size)
        expected = by_hand(made, fields)
        found = find(to).run(path, fields)
        assert set(found) == {"T", "q q"}
        for key, y in expected.items():
            rms = float(y.square().mean().sqrt())
            assert found[key].shape == y.shape
            assert found[key].dtype == torch.float32
            torch.testing.assert_close(found[key].double(), y, rtol=0, atol=ROUNDOFF * rms)
    rule = made.footprint
    wrongs = {rule.minimum - 1, rule.minimum - rule.multiple, *range(*rule_gap(rule))}
    # columns have nothing to refuse: of no cells they give none
    for wrong in wrongs if rule.margin else ():
        with pytest.raises(Exception, match=REFUSED):
            find(to).run(path, windows(made, 1, [rule.minimum] * (ndim - 1) + [wrong]))


@pytest.mark.parametrize("to", FORMATS)
def test_a_fixed_size_is_the_only_one(tmp_path, capfd, to):
    made = emulator("ConvNet", 2, ())
    check = write(made, tmp_path / "file", to, {"size": (12, 17)})
    assert check.sizes == ((12, 17),)
    fields = windows(made, 3, [12, 17])
    y = find(to).run(tmp_path / "file", fields)["T"]
    np.testing.assert_allclose(y, by_hand(made, fields)["T"], rtol=0, atol=1e-5)
    with pytest.raises(Exception, match=REFUSED):
        find(to).run(tmp_path / "file", windows(made, 1, [17, 12]))


def in_place(x, undo=False, by=3.0):
    if undo:
        x.mul_(by)
    else:
        x.div_(by)


def instances():
    """One of every norm there is, fitted; those for negative numbers and those not."""
    special = {
        Chain: lambda: Chain([Log(), Standardize(1.0, 2.0)]),
        FunctionNorm: lambda: FunctionNorm(in_place, "in_place"),
        Affine: lambda: Affine([1.0, -1.0], [2.0, 0.5]),
        Scale: lambda: Scale([3.0, 4.0]),
        Standardize: lambda: Standardize([1.0, 2.0], [0.1, 30.0]),
    }
    classes = [getattr(map2map.norms, name) for name in map2map.norms.__all__]
    return {
        cls.__name__: special.get(cls, cls)()
        for cls in classes
        if isinstance(cls, type) and issubclass(cls, Norm) and cls is not Norm
    }


class Nothing(nn.Module):
    """A network that gives what it gets."""

    def __init__(self, in_chan, out_chan):
        super().__init__()
        self.in_chan, self.out_chan = in_chan, out_chan

    def forward(self, x):
        return x + 0


class Positive(nn.Module):
    """A network, whose output any norm can be undone for: from 0.5 to 1.5."""

    def __init__(self, in_chan, out_chan):
        super().__init__()
        self.in_chan, self.out_chan = in_chan, out_chan
        self.conv = nn.Conv1d(in_chan, out_chan, 3)

    def forward(self, x):
        return 1 + 0.5 * torch.tanh(self.conv(x))


@pytest.mark.parametrize("to", FORMATS)
def test_every_norm_is_in_the_graph(tmp_path, to):
    """An input and a target with each norm."""
    torch.manual_seed(0)
    norms = {f"{side}{k}": n for side in "xy" for k, n in instances().items()}
    sides = [
        FieldSet(tuple(Field(name, "1", "scalar", 2) for name in norms if name[0] == side))
        for side in "xy"
    ]
    model = Positive(sides[0].channels, sides[1].channels)
    made = Emulator(*sides, norms, model, Domain(ndim=1)).eval()
    write(made, tmp_path / "file", to)
    rng = np.random.default_rng(0)
    fields = {
        name: torch.from_numpy(rng.uniform(0.1, 2, size=(2, 2, 11))).float()
        for name in sides[0].names
    }
    found = find(to).run(tmp_path / "file", fields)
    double = instances()
    normalized = [double[name[1:]].double()(x.double()) for name, x in fields.items()]
    with torch.no_grad():
        y = model.double()(torch.cat(normalized, dim=1))
    for name, channels in sides[1].slices.items():
        expected = double[name[1:]].inverse(y[:, channels])
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("to", FORMATS)
def test_small_numbers_keep_their_digits_in_logarithms(tmp_path, to):
    """A field of rms 1e-6 through log1p, whose network does nothing: 1 + x has lost most digits."""
    model = Nothing(1, 1)
    sides = [FieldSet((Field(name, "1", "scalar", 1),)) for name in "xy"]
    for norms in ({"x": Log1p(0.0)}, {"x": map2map.norms.Expm1(), "y": Exp()}, {"y": Log1p(0.0)}):
        made = Emulator(*sides, norms, model, Domain(ndim=1)).eval()
        write(made, tmp_path / "file", to, overwrite=True)
        small = torch.randn(1, 1, 200, generator=torch.Generator().manual_seed(0)) * 1e-6
        x = small.exp() - 1 if "Exp" in str(norms) else small
        z = made.encode_input(x.double())
        expected = made.decode_target(z)
        y = find(to).run(tmp_path / "file", {"x": x})["y"].double()
        finite = expected.isfinite()
        rms = expected[finite].square().mean().sqrt()
        assert (y - expected)[finite].abs().max() < 2e-6 * rms


def test_an_exported_program_runs_without_map2map(tmp_path):
    """In a fresh interpreter that refuses to import map2map."""
    made = emulator("UNet", 2, (("depth", 1),))
    write(made, tmp_path / "e.pt2", "torch-export")
    fields = windows(made, 2, [20, 26])
    np.savez(tmp_path / "fields.npz", **fields)
    code = """
        import json, sys

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "map2map":
                    raise ImportError(f"{name} must not be imported")

        sys.meta_path.insert(0, Refuse())
        try:
            import map2map
        except ImportError:
            pass
        else:
            raise SystemExit("map2map was imported")
        import numpy as np, torch

        texts = {"map2map": "", "map2map.margin": ""}
        program = torch.export.load("e.pt2", extra_files=texts).module()
        fields = {name: torch.from_numpy(x) for name, x in np.load("fields.npz").items()}
        y = program(fields)
        np.savez("y.npz", **{name: x.numpy() for name, x in y.items()})
        card = json.loads(texts["map2map"])
        print(card["inputs"][0]["units"], texts["map2map.margin"])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["km/s", str(made.footprint.margin)]
    expected, found = by_hand(made, fields), np.load(tmp_path / "y.npz")
    for name, y in expected.items():
        np.testing.assert_allclose(found[name], y, rtol=0, atol=ROUNDOFF * float(y.std()))
