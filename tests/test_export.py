"""``m2m export``: what it writes, prints and refuses; and a Fortran program that runs the file."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from map2map import exports
from map2map.emulator import Emulator
from map2map.errors import ArtefactError, RecipeError
from map2map.exports import torch_export
from map2map.exports.graph import metadata
from map2map.exports.writing import Check, deviations, write
from map2map.fields import Field, FieldSet
from map2map.footprints import Footprint
from map2map.grids import Domain
from map2map.models import ConvNet, UNet
from map2map.norms import Affine, Scale, Standardize

EXAMPLE = Path(__file__).parents[1] / "examples" / "from_fortran"


def make(model=None, ndim=2, norms=None):
    torch.manual_seed(0)
    inputs = FieldSet((Field("linear", "Mpc/h", "vector", ndim),))
    targets = FieldSet((Field("displacement", "Mpc/h", "vector", ndim),))
    model = model or ConvNet(ndim, ndim, ndim=ndim, width=3, depth=2)
    norms = norms or {"linear": Scale(6.0), "displacement": Affine(1.0, 5.0)}
    return Emulator(inputs, targets, norms, model, Domain(ndim=ndim, spacing=2.0)).eval()


@pytest.fixture
def saved(tmp_path):
    made = make()
    made.training_record = {"seed": 5}
    made.save(tmp_path / "e.safetensors")
    return made


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# --- what is written ----------------------------------------------------------------------------


def test_an_export_lies_beside_the_emulator_and_its_check_is_told(m2m, tmp_path, saved):
    status, out, err = m2m("export", "e.safetensors", "--to", "onnx")
    assert (status, err) == (0, "")
    assert files(tmp_path) == ["e.onnx", "e.safetensors"]
    for words in (
        "e.onnx (onnx",
        "linear [Mpc/h] (2 channels)",
        "displacement [Mpc/h] (2 channels)",
        "5, 6, … cells on each of 2 axes",
        "less 2 on each side",
        "2 cells below a crop, 2 or more above",
        "on 6 x 7 and 7 x 6 cells: deviates by at most",
    ):
        assert words in out


def test_onnx_names_fields_and_sizes_and_is_float32(m2m, tmp_path, saved):
    assert m2m("export", "e.safetensors", "--to", "onnx", "--opset", 20)[0] == 0
    model = onnx.load(tmp_path / "e.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [20]
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "linear": ["batch", 2, "n0", "n1"],
        "displacement": ["batch", 2, "n0 - 4", "n1 - 4"],
    }
    double = onnx.TensorProto.DOUBLE
    assert all(tensor.data_type != double for tensor in model.graph.initializer)
    assert all(v.type.tensor_type.elem_type != double for v in model.graph.value_info)
    assert {entry.key: entry.value for entry in model.metadata_props} == metadata(saved)


def test_every_file_carries_the_card_and_the_numbers_of_its_halo(tmp_path):
    made = make(UNet(2, 2, ndim=2, width=2, depth=1, batch_norm=False))
    texts = metadata(made)
    assert json.loads(texts["map2map"]) == made.card().entries()
    assert texts["map2map.margin"] == texts["map2map.low"] == texts["map2map.cut"] == "8"
    assert (texts["map2map.multiple"], texts["map2map.minimum"]) == ("2", "18")
    assert (texts["map2map.ndim"], texts["map2map.first"], texts["map2map.scale"]) == (
        "2",
        "0",
        "1",
    )
    for to, load in (
        ("torch-export", lambda p, read: torch.export.load(p, extra_files=read)),
        ("torchscript", lambda p, read: torch.jit.load(p, _extra_files=read)),
    ):
        path = tmp_path / f"e{exports.formats()[to].SUFFIX}"
        write(made, path, to)
        read = dict.fromkeys(texts, "")
        load(path, read)
        assert {k: v.decode() if isinstance(v, bytes) else v for k, v in read.items()} == texts


def test_a_halo_that_is_rounded_up_is_told(tmp_path):
    made = make()
    made.footprint = Footprint(margin=5, multiple=4, cut=0)
    assert (metadata(made)["map2map.low"], metadata(made)["map2map.first"]) == ("8", "8")


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_a_file_names_no_folder_of_this_machine(tmp_path, to):
    write(make(), tmp_path / "file", to)
    data = (tmp_path / "file").read_bytes()
    assert str(Path(exports.__file__).parents[1]).encode() not in data
    assert str(Path(torch.__file__).parent).encode() not in data


def test_torchscript_has_contiguous_outputs_in_the_order_of_the_card(tmp_path):
    inputs = FieldSet((Field("a", "1", "scalar", 1),))
    targets = FieldSet((Field("z", "1", "scalar", 2), Field("b", "1", "scalar", 1)))
    made = Emulator(inputs, targets, {}, ConvNet(1, 3, ndim=1, width=2), Domain(ndim=1)).eval()
    write(made, tmp_path / "e.pt", "torchscript")
    z, b = torch.jit.load(tmp_path / "e.pt")(torch.zeros(2, 1, 12))
    assert (z.shape, b.shape) == ((2, 2, 4), (2, 1, 4))
    assert z.is_contiguous()
    assert b.is_contiguous()


def test_torchscript_takes_arrays_in_either_order_of_memory(tmp_path, saved):
    """As Fortran programs have them: FTorch gives PyTorch the strides."""
    write(saved, tmp_path / "e.pt", "torchscript")
    x = torch.randn(2, 2, 8, 9, generator=torch.Generator().manual_seed(0))
    first_index_contiguous = x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert first_index_contiguous.stride(0) == 1
    y = torch.jit.load(tmp_path / "e.pt")(first_index_contiguous)
    torch.testing.assert_close(y, saved(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("to", ["torch-export", "torchscript"])
def test_norms_are_float32_in_the_file(tmp_path, saved, to):
    """An emulator's statistics are float64, which not every device has."""
    write(saved, tmp_path / "e", to)
    load = torch.export.load if to == "torch-export" else torch.jit.load
    loaded = load(tmp_path / "e")
    state = loaded.state_dict if to == "torch-export" else loaded.state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert len(state) == 7  # weights and biases of two convolutions; shift, scale, typical


