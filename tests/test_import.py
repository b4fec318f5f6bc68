"""``m2m import`` and ``m2m export --to keras-h5``: what is taken over, refused and left alone."""

import json
from importlib.metadata import version

import h5py
import pytest
import torch

from map2map.emulator import Card, Emulator
from map2map.errors import ArtefactError
from map2map.exports.writing import Check, write
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.imports import origins
from map2map.imports.dle import read, units_of
from map2map.models import ConvNet, PaddedConvNet, PaddedUNet
from map2map.norms import Affine, Identity, Scale, Standardize
from map2map.scale_files import read_scales

INPUTS = {"thk": 2000.0, "slopsurfx": 1.5, "slopsurfy": 1.5}
TARGETS = {"ubar": 1000.0, "vbar": 1000.0}


def make(model=None, norms=None, targets=("ubar", "vbar"), channels=1, **domain):
    inputs = FieldSet(tuple(Field(name, "m", "scalar", 1) for name in INPUTS))
    outputs = FieldSet(tuple(Field(name, "m/yr", "scalar", channels) for name in targets))
    known = {name: Scale(scale) for name, scale in (INPUTS | TARGETS).items() if name in
             (*inputs.names, *outputs.names)}  # fmt: skip
    torch.manual_seed(0)
    model = model or PaddedConvNet(inputs.channels, outputs.channels, width=3, depth=2)
    domain = Domain(**({"ndim": 2, "periodic": False} | domain))
    return Emulator(inputs, outputs, known | (norms or {}), model, domain).eval()


@pytest.fixture
def folder(tmp_path):
    write(make(), tmp_path / "dle/model.h5", "keras-h5")
    return tmp_path / "dle"


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_import_has_fields_units_norms_and_provenance(m2m, folder, tmp_path):
    status, out, err = m2m("import", "--from", "dle", "dle")
    assert (status, err) == (0, "")
    assert "thk [m] (typical [2000.0]), slopsurfx [1] (typical [1.5])" in out
    assert "PaddedConvNet of 176 parameters" in out
    card = Card.read(tmp_path / "emulator.safetensors")
    names = {f["name"]: (f["units"], f["kind"], f["channels"]) for f in card.inputs + card.targets}
    assert names == {
        "thk": ("m", "scalar", 1),
        "slopsurfx": ("1", "scalar", 1),
        "slopsurfy": ("1", "scalar", 1),
        "ubar": ("m/yr", "scalar", 1),
        "vbar": ("m/yr", "scalar", 1),
    }
    assert [f["name"] for f in card.inputs] == list(INPUTS)
    for name, scale in (INPUTS | TARGETS).items():
        assert card.norms[name] == {
            "class_path": "map2map.norms.Scale",
            "init_args": {"typical": [scale], "by": "rms", "beside": None},
        }
    assert (card.grid["ndim"], card.grid["periodic"]) == (2, False)
    assert card.model["class_path"] == "map2map.models.PaddedConvNet"
    imported = card.training["imported"]
    assert imported["from"] == "dle"
    assert imported["files"]["model.h5"]["bytes"] == (folder / "model.h5").stat().st_size
    # in a form of Keras's, but no Keras has run
    assert imported["written_by"] == f"map2map {version('map2map')}"
    assert set(card.versions) == {"map2map"}
    with h5py.File(folder / "model.h5", "a") as file:
        del file.attrs["written_by"]
    assert m2m("import", "--from", "dle", folder, "-o", "keras.safetensors")[0] == 0
    card = Card.read("keras.safetensors")
    assert card.versions["keras"].startswith("2.")
    assert "written_by" not in card.training["imported"]
    assert m2m("inspect", "emulator.safetensors")[0] == 0


