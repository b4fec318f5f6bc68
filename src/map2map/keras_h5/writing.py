"""Writing Keras's HDF5 files, in the least that Keras 2 and 3 both read.

That is the layers and their weights: no settings of training, which later versions refuse, and no
optimizer.
"""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from map2map.keras_h5.layers import Layer

__all__ = ["VERSION", "WRITER", "write_layers"]

VERSION = "2.15.0"
"""Of Keras, whose form the file has."""

WRITER = "written_by"
"""Attribute of the file that says that not Keras has written it."""

CLASSES = {
    "input": "InputLayer",
    "conv": "Conv2D",
    "double": "Conv2DTranspose",
    "pool": "MaxPooling2D",
    "join": "Concatenate",
}


def write_layers(path: Path, layers: Sequence[Layer], dropout: float = 0.0) -> None:
    """Write a file that Keras reads.

    Args:
        path: The file, replaced if it is there.
        layers: Each behind those that it takes, the output last; convolutions with weights.
        dropout: Rate of a dropout layer behind each activation; none if 0.

    Raises:
        OSError: If it cannot be written.
    """
    entries: list[dict[str, Any]] = []
    names: list[str] = []  # of the layer that gives the output of each
    for layer in layers:
        kind = CLASSES.get(layer.kind) or ("LeakyReLU" if layer.slope else "ReLU")
        entries.append(entry(kind, layer.name, settings(layer), [names[i] for i in layer.inputs]))
        if layer.kind == "activation" and dropout:
            name = f"{layer.name}_dropout"
            entries.append(entry("Dropout", name, {"rate": dropout}, [layer.name]))
        names.append(str(entries[-1]["name"]))
    config = {
        "name": "model",
        "layers": entries,
        "input_layers": [[names[0], 0, 0]],
        "output_layers": [[names[-1], 0, 0]],
    }
    weights = {layer.name: layer.weights for layer in layers}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        file.attrs[WRITER] = f"map2map {version('map2map')}"
        group = file.create_group("model_weights")
        # of the group too, or Keras 2 takes the weights for those of Keras 1, and turns the kernels
        # of transposed convolutions
        for place in (file, group):
            place.attrs["keras_version"] = VERSION
            place.attrs["backend"] = "tensorflow"
        every = [str(each["name"]) for each in entries]
        group.attrs["layer_names"] = np.array([name.encode() for name in every])
        for name in every:
            inside = group.create_group(name)
            pair = dict(zip(("kernel", "bias"), weights.get(name) or (), strict=False))
            paths = [f"{name}/{key}:0" for key in pair]
            inside.attrs["weight_names"] = np.array([path.encode() for path in paths])
            for key, array in zip(paths, pair.values(), strict=True):
                inside.create_dataset(key, data=array.astype(np.float32, copy=False))


def settings(layer: Layer) -> dict[str, Any]:
    """What Keras needs to know of a layer, besides its defaults."""
    two = [2, 2]
    if layer.kind == "input":
        shape = [None, None, None, layer.chan]
        return {"batch_input_shape": shape, "sparse": False, "ragged": False}
    if layer.kind in ("conv", "double"):
        return {
            "filters": layer.chan,
            "kernel_size": [layer.width] * 2,
            "strides": two if layer.kind == "double" else [1, 1],
            "padding": "same",
            "data_format": "channels_last",
            "activation": "linear",
            "use_bias": True,
        }
    if layer.kind == "activation":
        return {"alpha": layer.slope} if layer.slope else {}
    if layer.kind == "pool":
        return {"pool_size": two, "strides": two, "padding": "valid"}
    return {"axis": -1}


def entry(kind: str, name: str, config: dict[str, Any], inputs: Sequence[str]) -> dict[str, Any]:
    """A layer as Keras 2 lists it."""
    common = {"name": name, "dtype": "float32"} | (
        {} if kind == "InputLayer" else {"trainable": True}
    )
    return {
        "class_name": kind,
        "config": common | config,
        "name": name,
        "inbound_nodes": [[[source, 0, 0, {}] for source in inputs]] if inputs else [],
    }