def test_an_emulator_in_training_is_exported_as_it_is_applied_and_not_changed(tmp_path):
    """Statistics of batches would move if it were run as in training."""
    made = make(UNet(2, 2, ndim=2, width=2, depth=1)).train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    for to in ("torch-export", "torchscript"):
        write(made, tmp_path / to, to)
    after = made.state_dict()
    assert made.training
    assert all(after[name].dtype == value.dtype for name, value in before.items())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_code_of_the_users_is_exported(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "nets.py").write_text(
        "from torch import nn\n"
        "class Mean(nn.Module):\n"
        "    def __init__(self, in_chan, out_chan):\n"
        "        super().__init__()\n"
        "        self.in_chan, self.out_chan = in_chan, out_chan\n"
        "    def forward(self, x):\n"
        "        return (x[..., 2:, 2:] + x[..., :-2, :-2]) / 2\n"
    )
    plain = make()
    spec = {"class_path": "map2map_callback.nets.Mean", "init_args": {"in_chan": 2, "out_chan": 2}}
    names = {"linear": Scale(6.0)}
    half = nn.AvgPool2d(3, stride=1)  # sees as far
    made = Emulator(plain.inputs, plain.targets, names, half, plain.domain, spec)
    made.save(tmp_path / "e.safetensors")
    argv = [sys.executable, "-m", "map2map.cli", "export", "e.safetensors", "--to", "onnx"]
    # in a process of its own, because the class would stay in this one
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "callback_at" in done.stderr
    subprocess.run([*argv, "--callback-at", "lab"], cwd=tmp_path, check=True)
    x = np.arange(2 * 4 * 5, dtype=np.float32).reshape(1, 2, 4, 5)
    (y,) = onnxruntime.InferenceSession(tmp_path / "e.onnx").run(None, {"linear": x})
    np.testing.assert_allclose(y, (x[..., 2:, 2:] + x[..., :-2, :-2]) / 12, rtol=1e-6)


# --- sizes ---------------------------------------------------------------------------------------


class Counting(nn.Module):
    """Does something else where the mean is positive."""

    footprint = Footprint(margin=0)

    def __init__(self, in_chan, out_chan):
        super().__init__()
        self.in_chan, self.out_chan = in_chan, out_chan

    def forward(self, x):
        return x * 2 if x.mean() > 0 else x


