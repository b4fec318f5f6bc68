"""An emulator is one file that needs no other, gives physical values, and runs no foreign code."""

import json
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from map2map.arrays import Settings
from map2map.emulator import Card, Emulator
from map2map.errors import ArtefactError, FieldError, GeometryError
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.models import ConvNet, UNet
from map2map.norms import Affine, Chain, FunctionNorm, Log1p, Norm, Standardize
from map2map.specs import build, describe


def make(model=None, domain=None, norms=None):
    torch.manual_seed(0)
    inputs = FieldSet((Field("v", "km/s", "vector", 2), Field("rho", "kg/m3", "scalar", 1)))
    targets = FieldSet((Field("w", "m/s", "vector", 2),))
    norms = norms or {
        "v": Standardize([1.0, -1.0], [2.0, 3.0]),
        "rho": Chain([Log1p(), Affine(0.5, 2.0)]),
        "w": Standardize([4.0, 5.0], [0.1, 0.2]),
    }
    model = model or ConvNet(3, 2, ndim=2, width=4, depth=2)
    return Emulator(inputs, targets, norms, model, domain or Domain(ndim=2)).eval()


def physical(shape=(7, 9)):
    rng = np.random.default_rng(0)
    return {"v": rng.normal(size=(2, *shape)), "rho": rng.uniform(0, 4, size=shape)}


def by_hand(emulator, fields, high=(0, 0)):
    """The whole periodic field in float64, with norms and wrapping written out.

    ``high`` cells more are read on the high sides, and their outputs left away.
    """
    v = (fields["v"] - np.array([1, -1])[:, None, None]) / np.array([2, 3])[:, None, None]
    rho = (np.log1p(fields["rho"] + 1e-7) - 0.5) / 2.0
    x, margin, shape = np.concatenate([v, rho[None]]), emulator.footprint.margin, v.shape[1:]
    for axis in range(2):
        cells = range(-margin, shape[axis] + high[axis] + margin)
        x = x.take(cells, axis=1 + axis, mode="wrap")
    with torch.no_grad():
        y = emulator.model.double()(torch.from_numpy(x)[None])[0].numpy()
    emulator.model.float()
    y = y * np.array([0.1, 0.2])[:, None, None] + np.array([4, 5])[:, None, None]
    return y[:, : shape[0], : shape[1]]


@pytest.mark.parametrize(("depth", "high"), [(1, (0, 1)), (2, (2, 3))])
def test_a_field_of_any_size_is_evaluated_from_its_first_cell_on(depth, high):
    """10 x 13 cells are no multiple of what the network pools."""
    emulator = make(UNet(3, 2, ndim=2, width=4, depth=depth))
    fields = physical((10, 13))
    np.testing.assert_allclose(emulator(fields)["w"], by_hand(emulator, fields, high), rtol=1e-4)


def test_a_whole_field_is_evaluated_around_its_edges():
    emulator = make()
    fields = physical()
    np.testing.assert_allclose(emulator(fields)["w"], by_hand(emulator, fields), rtol=1e-5)


def test_what_is_made_up_beyond_an_edge_is_as_declared():
    emulator = make(domain=Domain(ndim=2, periodic=[True, False], pad="reflect"))
    fields = physical()
    padded = {k: np.pad(x, [(0, 0)] * (x.ndim - 1) + [(2, 2)], mode="reflect")
              for k, x in fields.items()}  # fmt: skip
    expected = by_hand(emulator, padded)[:, :, 2:-2]
    np.testing.assert_allclose(emulator(fields)["w"], expected, rtol=1e-5)


def test_a_tensor_is_windows_of_physical_values():
    emulator = make()
    x = torch.from_numpy(np.concatenate([physical()["v"], physical()["rho"][None]])).float()
    y = emulator(x[None])
    assert y.shape == (1, 2, 3, 5)
    np.testing.assert_allclose(
        y[0].detach(), by_hand(emulator, physical())[:, 2:-2, 2:-2], rtol=1e-5
    )


