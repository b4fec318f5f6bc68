"""Critics: the networks that adversarial training sets against an emulator's, and their penalties.

A critic, or discriminator, maps fields (batch, channel, *space) to scores, of any shape but for the
batch: the higher, the more real. It is made for the channels that it is to see, and tried on
tensors without values before anything is trained.
"""

import copy
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from map2map.errors import GeometryError, M2MError, RecipeError
from map2map.probes import same_random_numbers

__all__ = [
    "check_scores",
    "drawn",
    "gradient_norms",
    "gradient_penalty",
    "make_critic",
    "normalize_spectrally",
    "r1_penalty",
    "random_numbers",
]

Critic = Callable[[Tensor], Tensor]


def make_critic(
    make: Callable[..., nn.Module], names: Sequence[str], channels: int, ndim: int
) -> nn.Module:
    """A critic for so many channels, with one score.

    Args:
        make: Its class and arguments.
        names: Of the fields that it sees, for messages.
        channels: Theirs.
        ndim: Number of axes.

    Raises:
        RecipeError: If it cannot be made for them, or is made for others.
    """
    what = f"the {channels} channels of {', '.join(names)} on {ndim} axes"
    try:
        critic = make(channels, 1, ndim=ndim)
    except M2MError:
        raise
    except TypeError as error:
        raise RecipeError(f"the discriminator cannot be made for {what}: {error}") from error
    takes = getattr(critic, "in_chan", channels)
    if isinstance(takes, int) and takes != channels:
        raise RecipeError(
            f"the discriminator {type(critic).__name__} takes {takes} channels, but is to see "
            f"{what}; a conditional one sees the inputs and styles, too"
        )
    return critic


def check_scores(
    critic: nn.Module, shape: Sequence[int], loss: nn.Module, names: Sequence[str]
) -> None:
    """Refuse a critic that does not give scores for a batch, or cannot learn from them.

    Args:
        critic: It is copied, not changed.
        shape: Of the fields, (batch, channel, *space).
        loss: Compares scores with 1 for real and 0 for not.
        names: Of the fields, for messages.

    Raises:
        GeometryError: If it does not take fields of this shape, or gives nothing for them.
        RecipeError: If it has no weights, or the loss does not take its scores.
    """
    name, scores = type(critic).__name__, None
    # without values first, which takes no time; with, for critics that look at them
    for device in ("meta", "cpu"):
        try:
            with same_random_numbers(), torch.device(device):
                scores = copy.deepcopy(critic).to(device).train()(torch.zeros(tuple(shape)))
            break
        except Exception as error:
            if device == "cpu":
                # halos are for the network, whose output it sees
                why = str(error).partition("; it cuts off")[0]
                raise GeometryError(
                    f"the discriminator {name} does not take {told(shape)}, which are "
                    f"{', '.join(names)}: {why}; where cells are too few, take larger crops "
                    f"(data.crops.size)"
                ) from error
    if not isinstance(scores, Tensor) or scores.shape[:1] != (shape[0],) or not scores.numel():
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise GeometryError(
            f"the discriminator {name} gives {found} for {told(shape)}, but one score or more of "
            f"each sample are needed; take a smaller one, or larger crops"
        )
    if not scores.requires_grad:
        raise RecipeError(
            f"the discriminator {name} cannot learn: its scores have no gradient by its weights; "
            f"give it some (nn.Parameter), and no detach or no_grad on the way"
        )
    check_loss(loss, tuple(scores.shape))


def check_loss(loss: nn.Module, shape: Sequence[int]) -> None:
    """Refuse a loss that cannot tell scores of a shape from one another.

    Raises:
        RecipeError: If it is such.
    """
    name, ones = type(loss).__name__, torch.ones(tuple(shape))
    try:
        values = [loss(sign * ones, ones) for sign in (1, -1)]
    except Exception as error:
        raise RecipeError(
            f"the loss {name} does not compare scores of shape {tuple(shape)} with as many "
            f"labels: {error}"
        ) from error
    if not all(isinstance(value, Tensor) and value.numel() == 1 for value in values):
        raise RecipeError(f"the loss {name} of scores is no single number")
    real, fake = (value.item() for value in values)
    if real == fake:
        raise RecipeError(
            f"the loss {name} is {real + 0.0:g} for what the discriminator takes for real and for "
            f"what it does not, so that nothing is learnt; use torch.nn.BCEWithLogitsLoss, MSELoss "
            f"or map2map.losses.Wasserstein"
        )