class FixedGrid(nn.Module):
    """Knows its positions: has a weight for each cell of a grid of 6 x 7."""

    footprint = Footprint(margin=0, whole="a weight per cell")

    def __init__(self, in_chan, out_chan):
        super().__init__()
        self.in_chan, self.out_chan = in_chan, out_chan
        self.weight = nn.Parameter(torch.rand(6, 7))

    def forward(self, x):
        return x * self.weight


class OneByOne(nn.Module):
    """Has a loop over windows, of which a graph can only have a fixed number."""

    footprint = Footprint(margin=0)

    def __init__(self, in_chan, out_chan):
        super().__init__()
        self.in_chan, self.out_chan = in_chan, out_chan

    def forward(self, x):
        return torch.stack([one * 3 for one in x])


def test_where_windows_cannot_be_many_there_is_one(tmp_path):
    made = make(OneByOne(2, 2))
    with pytest.raises(ArtefactError, match="fixed size of the number of windows; give --size"):
        write(made, tmp_path / "e.onnx", "onnx")
    write(made, tmp_path / "e.onnx", "onnx", {"size": (6, 7)})
    (value,) = onnx.load(tmp_path / "e.onnx").graph.input
    assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [1, 2, 6, 7]


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_a_network_of_one_size_needs_it(tmp_path, to):
    made = make(FixedGrid(2, 2))
    with pytest.raises(ArtefactError, match=r"FixedGrid: .*; give --size to export it for"):
        write(made, tmp_path / "file", to)
    assert files(tmp_path) == []
    check = write(made, tmp_path / "file", to, {"size": (6, 7)})
    assert check.sizes == ((6, 7),)


def test_torchscript_of_a_network_of_one_size_needs_it(tmp_path):
    made = make(FixedGrid(2, 2))
    with pytest.raises(ArtefactError, match="as TorchScript"):
        write(made, tmp_path / "file", "torchscript")
    write(made, tmp_path / "file", "torchscript", {"size": (6, 7)})


@pytest.mark.parametrize("to", ["onnx", "torch-export", "torchscript"])
def test_a_network_that_decides_by_its_values_is_refused_or_found_out(tmp_path, to):
    """A trace follows one branch; the file is run on other values, and would differ."""
    with pytest.raises(ArtefactError, match=r"Counting|deviates"):
        write(make(Counting(2, 2)), tmp_path / "file", to)
    assert files(tmp_path) == []


def test_one_number_is_the_size_of_all_axes(m2m, tmp_path, saved):
    status, out, _ = m2m("export", "e.safetensors", "--to", "torchscript", "--size", 9)
    assert status == 0
    assert "9 x 9 cells, fixed" in out
    assert "checked   on 9 x 9 cells" in out


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--to", "onxx"], "no format 'onxx' to export to; did you mean 'onnx'?"),
        (["--to", "torchscript", "--opset", "18"], "--to torchscript has no option --opset"),
        (
            ["--to", "onnx", "--opst", "18"],
            "--to onnx has no option --opst; its options are --size",
        ),
        (["--to", "onnx", "--opset", "17"], "`opset` is 17, but PyTorch writes 18 and newer"),
        (["--to", "onnx", "--size", "9", "9", "9"], "--size has 3 numbers, but"),
        (
            ["--to", "onnx", "--size", "4"],
            "does not take 4 cells, a crop with its halo: sizes are 5",
        ),
        (["--to", "onnx", "--out", "e.safetensors"], "e.safetensors exists; choose another name"),
        (["--to", "onnx", "--out", "e.safetensors/x"], "cannot write"),
    ],
)
def test_what_cannot_be_is_refused_by_name(m2m, tmp_path, saved, argv, words):
    status, out, err = m2m("export", "e.safetensors", *argv)
    assert (status, out) == (2, "")
    assert words in err
    assert files(tmp_path) == ["e.safetensors"]


def test_a_file_is_only_replaced_if_asked(m2m, tmp_path, saved):
    (tmp_path / "e.pt2").write_text("mine")
    assert m2m("export", "e.safetensors", "--to", "torch-export")[0] == 2
    assert (tmp_path / "e.pt2").read_text() == "mine"
    assert m2m("export", "e.safetensors", "--to", "torch-export", "--overwrite")[0] == 0
    assert torch.export.load(tmp_path / "e.pt2")