def test_a_file_needs_nothing_else(tmp_path):
    """A fresh interpreter, in another folder, gives the same numbers."""
    emulator = make()
    emulator.save(tmp_path / "e.safetensors")
    np.savez(tmp_path / "fields.npz", **physical())
    code = f"""
        import numpy as np
        from map2map.emulator import Emulator
        fields = dict(np.load({str(tmp_path / "fields.npz")!r}))
        emulator = Emulator.load({str(tmp_path / "e.safetensors")!r})
        np.save({str(tmp_path / "w.npy")!r}, emulator(fields)["w"])
    """
    elsewhere = tmp_path / "empty"
    elsewhere.mkdir()
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=elsewhere)
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), emulator(physical())["w"])


def test_a_field_that_is_input_and_target_keeps_its_norm_in_a_file(tmp_path):
    torch.manual_seed(0)
    rho, w = (FieldSet((Field(name, "1", "scalar", 1),)) for name in ("rho", "w"))
    both = FieldSet((*rho, *w))
    norms = {"rho": Standardize([4.0], [0.5])}
    emulator = Emulator(both, rho, norms, ConvNet(2, 1, width=2, depth=1, ndim=2), Domain(ndim=2))
    emulator.save(tmp_path / "e.safetensors")
    again, x = Emulator.load(tmp_path / "e.safetensors"), torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        expected = 4 + 0.5 * emulator.model((x - torch.tensor([4.0, 0])[:, None, None])
                                            / torch.tensor([0.5, 1])[:, None, None])  # fmt: skip
        torch.testing.assert_close(again(x), expected)


def test_nan_are_allowed_where_its_settings_say_so():
    emulator, fields = make(), physical((20, 20))
    fields["rho"][3, 3] = np.nan
    with pytest.raises(FieldError, match="1 NaN or infinite"):
        emulator(fields)
    emulator.settings = Settings(allow_nonfinite=True)
    seen = np.isnan(emulator(fields)["w"][0])
    margin = emulator.footprint.margin
    assert seen[3, 3]
    assert seen.sum() == (2 * margin + 1) ** 2
    with pytest.raises(FieldError, match="1 NaN or infinite"):
        emulator.apply(fields, settings=Settings())


def test_a_card_is_read_without_weights_and_says_everything(tmp_path):
    emulator = make()
    emulator.training_record = {"seed": 5}
    emulator.save(tmp_path / "e.safetensors")
    card = Card.read(tmp_path / "e.safetensors")
    assert [field["units"] for field in card.inputs] == ["km/s", "kg/m3"]
    assert card.model["class_path"] == "map2map.models.ConvNet"
    assert card.model["init_args"]["depth"] == 2
    assert card.norms["rho"]["init_args"]["norms"][0]["class_path"] == "map2map.norms.Log1p"
    assert card.footprint["margin"] == 2
    assert card.training == {"seed": 5}


def rewrite(path, change):
    """Change the card of a file."""
    weights = load_file(path)
    emulator = make()
    emulator.save(path)
    import safetensors

    with safetensors.safe_open(path, "pt") as opened:
        card = json.loads(opened.metadata()["map2map"])
    change(card)
    save_file(weights, path, metadata={"map2map": json.dumps(card)})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda card: card.update(format=99), "format 99, but this version reads 1"),
        (lambda card: card["model"].update(class_path="os.system"), "--trust os.system, trust="),
        (lambda card: card["model"].update(class_path="torch.nn.functional.relu"), "not a torch"),
        (lambda card: card["model"].update(class_path="map2map.models.Nope"), "cannot be imported"),
        (lambda card: card["model"]["init_args"].update(what=1), "does not take the arguments"),
        (lambda card: card["model"]["init_args"].update(width=5), "card and the weights"),
        (lambda card: card["norms"]["v"].update(class_path="pickle.loads"), "refusing to import"),
        (lambda card: card.update(model="UNet"), "a spec has a class_path"),
        (lambda card: card.pop("model"), "lacks or has unknown"),
        (lambda card: card["targets"][0].update(channels=1), "have 1 channels, but the network"),
        (lambda card: card["inputs"][1].update(channels=2), "have 4 channels, but the network"),
        (lambda card: card["footprint"].update(margin=1), "tells the footprint"),
        (lambda card: card["footprint"].pop("cut"), "tells the footprint"),
        (lambda card: card.update(footprint="x"), "tells the footprint"),
    ],
)
def test_a_card_that_is_not_trusted_or_does_not_fit_is_refused(tmp_path, change, match):
    path = tmp_path / "e.safetensors"
    make().save(path)
    rewrite(path, change)
    with pytest.raises(ArtefactError, match=match):
        Emulator.load(path)