def told(shape: Sequence[int]) -> str:
    """A shape for messages.

    >>> told((4, 2, 8, 8))
    'batches of 4 x 2 channels x 8 x 8 cells'
    """
    cells = " x ".join(map(str, shape[2:]))
    return f"batches of {shape[0]} x {shape[1]} channels x {cells} cells"


def normalize_spectrally(critic: nn.Module) -> None:
    """Divide the weights of convolutions and linear layers by their largest singular value.

    It is estimated by one power iteration at every training step (Miyato et al. 2018,
    arXiv:1802.05957). Weights are called ``weight_orig`` then, and the iterated vectors
    ``weight_u`` and ``weight_v``, as in map2map's states, which those of PyTorch's later
    parametrization would not be.

    Raises:
        RecipeError: If there are no such layers.
    """
    layers = [m for m in critic.modules() if isinstance(m, nn.Linear | _ConvNd)]
    if not layers:
        raise RecipeError(
            f"spectral_norm is of convolutions and linear layers, of which the discriminator "
            f"{type(critic).__name__} has none"
        )
    for layer in layers:
        nn.utils.spectral_norm(layer)


def slopes(critic: Critic, fields: Tensor) -> Tensor:
    """Gradients of the mean score of each sample, (batch, number), to be differentiated again."""
    fields = fields.detach().requires_grad_(True)
    # samples do not mix (but for batch norms), so that the gradient of the sum is each one's own
    total = critic(fields).flatten(start_dim=1).mean(dim=1).sum()
    (gradient,) = torch.autograd.grad(total, fields, create_graph=True)
    return gradient.flatten(start_dim=1)


def r1_penalty(critic: Critic, real: Tensor, weight: float = 10.0) -> Tensor:
    """``weight / 2`` times the mean over samples of the squared slope where fields are real.

    Mescheder et al. 2018 (arXiv:1801.04406), eq. 9.

    Args:
        critic: Gives scores.
        real: Shape (batch, channel, *space).
        weight: The factor.
    """
    return 0.5 * weight * slopes(critic, real).square().sum(dim=1).mean()


def gradient_penalty(
    critic: Critic, fake: Tensor, real: Tensor, share: Tensor, weight: float = 10.0
) -> Tensor:
    """``weight`` times the mean of ``(slope - 1)^2`` between fields that are real and not.

    Gulrajani et al. 2017 (arXiv:1704.00028), eq. 3.

    Args:
        critic: Gives scores.
        fake: Shape (batch, channel, *space).
        real: Likewise.
        share: Of the fake in the mix of each sample, (batch,), from 0 to 1.
        weight: The factor.
    """
    share = share.reshape(-1, *(1,) * (fake.ndim - 1)).to(fake.dtype)
    slope = slopes(critic, share * fake + (1 - share) * real)
    penalty: Tensor = weight * (torch.linalg.vector_norm(slope, dim=1) - 1).square().mean()
    return penalty


def gradient_norms(critic: nn.Module) -> tuple[float, float] | None:
    """Norms of the gradients of the first and the last weights, if there are any."""
    grads = [p.grad for name, p in critic.named_parameters() if ".weight" in f".{name}"]
    known = [float(grad.norm()) for grad in (grads[:1] + grads[-1:]) if grad is not None]
    return (known[0], known[1]) if len(known) == 2 else None


def random_numbers(seed: int, rank: int, batch: int, device: torch.device) -> torch.Generator:
    """The generator of a batch: the same however often training was broken off before.

    Args:
        seed: Of the training.
        rank: Of the process.
        batch: Its number in the training.
        device: Where numbers are drawn.
    """
    key = blake2b(f"{seed} {rank} {batch}".encode(), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(key, "big"))


def drawn(draw: Any, like: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers like a tensor."""
    numbers: Tensor = draw(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    return numbers