def test_a_missing_package_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "map2map.exports.writing.find_spec",
        lambda name: None if "onnx" in name else find_spec(name),
    )
    remedy = r"--to onnx needs the packages onnx, onnxscript, onnxruntime; .*map2map\[export\]"
    with pytest.raises(RecipeError, match=remedy):
        write(make(), tmp_path / "e.onnx", "onnx")


def test_options_are_refused_from_python_too(tmp_path):
    with pytest.raises(RecipeError, match="--to torch-export has no option --opset"):
        write(make(), tmp_path / "e.pt2", "torch-export", {"opset": 18})


def test_a_norm_without_statistics_is_refused(tmp_path):
    made = make(norms={"linear": Standardize()})
    with pytest.raises(ArtefactError, match="norm of field 'linear' has no statistics yet"):
        write(made, tmp_path / "e.pt2", "torch-export")


def test_onnx_needs_different_names_and_a_limited_size(tmp_path, monkeypatch):
    one = FieldSet((Field("x", "1", "scalar", 1),))
    made = Emulator(one, one, {}, ConvNet(1, 1, ndim=1, width=2), Domain(ndim=1)).eval()
    with pytest.raises(ArtefactError, match="x is an input and a target"):
        write(made, tmp_path / "e.onnx", "onnx")
    write(made, tmp_path / "e.pt2", "torch-export")
    monkeypatch.setattr("map2map.exports.onnx.LARGEST", 100)
    with pytest.raises(ArtefactError, match="but an ONNX file can have 100; use --to torch-export"):
        write(make(), tmp_path / "e.onnx", "onnx")


@pytest.mark.parametrize(
    "wrong", [lambda y: y * 1.001, lambda y: y * torch.nan, lambda y: y[:, :1]]
)
def test_a_file_that_deviates_is_not_kept(tmp_path, monkeypatch, wrong):
    (tmp_path / "e.pt2").write_text("former")
    right = torch_export.run
    monkeypatch.setattr(
        torch_export, "run", lambda p, x: {name: wrong(y) for name, y in right(p, x).items()}
    )
    with pytest.raises(ArtefactError, match=r"deviates .* rms of 'displacement'.*was not kept"):
        write(make(), tmp_path / "e.pt2", "torch-export", overwrite=True)
    assert files(tmp_path) == ["e.pt2"]
    assert (tmp_path / "e.pt2").read_text() == "former"


def test_a_file_that_does_not_run_is_not_kept(tmp_path, monkeypatch):
    def fail(path, fields):
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(torch_export, "run", fail)
    with pytest.raises(
        ArtefactError, match="does not run on 6 x 7 cells: RuntimeError: no kernel;"
    ):
        write(make(), tmp_path / "e.pt2", "torch-export")
    assert files(tmp_path) == []


def test_deviations_are_in_units_of_the_rms():
    made = make()
    x = torch.randn(1, 2, 8, 9, generator=torch.Generator().manual_seed(0)) * 6
    with torch.no_grad():
        y = made(x)
    rms = float(y.double().square().mean().sqrt())
    off = y.clone()
    off[0, 1, 2, 3] += 0.25
    assert deviations(made, {"linear": x}, {"displacement": y}) == {"displacement": 0.0}
    found = deviations(made, {"linear": x}, {"displacement": off})
    assert found["displacement"] == pytest.approx(0.25 / rms, rel=1e-5)


def test_a_format_that_cannot_be_run_is_written_and_not_checked(m2m, tmp_path, saved, monkeypatch):
    def export(emulator, path, *, flavour="plain"):
        path.write_text(flavour)

    other = SimpleNamespace(__doc__="Another.", SUFFIX=".txt", PACKAGES=(), export=export)
    monkeypatch.setattr("map2map.exports.writing.formats", lambda: {"other": other})
    monkeypatch.setattr("map2map.commands.export.formats", lambda: {"other": other})
    status, out, _ = m2m("export", "e.safetensors", "--to", "other", "--flavour", "sweet")
    assert status == 0
    assert (tmp_path / "e.txt").read_text() == "sweet"
    assert "not: this format cannot be run here" in out
    assert write(saved, tmp_path / "again", "other") == Check((), {})
    status, out, err = m2m("export", "e.safetensors", "--to", "other", "--size", 9)
    assert status == 2
    assert "--to other has no option --size" in err
    assert "--flavour" in m2m("export", "--help")[1]