@pytest.mark.parametrize(
    "model",
    [PaddedConvNet(3, 2, width=3, depth=2, dropout=0.1), PaddedUNet(3, 2, width=2, levels=3)],
    ids=["convnet", "unet"],
)
def test_export_and_import_are_each_others_inverse(m2m, tmp_path, model):
    norms = {"thk": Scale(1 / 3), "ubar": Scale(3e-9), "vbar": Identity()}
    made = make(model, norms)
    made.save(tmp_path / "e.safetensors")
    status, out, _ = m2m("export", "e.safetensors", "--to", "keras-h5")
    assert status == 0
    assert "read back: the same layers, and weights equal to the last bit" in out
    assert files(tmp_path) == ["e.safetensors", "fieldin.dat", "fieldout.dat", "model.h5"]
    assert m2m("import", "--from", "dle", ".", "-o", "again.safetensors")[0] == 0
    again = Emulator.load(tmp_path / "again.safetensors")
    assert again.model_spec == made.model_spec
    state = again.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 100
    assert torch.equal(made(x), again(x))
    # and once more, to the same bytes
    m2m("export", "again.safetensors", "--to", "keras-h5", "--out", "b/model.h5")
    for name in ("fieldin.dat", "fieldout.dat"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert read_scales(tmp_path / "fieldout.dat") == {"ubar": 3e-9, "vbar": 1.0}


def test_units_are_those_of_the_convention():
    expected = {
        "thk": "m", "slopsurfx": "1", "slopsurfn": "1", "ubar": "m/yr", "wvelbase": "m/yr",
        "vvelsurf": "m/yr", "arrhenius": "MPa-3 yr-1", "slidingco": "km MPa-3 yr-1", "X": "m",
        "air_temp_3": "1", "ubarx": "1",
    }  # fmt: skip
    assert {name: units_of(name) for name in expected} == expected


def test_the_scale_of_the_outputs_wins_for_a_field_on_both_sides(folder, caplog):
    (folder / "fieldout.dat").write_text("ubar 1000\nthk 50\n")
    emulator = read(folder)
    assert float(emulator.norm("thk").typical) == 50
    assert "field 'thk' has the scale 2000 in fieldin.dat and 50 in fieldout.dat" in caplog.text


def remove(name):
    return lambda folder: (folder / name).unlink()


def put(name, text):
    return lambda folder: (folder / name).write_text(text)


def spoil_layers(folder):
    with h5py.File(folder / "model.h5", "r+") as file:
        model = json.loads(file.attrs["model_config"])
        model["config"]["layers"][2]["class_name"] = "ELU"
        file.attrs["model_config"] = json.dumps(model)


WRONG = {
    "folder": (("nowhere",), None, "there is no folder nowhere; give the one with model.h5, field"),
    "origin": (("dle", "--from", "dlx"), None, "there is no origin 'dlx' to import from; did you"),
    "model": (("dle",), remove("model.h5"), "dle lacks model.h5; needed are model.h5, fieldin.dat"),
    "both": (("dle",), remove("fieldin.dat"), "dle lacks fieldin.dat"),
    "fewer": (
        ("dle",),
        put("fieldin.dat", "thk 1\n"),
        "fieldin.dat names 1 fields (thk), but the network in model.h5 has 3 channels there",
    ),
    "more": (
        ("dle",),
        put("fieldout.dat", "a 1\nb 1\nc 1\n"),
        "fieldout.dat names 3 fields (a, b, c), but the network in model.h5 has 2 channels",
    ),
    "line": (("dle",), put("fieldin.dat", "thk 1\nb\nc 1\n"), "fieldin.dat, line 2: found 'b'"),
    "zero": (("dle",), put("fieldin.dat", "thk 0\nb 1\nc 1\n"), "cannot divide by the scale 0"),
    "text": (("dle",), put("model.h5", "weights"), "model.h5 is not an HDF5 file, or is truncated"),
    "layer": (("dle",), spoil_layers, "layer 'conv2d_activation' is of the class ELU, which"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_ends_in_one_message_and_no_file(m2m, folder, tmp_path, case):
    argv, spoil, words = WRONG[case]
    if spoil:
        spoil(folder)
    origin = () if "--from" in argv else ("--from", "dle")
    status, out, err = m2m("import", *argv, *origin)
    assert (status, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert err.count("\n") == 1
    assert files(tmp_path) == ["dle"]


def test_an_emulator_is_only_replaced_if_asked(m2m, folder, tmp_path):
    (tmp_path / "emulator.safetensors").write_text("mine")
    status, _, err = m2m("import", "--from", "dle", "dle")
    assert status == 2
    assert "emulator.safetensors exists; choose another name (-o) or allow to --overwrite" in err
    assert (tmp_path / "emulator.safetensors").read_text() == "mine"
    assert m2m("import", "--from", "dle", "dle", "--overwrite")[0] == 0
    assert Emulator.load(tmp_path / "emulator.safetensors")


def test_the_help_names_every_origin_and_what_it_needs(m2m):
    status, out, _ = m2m("import", "--help")
    assert status == 0
    for name in origins():
        assert f"\n  {name} " in out
    assert "model.h5, fieldin.dat and fieldout.dat" in out
    assert "m2m import --from dle" in out
    assert "import " in m2m("--help")[1]


@pytest.mark.parametrize("name", origins())
def test_every_origin_has_a_reader_and_refuses_an_empty_folder(tmp_path, name):
    with pytest.raises(ArtefactError, match=str(tmp_path)):
        origins()[name].read(tmp_path)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: make(ConvNet(3, 2, ndim=2, width=2)), "not a ConvNet"),
        (lambda: make(PaddedConvNet(3, 2, ndim=1, width=2), ndim=1), "is on 1; try --to onnx"),
        (lambda: make(norms={"thk": Affine(1.0, 2.0)}), "field 'thk' has the norm Affine, but a"),
        (lambda: make(norms={"ubar": Standardize()}), "norm Standardize without statistics, but"),
        (lambda: make(norms={"ubar": Scale()}), "norm Scale without statistics"),
        (lambda: make(targets=("u",), channels=2), "field 'u' has 2 channels, but a file of scal"),
        (lambda: make(targets=("u bar", "vbar")), "field 'u bar' cannot be written to a file"),
        (lambda: make(periodic=True), "the emulator has .*periodic"),
        (lambda: make(periodic=[False, True]), "the emulator has .*periodic"),
    ],
)
def test_what_a_keras_file_cannot_express_is_refused_with_the_reason(tmp_path, made, words):
    made = made()
    with pytest.raises(ArtefactError, match=words):
        write(made, tmp_path / "model.h5", "keras-h5")
    assert files(tmp_path) == []


def test_weights_that_are_not_finite_are_not_exported(tmp_path):
    made = make()
    made.model.last.bias.data[0] = torch.nan
    with pytest.raises(ArtefactError, match="the bias of layer 'conv2d_2' is not finite"):
        write(made, tmp_path / "model.h5", "keras-h5")
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["model.h5", "fieldin.dat", "fieldout.dat"])
def test_none_of_the_three_files_is_replaced_unless_asked(m2m, tmp_path, name):
    made = make()
    made.save(tmp_path / "e.safetensors")
    (tmp_path / name).write_text("mine")
    status, _, err = m2m("export", "e.safetensors", "--to", "keras-h5")
    assert status == 2
    assert f"{name} exists; choose another name (--out)" in err
    assert (tmp_path / name).read_text() == "mine"
    assert files(tmp_path) == sorted(["e.safetensors", name])
    assert write(made, tmp_path / "model.h5", "keras-h5", overwrite=True) == Check((), {})
    assert read(tmp_path).inputs.names == tuple(INPUTS)


def test_a_keras_file_has_no_fixed_size(m2m, tmp_path):
    make().save(tmp_path / "e.safetensors")
    status, _, err = m2m("export", "e.safetensors", "--to", "keras-h5", "--size", 32)
    assert status == 2
    assert "--to keras-h5 has no option --size; the network takes frames of every size" in err


def test_a_folder_that_cannot_be_written_leaves_no_part(m2m, folder, tmp_path):
    (tmp_path / "file").write_text("no folder")
    status, _, err = m2m("import", "--from", "dle", "dle", "-o", "file/e.safetensors")
    assert status == 2
    assert "cannot write" in err
    assert files(tmp_path) == ["dle", "file"]
