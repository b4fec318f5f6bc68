"""The mean line: what the mean of the input alone tells of labels and parameters; a baseline."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from map2map.fields import FieldSet

__all__ = ["MeanLine", "means"]


def means(x: Tensor) -> NDArray[np.float64]:
    """One and the means of channels, shape (batch, 1 + channel), of fields (batch, channel, …).

    Means are over the finite cells; of a channel without any it is NaN.
    """
    cells = x.detach().double().flatten(2)
    finite = torch.isfinite(cells)
    mean = torch.where(finite, cells, 0.0).sum(2) / finite.sum(2)
    return np.concatenate([np.ones((len(mean), 1)), mean.cpu().numpy()], axis=1)


class MeanLine:
    """Sums from which the best line through means is computed: nothing else is kept of samples.

    Of parameters it is the line of least squares. Of labels it is the linear discriminant: log odds
    of classes whose means scatter alike, normally.

    Args:
        targets: Labels and parameters.
        inputs: Channels of the inputs.
    """

    def __init__(self, targets: FieldSet, inputs: int) -> None:
        self.targets = targets
        self.squares = np.zeros((1 + inputs, 1 + inputs))
        self.products = np.zeros((1 + inputs, targets.channels))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in a batch, normalized: inputs (batch, channel, *space), targets (batch, channel).

        Labels must not be smoothed. A sample without a finite cell in some channel does not count.
        """
        phi = means(x)
        known = np.isfinite(phi).all(axis=1)
        phi = phi[known]
        self.squares += phi.T @ phi
        self.products += phi.T @ y.detach().double().cpu().numpy()[known]

    def weights(self) -> list[list[float]] | None:
        """Of one and the means, for each output: (1 + channel, output); None without samples."""
        # states from before cells that are not finite were left out may hold such sums
        finite = np.isfinite(self.squares).all() and np.isfinite(self.products).all()
        if not self.squares[0, 0] or not finite:
            return None
        columns = [
            self._odds(self.products[:, channels])
            if self.targets[name].kind == "label"
            else np.linalg.lstsq(self.squares, self.products[:, channels], rcond=None)[0]
            for name, channels in self.targets.slices.items()
        ]
        found: list[list[float]] = np.concatenate(columns, axis=1).tolist()
        return found

    def _odds(self, products: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log odds of classes; of two classes, that of the second."""
        each = products
        if products.shape[1] == 1:
            each = np.concatenate([self.squares[:, :1] - products, products], axis=1)
        number = np.maximum(each[0], 1e-300)
        middle = each[1:] / number
        within = self.squares[1:, 1:] - (middle * number) @ middle.T
        inverse = np.linalg.pinv(within / self.squares[0, 0])
        slopes = inverse @ middle
        first = np.log(number / self.squares[0, 0]) - 0.5 * (middle * slopes).sum(axis=0)
        odds = np.concatenate([first[None], slopes])
        return odds if products.shape[1] > 1 else odds[:, 1:] - odds[:, :1]

    def state(self) -> dict[str, Tensor]:
        """The sums, for a state."""
        return {"squares": torch.tensor(self.squares), "products": torch.tensor(self.products)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up the sums of a state."""
        self.squares, self.products = (
            state[name].cpu().numpy() for name in ("squares", "products")
        )

    @staticmethod
    def predict(weights: Sequence[Sequence[float]], x: Tensor) -> NDArray[np.float64]:
        """Outputs for a batch of normalized inputs, shape (batch, output)."""
        found: NDArray[np.float64] = means(x) @ np.asarray(weights)
        return found