# --- Fortran -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The example, compiled as its README says."""
    for tool in ("gfortran", "make", "cc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("fortran") / "from_fortran"
    shutil.copytree(EXAMPLE, folder)
    made = subprocess.run(
        ["make", f"PYTHON={sys.executable}", "CFLAGS=-O1 -Wall -Wextra -Werror"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k not in ("FC", "CC", "FFLAGS")},
    )
    if "no libonnxruntime" in made.stderr:
        pytest.skip("there is no library of ONNX Runtime")
    assert made.returncode == 0, made.stdout + made.stderr
    assert "Warning" not in made.stderr
    return folder / "from_fortran"


def fortran(program, *arguments, folder):
    return subprocess.run(
        [program, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """An emulator of boxes and its ONNX file."""
    torch.manual_seed(0)
    model = UNet(4, 4, ndim=3, width=3, depth=1)
    inputs = FieldSet((Field("v", "km/s", "vector", 3), Field("rho", "1", "scalar", 1)))
    targets = FieldSet((Field("T", "K", "scalar", 1), Field("w", "km/s", "vector", 3)))
    norms = {"v": Scale(300.0), "T": Affine(2.0, 7.0)}
    made = Emulator(inputs, targets, norms, model, Domain(ndim=3)).eval()
    path = tmp_path_factory.mktemp("boxes") / "e.onnx"
    write(made, path, "onnx")
    return made, path


@pytest.mark.parametrize("shape", [(4, 5, 7), (12, 2, 3)])
def test_fortran_gives_what_python_gives(program, boxes, tmp_path, shape):
    """Whole periodic boxes without any symmetry; sizes that are no multiples of the network's."""
    made, path = boxes
    rng = np.random.default_rng(0)
    fields = {
        "v": (rng.normal(size=(3, *shape)) * 300).astype(np.float32),
        "rho": rng.uniform(0, 2, size=(1, *shape)).astype(np.float32),
    }
    for name, values in fields.items():
        # Fortran's order of the transposed array is the memory of the array itself
        (tmp_path / f"{name}.bin").write_bytes(values.transpose(3, 2, 1, 0).tobytes(order="F"))
    done = fortran(program, path, *shape[::-1], "out.bin", "v.bin", "rho.bin", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    halo = made.footprint.halo_for(shape)
    read = [a + n + b for a, n, b in zip(halo.low, shape, halo.high, strict=True)]
    assert f"takes v, a window of {' '.join(map(str, read[::-1]))} around" in done.stdout
    raw = np.fromfile(tmp_path / "out.bin", np.float32)
    cells = int(np.prod(shape))
    found = {
        "T": raw[:cells].reshape((*shape[::-1], 1), order="F").transpose(3, 2, 1, 0),
        "w": raw[cells:].reshape((*shape[::-1], 3), order="F").transpose(3, 2, 1, 0),
    }
    for name, expected in made(fields).items():
        rms = float(np.sqrt(np.mean(expected.astype(float) ** 2)))
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=5e-6 * rms)


def test_fortran_says_what_went_wrong(program, tmp_path):
    done = fortran(program, "none.onnx", 4, 4, 4, "out.bin", "x.bin", folder=tmp_path)
    assert done.returncode != 0
    assert "cannot load none.onnx" in done.stderr
    made = make(ndim=3)
    write(made, tmp_path / "fixed.onnx", "onnx", {"size": (9, 9, 9)})
    done = fortran(program, "fixed.onnx", 5, 6, 5, "out.bin", "x.bin", folder=tmp_path)
    assert done.returncode != 0
    assert "exported for 9 cells on axis 1, not 10" in done.stderr
    (tmp_path / "x.bin").write_bytes(bytes(4 * 3 * 125))
    done = fortran(program, "fixed.onnx", 5, 5, 5, "out.bin", "x.bin", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.bin").stat().st_size == 4 * 3 * 125
    model = onnx.load(tmp_path / "fixed.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    done = fortran(program, "foreign.onnx", 5, 5, 5, "out.bin", "x.bin", folder=tmp_path)
    assert done.returncode != 0
    assert "says nothing of map2map" in done.stderr
