"""Reading Keras's HDF5 files, of Keras 2 and 3."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from map2map.errors import ArtefactError
from map2map.keras_h5.layers import Kind, Layer, Network, Weights
from map2map.keras_h5.settings import CLASSES, CONVS, Settings
from map2map.keras_h5.writing import WRITER

__all__ = ["read_network"]

Node = tuple[str, int]
"""A layer and which of its calls, as a layer that is shared is called several times."""


def read_network(path: Path) -> Network:
    """Read a file that Keras, or `keras_h5.writing`, has written.

    Raises:
        ArtefactError: If it is no such file, is truncated, has a layer that is not known here, or
            weights that do not fit its layers.
    """
    try:
        with h5py.File(path, "r") as file:
            settings = file.attrs.get("model_config")
            if settings is None:
                what = "weights, but no network" if "layer_names" in file.attrs else "no network"
                raise ArtefactError(
                    f"it holds {what}; save the whole model, with model.save('model.h5')"
                )
            return Reader(file, json.loads(settings)).network()
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise ArtefactError(f"there is no file {path}") from error
    except OSError as error:
        raise ArtefactError(
            f"{path} is not an HDF5 file, or is truncated ({error}); it is a model that Keras has "
            f"saved as .h5"
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ArtefactError(
            f"{path} is not what Keras writes, or is damaged: {type(error).__name__}: {error}"
        ) from error


class Reader:
    """Follows a network from its output back to its input.

    Args:
        file: The open file.
        model: What its JSON text says.
    """

    def __init__(self, file: h5py.File, model: dict[str, Any]) -> None:
        self.file = file
        config = model["config"]
        entries = config if isinstance(config, list) else config["layers"]
        self.entries = {entry["config"]["name"]: entry for entry in entries}
        self.inbound = {
            name: [tuple(nodes(node)) for node in entry.get("inbound_nodes", [])]
            for name, entry in self.entries.items()
        }
        kind = model["class_name"]
        if kind == "Sequential":
            names = list(self.entries)
            self.inbound = {
                name: [((before, 0),)] if before else []
                for name, before in zip(names, [None, *names], strict=False)
            }
            self.outputs: list[Node] = [(names[-1], 0)]
        elif kind in ("Functional", "Model"):
            found = config["output_layers"]
            self.outputs = list(nodes([found] if isinstance(found[0], str) else found))
        else:
            raise ArtefactError(
                f"the model is a {kind!r}; Functional and Sequential models can be read"
            )
        self.layers: list[Layer] = []
        self.numbers: dict[Node, int] = {}
        self.dropout = 0.0

    def network(self) -> Network:
        """What has been found.

        Raises:
            ArtefactError: If there is more than one output or input, or a layer is refused.
        """
        if len(self.outputs) != 1:
            raise ArtefactError(f"the model has {len(self.outputs)} outputs; one can be read")
        for node in self._order(self.outputs[0]):
            self._add(node)
        inputs = [layer.name for layer in self.layers if layer.kind == "input"]
        if len(inputs) != 1:
            raise ArtefactError(f"the model has {len(inputs)} inputs; one can be read")
        version = self.file.attrs.get("keras_version", "")
        writer = self.file.attrs.get(WRITER, "")
        return Network(tuple(self.layers), self.dropout, text(version), text(writer))

    def _takes(self, node: Node) -> tuple[Node, ...]:
        name, call = node
        if name not in self.entries:
            raise ArtefactError(f"there is no layer {name!r}, but another takes its output")
        return self.inbound[name][call] if self.inbound[name] else ()

    def _order(self, output: Node) -> list[Node]:
        """All that the output depends on, each behind what it takes, alike for alike networks."""
        done: dict[Node, bool] = {}  # whether all it takes is in the list
        waiting, order = [output], []
        while waiting:
            node = waiting[-1]
            todo = [n for n in self._takes(node) if not done.get(n)]
            if node in done or not todo:
                waiting.pop()
                if not done.get(node):
                    done[node] = True
                    order.append(node)
                continue
            if any(n in done for n in todo):
                raise ArtefactError(f"layer {node[0]!r} depends on its own output")
            done[node] = False
            waiting += reversed(todo)
        return order

    def _add(self, node: Node) -> None:
        """Add what a layer computes; its number is that of the last of its steps."""
        name, entry = node[0], self.entries[node[0]]
        config, kind = entry["config"], str(entry["class_name"])
        if kind not in CLASSES:
            raise ArtefactError(
                f"layer {name!r} is of the class {kind}, which is not supported; layers can be "
                f"{', '.join(CLASSES)}"
            )
        inputs = tuple(self.numbers[n] for n in self._takes(node))
        if kind == "InputLayer" or not inputs:
            # the first layer of a Sequential model may have the shape of the input
            inputs = (self._append("input", (), input_channels(config), name=name),)
        chan = sum(self.layers[i].chan for i in inputs)
        settings = Settings(name, kind, config)
        number = inputs[0]
        if kind in CONVS:
            number = self._conv(inputs, chan, settings)
        elif kind == "MaxPooling2D":
            settings.pool()
            number = self._append("pool", inputs, chan, name=name)
        elif kind == "Concatenate":
            settings.only("axis", -1, 3)
            number = self._append("join", inputs, chan, name=name)
        elif kind == "Dropout":
            self.dropout = max(self.dropout, float(config.get("rate") or 0))
        slope = settings.slope()
        if slope != 1:
            chan = self.layers[number].chan
            number = self._append("activation", (number,), chan, slope=slope, name=name)
        self.numbers[node] = number

    def _conv(self, inputs: tuple[int, ...], chan: int, settings: Settings) -> int:
        width, filters = settings.conv(), settings.count("filters")
        turned = settings.kind == "Conv2DTranspose"
        shape = (width, width, *((filters, chan) if turned else (chan, filters)))
        weights = self._weights(settings.name, shape, filters)
        kind = CONVS[settings.kind]
        return self._append(kind, inputs, filters, width=width, weights=weights, name=settings.name)

    def _append(self, kind: Kind, inputs: tuple[int, ...], chan: int, **more: Any) -> int:
        self.layers.append(Layer(kind, inputs, chan, **more))
        return len(self.layers) - 1

    def _weights(self, name: str, shape: tuple[int, ...], bias: int) -> Weights:
        """Kernel and bias of a layer.

        Raises:
            ArtefactError: If they are not there, of another shape or type, or not finite.
        """
        group = self.file["model_weights"]
        if name not in group:
            raise ArtefactError(f"there are no weights of layer {name!r}")
        found = {}
        for entry in group[name].attrs["weight_names"]:
            stored = group[name][text(entry)]
            found[text(entry).rpartition("/")[2].partition(":")[0]] = stored
        arrays = []
        for key, expected in (("kernel", shape), ("bias", (bias,))):
            if key not in found:
                raise ArtefactError(f"there is no {key} of layer {name!r} among its weights")
            if found[key].shape != expected or found[key].dtype != np.float32:
                raise ArtefactError(
                    f"the {key} of layer {name!r} is {found[key].dtype} of shape "
                    f"{found[key].shape}, but its settings ask for float32 of shape {expected}"
                )
            values = np.asarray(found[key][()], dtype=np.float32)
            if not np.isfinite(values).all():
                raise ArtefactError(
                    f"the {key} of layer {name!r} is not finite: its training had diverged"
                )
            arrays.append(values)
        return arrays[0], arrays[1]


def nodes(value: Any) -> Iterator[Node]:
    """The outputs of layers that a node takes: [name, call, output, …], in any nesting."""
    if isinstance(value, dict):
        history = value.get("config", {}) if "class_name" in value else {}
        if "keras_history" in history:
            yield from nodes(history["keras_history"])
        else:
            for key in value:
                yield from nodes(value[key])
    elif isinstance(value, list):
        if len(value) > 1 and isinstance(value[0], str) and isinstance(value[1], int):
            yield value[0], value[1]
        else:
            for each in value:
                yield from nodes(each)


def input_channels(config: dict[str, Any]) -> int:
    """The last size of the shape of an input."""
    shape = config.get("batch_input_shape") or config.get("batch_shape") or []
    if len(shape) != 4 or not isinstance(shape[-1], int):
        raise ArtefactError(
            f"the input has shape {shape}; it must be (batch, y, x, channels), with as many "
            f"channels as there are input fields"
        )
    return shape[-1]


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
