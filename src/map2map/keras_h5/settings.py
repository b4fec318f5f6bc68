"""Layers of Keras's that can be read, and which of their settings."""

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from map2map.errors import ArtefactError
from map2map.keras_h5.layers import Kind

__all__ = ["CLASSES", "CONVS", "Settings"]

CONVS: dict[str, Kind] = {"Conv2D": "conv", "Conv2DTranspose": "double"}
OTHERS = ("MaxPooling2D", "Concatenate", "LeakyReLU", "ReLU", "Activation", "Dropout")
CLASSES = ("InputLayer", *CONVS, *OTHERS)
ACTIVATIONS = {"linear": 1.0, "relu": 0.0, "leaky_relu": 0.2}
"""Slopes of activations that are told by name."""


@dataclass(frozen=True)
class Settings:
    """The settings of a layer, of which those that are not supported are refused by name.

    Args:
        name: Of the layer.
        kind: Its class.
        config: What the file says of it.
    """

    name: str
    kind: str
    config: dict[str, Any]

    def refuse(self, key: str, allowed: str) -> NoReturn:
        """Say what is set and what may be."""
        raise ArtefactError(
            f"layer {self.name!r} ({self.kind}) has {key} {self.config.get(key)!r}, which is not "
            f"supported; it can be {allowed}"
        )

    def only(self, key: str, *allowed: Any, default: Any = None) -> None:
        """Refuse other values; a number stands for both axes."""
        value = self.config.get(key, default)
        value = tuple(value) if isinstance(value, list) else value
        if isinstance(allowed[0], tuple) and isinstance(value, int):
            value = (value, value)
        if value not in allowed:
            words = [repr(each) for each in allowed if each is not None]
            self.refuse(key, " or ".join(words) or "None, its default")

    def count(self, key: str) -> int:
        """A positive number."""
        value = self.config.get(key)
        if not isinstance(value, int) or value < 1:
            self.refuse(key, "a number from 1")
        return value

    def conv(self) -> int:
        """The width of a convolution's kernel; refuses what is no convolution that pads."""
        step = 2 if self.kind == "Conv2DTranspose" else 1
        size = self.config.get("kernel_size")
        sizes = [size, size] if isinstance(size, int) else size
        if not isinstance(sizes, list) or len(set(sizes)) != 1 or len(sizes) != 2:
            self.refuse("kernel_size", "as wide as high")
        width = sizes[0]
        if not isinstance(width, int) or width % 2 == 0 or (step == 2 and width != 3):
            self.refuse("kernel_size", "odd, and of a Conv2DTranspose 3")
        self.only("strides", (step, step), default=(1, 1))
        self.only("padding", "same", *["valid"] * (width == 1), default="valid")
        self.only("data_format", "channels_last", None)
        self.only("dilation_rate", (1, 1), default=(1, 1))
        self.only("groups", 1, default=1)
        self.only("output_padding", None)
        self.only("use_bias", True, default=True)
        return width

    def pool(self) -> None:
        """Refuse what is no maximum of 2 x 2 cells."""
        self.only("pool_size", (2, 2), default=(2, 2))
        self.only("strides", (2, 2), None)
        self.only("data_format", "channels_last", None)

    def slope(self) -> float:
        """What the layer multiplies negative values by; 1 if it has no activation."""
        key = "activation"
        if self.kind == "LeakyReLU":
            key = "negative_slope" if "negative_slope" in self.config else "alpha"
            slope = self.config.get(key, 0.3)
        elif self.kind == "ReLU":
            self.only("max_value", None)
            self.only("threshold", 0, None)
            key = "negative_slope"
            slope = self.config.get(key) or 0.0
        else:
            self.only(key, *ACTIVATIONS, None)
            slope = ACTIVATIONS[self.config.get(key) or "linear"]
        if not isinstance(slope, int | float) or not 0 <= slope <= 1:
            self.refuse(key, "from 0 to 1")
        # Keras 2 writes 0.01 as the nearest float32, 0.009999999776482582
        return float(str(np.float32(slope)))
