"""Keras's HDF5: model.h5, fieldin.dat and fieldout.dat, as clients of 2Dto2D-DLE read them."""

from pathlib import Path

import torch

from map2map.emulator import Emulator
from map2map.errors import ArtefactError
from map2map.fields import FieldSet, field_channels
from map2map.keras_h5.networks import layers_of, model_of
from map2map.keras_h5.reading import read_network
from map2map.keras_h5.writing import VERSION, write_layers
from map2map.norms import Identity, Scale
from map2map.scale_files import INPUTS, TARGETS, as_text

__all__ = ["NAME", "NEEDLESS", "PACKAGES", "SUFFIX", "TOLD", "beside", "export"]

SUFFIX = ".h5"
NAME = "model.h5"
PACKAGES: tuple[str, ...] = ()
NEEDLESS = {"size": "the network takes frames of every size"}
TOLD = {
    "scales": f"{INPUTS}, {TARGETS} beside it: the network takes fields divided by them, float32 "
    f"(batch, y, x, field), and gives fields to multiply",
    "form": f"that of Keras {VERSION}, named in the file because Keras reads it by that; no Keras "
    f"has run",
    "checked": "read back: the same layers, and weights equal to the last bit",
}


def export(emulator: Emulator, path: Path) -> None:
    """Write the network alone: float32 (batch, y, x, input field) to (batch, y, x, target field).

    Args:
        emulator: What to export.
        path: The file.

    Raises:
        ArtefactError: If Keras's form cannot express it, or the file reads back otherwise.
    """
    model = emulator.model
    layers = layers_of(model)
    beyond = emulator.domain.grid((1,) * emulator.ndim).beyond
    if not set(beyond) <= {"refuse", "zero", "model"}:
        raise ArtefactError(
            f"beyond the edges the emulator has {', '.join(beyond)}, but clients that read this "
            f"form have zeros there, so it would give other numbers"
        )
    dropout = getattr(model, "dropout", 0.0)
    write_layers(path, layers, dropout)
    again = model_of(read_network(path)).state_dict()
    weights = {name: value.cpu() for name, value in model.state_dict().items()}
    if not all(torch.equal(value, again[name]) for name, value in weights.items()):
        raise ArtefactError("the file reads back with other weights; it was not kept")


def beside(emulator: Emulator) -> dict[str, str]:
    """The files of scales, by name.

    Raises:
        ArtefactError: If a field has several channels, or a norm that is no scale.
    """
    return {
        INPUTS: as_text(scales(emulator, emulator.inputs)),
        TARGETS: as_text(scales(emulator, emulator.targets)),
    }


def scales(emulator: Emulator, fields: FieldSet) -> dict[str, float]:
    """What each field is divided by [units of the field].

    Raises:
        ArtefactError: If a field has several channels, or a norm that is no scale.
    """
    found = {}
    for field in fields:
        norm = emulator.norm(field.name)
        if field_channels(field) != 1:
            raise ArtefactError(
                f"field {field.name!r} has {field.channels} channels, but a file of scales names "
                f"every channel; use one field for each, such as ubar and vbar"
            )
        if isinstance(norm, Scale) and norm.fitted and norm.typical.numel() == 1:
            found[field.name] = float(norm.typical)
        elif isinstance(norm, Identity):
            found[field.name] = 1.0
        else:
            state = "" if norm.fitted else " without statistics"
            raise ArtefactError(
                f"field {field.name!r} has the norm {type(norm).__name__}{state}, but a file of "
                f"scales can only hold numbers to divide by; train with the norm Scale"
            )
    return found
