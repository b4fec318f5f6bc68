"""What maps of saliency are of, one output of an emulator's, and how they are made."""

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from map2map.emulator import Emulator
from map2map.errors import GeometryError, RecipeError, near_names
from map2map.fields import Field, FieldSet
from map2map.saliency import Of, gradient, integrated_gradients, smooth_grad

__all__ = ["METHODS", "How", "Output", "chosen"]

Method = Literal["gradient", "smooth", "integrated"]
METHODS: tuple[Method, ...] = get_args(Method)

T = TypeVar("T", Tensor, NDArray[np.float32])


@dataclass(frozen=True)
class Output:
    """What maps are of: a class of a label, or a parameter.

    Args:
        field: The label or parameter.
        channels: Of the network's output, those of the field.
        channel: Among them.
        sign: -1 for the first of two classes, whose logit is that of the second, negative.
        name: Of the class or of the parameter.
    """

    field: Field
    channels: slice
    channel: int
    sign: int
    name: str

    def logits(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the class, from those of the field's channels, shape (…, channel)."""
        return self.sign * outputs[..., self.channel]

    def probability(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the class, likewise."""
        if outputs.shape[-1] == 1:
            return np.asarray(np.exp(-np.logaddexp(0, -self.logits(outputs))))
        others = np.logaddexp.reduce(outputs, axis=-1)
        return np.asarray(np.exp(outputs[..., self.channel] - others))


def chosen(emulator: Emulator, target: str | None = None, class_name: str | None = None) -> Output:
    """The output that maps are of.

    Args:
        emulator: Of labels or parameters.
        target: Its name; may be left out if there is one, or one has the class.
        class_name: Of a label; by default the second of two.

    Raises:
        GeometryError: If the emulator gives fields.
        RecipeError: If there is no such output, or several that could be meant.
    """
    targets = emulator.targets
    if not targets.of_run:
        raise GeometryError(
            f"the emulator gives fields, {', '.join(targets.names)}; saliency is of labels and "
            f"parameters of whole runs"
        )
    field = field_of(targets, target, class_name)
    channels = targets.slices[field.name]
    if field.kind == "parameter":
        if class_name is not None:
            raise RecipeError(f"{field.name!r} is a parameter and has no class {class_name!r}")
        return Output(field, channels, 0, 1, field.name)
    classes = field.classes or ()
    if class_name is None and len(classes) > 2:
        raise RecipeError(f"{field.name!r} is one of {', '.join(classes)}; choose a class")
    class_name = classes[1] if class_name is None else class_name
    if class_name not in classes:
        raise RecipeError(
            f"{field.name!r} has no class {class_name!r}{near_names(class_name, classes)}"
        )
    place = classes.index(class_name)
    if len(classes) == 2:
        return Output(field, channels, 0, 1 if place else -1, class_name)
    return Output(field, channels, place, 1, class_name)


def field_of(targets: FieldSet, target: str | None, class_name: str | None) -> Field:
    """The label or parameter that is meant."""
    if target is not None:
        if target not in targets.names:
            raise RecipeError(f"there is no target {target!r}{near_names(target, targets.names)}")
        return targets[target]
    could = list(targets)
    if class_name is not None and len(could) > 1:
        could = [field for field in could if class_name in (field.classes or ())]
    if len(could) != 1:
        raise RecipeError(
            f"the emulator gives {', '.join(targets.names)}; choose one as the target"
        )
    return could[0]


@dataclass(frozen=True)
class How:
    """How maps are made.

    Args:
        output: Of what.
        method: "gradient", "smooth" (mean gradient of copies with noise) or "integrated" (from
            the mean of the training to the input).
        of: "logit", which for a parameter is its value, or "score", the class's probability.
        absolute: Whether to leave out the sign.
        copies: Of "smooth".
        noise: Of "smooth", as a share of the input's deviation.
        steps: Of "integrated".
        seed: Of the noise.

    Raises:
        RecipeError: If the method or ``of`` is something else.
    """

    output: Output
    method: Method = "gradient"
    of: Of = "logit"
    absolute: bool = False
    copies: int = 32
    noise: float = 0.1
    steps: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise RecipeError(
                f"there is no method {self.method!r}{near_names(self.method, METHODS)}"
            )
        if self.of not in get_args(Of):
            raise RecipeError(f"saliency is of {' or '.join(get_args(Of))}, not of {self.of!r}")
        if self.of == "score" and self.output.field.kind == "parameter":
            raise RecipeError(
                f"the score is the probability of a class, but {self.output.name!r} is a parameter"
            )

    def map(self, model: nn.Module, x: Tensor) -> Tensor:
        """Maps of a batch, of the shape of the input."""
        of, channel = self.of, self.output.channel
        if self.method == "smooth":
            found = smooth_grad(
                model,
                x,
                copies=self.copies,
                noise=self.noise,
                seed=self.seed,
                of=of,
                channel=channel,
            )
        elif self.method == "integrated":
            found = integrated_gradients(model, x, steps=self.steps, of=of, channel=channel)
        else:
            found = gradient(model, x, of=of, channel=channel)
        return self.signed(found)

    def signed(self, found: T) -> T:
        """Of the class that is meant; or without signs."""
        return abs(found) if self.absolute else self.output.sign * found