class Payload:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_a_pickle_a_truncated_file_and_bare_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "e.safetensors"
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ArtefactError, match="not an emulator"):
        Emulator.load(path)
    assert not (tmp_path / "executed").exists()
    make().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtefactError, match="not an emulator, or is truncated"):
        Emulator.load(path)
    save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(ArtefactError, match="no card"):
        Emulator.load(path)
    with pytest.raises(ArtefactError, match="there is no emulator"):
        Emulator.load(tmp_path / "none.safetensors")


def test_the_users_own_norm_is_asked_for_and_then_used(tmp_path):
    from map2map.usercode import load_from_folder

    (tmp_path / "own.py").write_text(
        "def double(x, undo=False, by=2):\n    x.mul_(1 / by if undo else by)\n"
    )
    function = load_from_folder("own.double", tmp_path)
    norms = {"w": FunctionNorm(function, "own.double", {"by": 8})}
    emulator = make(norms=norms)
    emulator.save(tmp_path / "e.safetensors")
    with pytest.raises(ArtefactError, match="needs the user's own"):
        Emulator.load(tmp_path / "e.safetensors")
    loaded = Emulator.load(tmp_path / "e.safetensors", callback_at=tmp_path)
    np.testing.assert_array_equal(loaded(physical())["w"], emulator(physical())["w"])


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda f: f.pop("rho"), FieldError, "missing: rho"),
        (lambda f: f.update(rh0=f.pop("rho")), FieldError, "missing: rho; unknown: rh0"),
        (lambda f: f.update(v=f["v"][:1]), FieldError, r"takes 2 channels on 2 axes"),
        (lambda f: f.update(rho=f["rho"][0]), FieldError, "'rho' has shape"),
        (lambda f: f.update(rho=f["rho"][1:]), GeometryError, "different grids"),
    ],
)
def test_fields_that_do_not_fit_are_refused_by_name(change, error, match):
    fields = physical()
    change(fields)
    with pytest.raises(error, match=match):
        make()(fields)


def test_a_norm_for_no_field_is_refused():
    with pytest.raises(FieldError, match="did you mean 'rho'"):
        make(norms={"rh": Affine()})


@pytest.mark.parametrize(
    "norm", [Standardize([1.0], [2.0]), Chain([Log1p(eps=0.25), Affine(1.0, 2.0)])]
)
def test_a_description_builds_the_same_again(norm):
    again = build(json.loads(json.dumps(describe(norm))))
    assert isinstance(again, Norm)
    x = torch.rand(1, 1, 5)
    assert torch.equal(again(x), norm(x))


def test_a_module_that_forgets_its_arguments_is_told_how_to_keep_them():
    class Forgetful(nn.Module):
        def __init__(self, width=3):
            super().__init__()

    from map2map.errors import RecipeError

    with pytest.raises(RecipeError, match=r"self\.width = width"):
        describe(Forgetful())


def test_a_network_that_gives_other_channels_than_the_fields_have_is_refused():
    emulator = make(ConvNet(3, 5, ndim=2, width=4, depth=1))
    with pytest.raises(FieldError, match="the fields w have 2 channels, but 5 were given, or come"):
        emulator(physical())
