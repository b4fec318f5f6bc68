"""The order in which an epoch visits its samples: a pure function, so that it can be resumed.

With ``local`` order (map2map's ``--div-data``) the files are shuffled, and the crops only among
neighboring files, so that each rank reads about ``files / world`` files per epoch, one after
another, and other files every epoch. What is read once stays in the page cache.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from map2map.errors import RecipeError

__all__ = ["Order", "Share"]

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """Which part of the work is ours.

    Args:
        rank: Number of this process.
        world: Number of processes.
    """

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise RecipeError(f"rank {self.rank} is not one of {self.world} processes")

    def of(self, count: int) -> tuple[int, int]:
        """Our first of so many, and one behind our last; shares differ by one at most.

        >>> [Share(rank, 3).of(7) for rank in range(3)]
        [(0, 2), (2, 4), (4, 7)]
        """
        return count * self.rank // self.world, count * (self.rank + 1) // self.world


@dataclass(frozen=True)
class Order:
    """How samples are ordered; sample ``s`` is crop ``s % crops`` of file ``s // crops``.

    Args:
        shuffle: Whether the order is random; if not, it is 0, 1, 2, …
        local: Shuffle files, and crops only within ``distance`` files, so that little is read
            twice; each process gets its own files.
        distance: How far a crop may be displaced when ``local``, in files: 0 keeps the crops of a
            file in their order, up to 1 shuffles them within their file, the number of files
            spreads them over all.
        seed: Other seeds, other orders.
    """

    shuffle: bool = True
    local: bool = False
    distance: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.distance < 0:
            raise RecipeError(f"the shuffle distance is {self.distance} files; it cannot be < 0")

    def everything(self, epoch: int, files: int, crops: int) -> Indices:
        """All samples in the order of one epoch, before they are shared out."""
        total = files * crops
        if not self.shuffle:
            return np.arange(total)
        rng = np.random.default_rng([self.seed, epoch])
        if not self.local:
            return rng.permutation(total)
        listed = rng.permutation(files)
        displacement = rng.uniform(0, self.distance, size=(files, crops))
        key = (np.arange(files)[:, None] + displacement) % files
        # stable, so that crops that are not displaced keep their order
        nearby = np.argsort(key, axis=None, kind="stable")
        samples = listed[:, None] * crops + np.arange(crops)
        return samples.ravel()[nearby]

    def samples(
        self, epoch: int, files: int, crops: int, share: Share | None = None, *, even: bool = True
    ) -> Indices:
        """The samples of one process, in the order of one epoch.

        Nothing is lost: every sample belongs to some process. Where they do not divide evenly,
        ``even`` repeats a few so that all processes take as many steps, as training needs;
        otherwise the shares differ by one sample, as validation wants.

        Args:
            epoch: Number of the epoch; another epoch, another order.
            files: Number of files (of a field).
            crops: Crops per file.
            share: Our rank and the number of processes.
            even: Whether all processes get as many samples.
        """
        share = share or Share()
        order = self.everything(epoch, files, crops)
        total = len(order)
        # contiguous chunks, so that with local order a process reads its own files
        start, stop = share.of(total)
        mine = order[start:stop]
        size = -(-total // share.world)
        if even and total > 0 and len(mine) < size:
            spare = mine if len(mine) else order[[share.rank % total]]
            mine = np.concatenate([mine, np.resize(spare, size - len(mine))])
        return mine
