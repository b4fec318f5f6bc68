"""Tallies: how targets come out in an epoch, counted batch by batch on the device."""

from collections.abc import Callable

import torch
from torch import Tensor

from map2map.fields import Field, FieldSet

__all__ = ["FieldTally", "Tally", "rates"]


def rates(confusion: Tensor) -> dict[str, float]:
    """Scores of a confusion matrix of counts, shape (truth, predicted).

    Of two classes the second is the positive one; of more, precision, recall, F1 and the rates are
    means over the classes. A ratio 0/0 is 0, as curves have no gaps.

    >>> rates(torch.tensor([[8, 2], [1, 9]]))["accuracy"]
    0.85
    """
    matrix = confusion.double()
    right = matrix.diagonal()
    wanted, claimed = matrix.sum(1), matrix.sum(0)
    other = matrix.sum() - wanted
    per_class = {
        "precision": right / claimed.clamp(min=1),
        "recall": right / wanted.clamp(min=1),
        "F1_score": 2 * right / (wanted + claimed).clamp(min=1),
        "TPR": right / wanted.clamp(min=1),
        "FPR": (claimed - right) / other.clamp(min=1),
    }
    binary = len(matrix) == 2
    return {"accuracy": float(right.sum() / matrix.sum().clamp(min=1))} | {
        name: float(values[1] if binary else values.mean()) for name, values in per_class.items()
    }


class Tally:
    """Counts of an epoch: a confusion matrix for each label, squared errors of each parameter.

    Args:
        fields: The targets, labels and parameters of whole runs.
        decode: Undoes the norms of targets, shape (batch, channel).
    """

    def __init__(self, fields: FieldSet, decode: Callable[[Tensor], Tensor]) -> None:
        self.fields, self.decode = fields, decode
        self.sums: dict[str, Tensor] = {}
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.sums = {
            field.name: torch.zeros(shape_of(field), dtype=torch.float64) for field in self.fields
        }

    def state(self) -> dict[str, Tensor]:
        """The counts, for a state."""
        return {name: sums.cpu() for name, sums in self.sums.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up the counts of a state."""
        self.sums = dict(state)

    @torch.no_grad()
    def add(self, output: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            output: Of the network, shape (batch, channel).
            target: Normalized, of the same shape.
        """
        physical = self.decode(output.detach().float()), self.decode(target.detach().float())
        for field in self.fields:
            y, t = (side[:, self.fields.slices[field.name]] for side in physical)
            total = self.sums[field.name] = self.sums[field.name].to(y.device)
            if field.kind == "label":
                classes = len(total)
                predicted, truth = (
                    (side[:, 0] > middle).long() if classes == 2 else side.argmax(1)
                    for side, middle in ((y, 0.0), (t, 0.5))
                )
                pairs = torch.bincount(classes * truth + predicted, minlength=classes**2)
                total += pairs.reshape(classes, classes)
            else:
                total += torch.stack([(y - t).double().square().sum(), y.new_tensor(len(y))])

    def results(self, total: Callable[[Tensor], Tensor] = lambda x: x) -> dict[str, float]:
        """Scores of the epoch, by name; of several fields with the field's name in front.

        Args:
            total: Adds up the counts of all processes.
        """
        found: dict[str, float] = {}
        for field in self.fields:
            sums = total(self.sums[field.name])
            if field.kind == "label":
                scores = rates(sums)
            else:
                scores = {"rmse": float((sums[0] / sums[1].clamp(min=1)).sqrt())}
            front = f"{field.name}_" if len(self.fields) > 1 else ""
            found |= {f"{front}{name}": value for name, value in scores.items()}
        return found


class FieldTally:
    """Sums of an epoch from which scores of fields follow, those of all batches and processes.

    R² = 1 - sum (y - t)² / sum (t - mean t)², with the mean per channel, and relative L2 =
    sqrt(sum (y - t)² / sum t²), as `metrics.pointwise` has them, over the whole data set: a mean of
    those of batches is another number, which depends on the size of batches.

    Args:
        fields: The targets.
        decode: Undoes the norms of targets, shape (batch, channel, *space).
    """

    def __init__(self, fields: FieldSet, decode: Callable[[Tensor], Tensor]) -> None:
        self.fields, self.decode = fields, decode
        self.sums = torch.zeros(4, fields.channels, dtype=torch.float64)

    def clear(self) -> None:
        """Begin anew."""
        self.sums = torch.zeros_like(self.sums)

    def state(self) -> Tensor:
        """The sums, for a state."""
        return self.sums.cpu()

    def load(self, state: Tensor) -> None:
        """Take up the sums of a state."""
        self.sums = state

    @torch.no_grad()
    def add(self, output: Tensor, target: Tensor) -> None:
        """Count a batch, where the target is finite.

        Args:
            output: Of the network, shape (batch, channel, *space).
            target: Normalized, of the same shape.
        """
        y, t = (
            self.decode(x.detach() if x.dtype == torch.float64 else x.detach().float()).double()
            for x in (output, target)
        )
        counts = torch.isfinite(t)
        error, t = (torch.where(counts, x, 0.0) for x in (y - t, t))
        parts = torch.stack([counts.double(), error.square(), t, t.square()])
        over = [axis for axis in range(parts.ndim) if axis not in (0, 2)]
        self.sums = self.sums.to(parts.device) + parts.sum(dim=over)

    def results(self, total: Callable[[Tensor], Tensor] = lambda x: x) -> dict[str, float]:
        """R² and relative L2 of the epoch; of several fields, the means of theirs.

        Args:
            total: Adds up the sums of all processes.
        """
        every = total(self.sums).cpu()
        r2, relative = [], []
        for channels in self.fields.slices.values():
            count, squared, first, second = every[:, channels]
            deviations = (second - first.square() / count.clamp(min=1)).sum()
            r2.append(1 - squared.sum() / deviations)
            relative.append((squared.sum() / second.sum()).sqrt())
        return {
            "r2": float(torch.stack(r2).mean()),
            "relative_l2": float(torch.stack(relative).mean()),
        }


def shape_of(field: Field) -> tuple[int, ...]:
    """Of what is counted of a field."""
    classes = len(field.classes or ())
    return (classes, classes) if classes else (2,)
