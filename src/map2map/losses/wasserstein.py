"""The loss of a critic that estimates the Wasserstein distance."""

from torch import Tensor, nn

__all__ = ["Wasserstein"]


class Wasserstein(nn.Module):
    """Mean of ``(1 - 2 t) s``, for scores s of what is real (t = 1) or not (t = 0).

    A critic whose gradient is of length 1 at most makes this, less the same of what a generator
    gives, the distance between the two distributions (Arjovsky et al. 2017, arXiv:1701.07875): so
    it belongs together with a penalty of gradients. Scores have no bounds and no zero point.
    """

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """Compare scores with 1 for real and 0 for not, of one shape."""
        loss: Tensor = -((2 * target - 1) * scores).mean()
        return loss
