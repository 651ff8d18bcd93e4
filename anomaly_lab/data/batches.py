"""From rows of the store to batches: the order of the training images, and whole batches by one indexing operation.

The order is a pure function of the seed and the index of the draw, so a checkpoint need not save it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import Dataset

from anomaly_lab.data.preprocessing.augmentation import Augmentation
from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.preprocessing.volume_augmentation import VolumeAugmentation
from anomaly_lab.data.splitting.streams import stream
from anomaly_lab.data.store.lazy import LazyStore
from anomaly_lab.data.store.store import Store
from anomaly_lab.types import Batch, Schedule


@lru_cache(maxsize=8)
def _pass(seed: int, number: int, size: int) -> np.ndarray:
    return stream(seed, "training order", number).permutation(size)


def drawn(draws: np.ndarray, seed: int, size: int) -> np.ndarray:
    """Return the element that each draw selects: endless passes over all elements, each in a new random order.

    Args:
        draws: indices of the draws, counted from the start of the training; any shape.
        seed: seed of the orders.
        size: number of elements.

    Returns:
        Elements in [0, size), in the shape of `draws`: draw s is element s % size of pass s // size.

    Examples:
        >>> sorted(drawn(np.arange(4), seed=0, size=4).tolist())  # one pass takes every element once
        [0, 1, 2, 3]
    """
    passes, elements = np.divmod(draws, size)
    chosen = np.empty_like(draws)
    for number in np.unique(passes):
        here = passes == number
        chosen[here] = _pass(seed, int(number), size)[elements[here]]
    return chosen


@dataclass(frozen=True)
class IterationSampler:
    """Yields the draws of each iteration of one Lightning epoch, as [minibatches, images on this rank].

    Attributes:
        schedule: the training schedule, which determines the number of mini-batches per iteration.
        iterations: the iterations of the epoch, counted from the start of the training.
        batch_size: images per mini-batch over all ranks; must be divisible by `world_size`.
        rank, world_size: this process takes a contiguous part of every mini-batch.

    Examples:
        >>> from anomaly_lab.types import Phase
        >>> schedule = Schedule((Phase("gan", iterations=10, networks=(), minibatches=2),))
        >>> [draws.tolist() for draws in IterationSampler(schedule, range(2), batch_size=3)]
        [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    """

    schedule: Schedule
    iterations: range
    batch_size: int
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return len(self.iterations)

    def __iter__(self) -> Iterator[np.ndarray]:
        share = self.batch_size // self.world_size
        for iteration in self.iterations:
            minibatches = self.schedule.phase_at(iteration).minibatches
            first = self.schedule.minibatches_before(iteration) * self.batch_size
            draws = first + np.arange(minibatches * self.batch_size).reshape(minibatches, self.batch_size)
            yield draws[:, self.rank * share : (self.rank + 1) * share]


@dataclass
class TrainingImages(Dataset[Batch]):
    """Maps the draws of one iteration, [minibatches, B], to a batch of image [minibatches, B, C, *S] and row.

    Attributes:
        store: the pixels.
        rows: the training rows of the store.
        augmentation: applied to the images; None for no augmentation.
        seed: seed of the order and of the augmentation.

    Examples:
        >>> from types import SimpleNamespace
        >>> store = SimpleNamespace(images=np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
        >>> images = TrainingImages(store, rows=np.array([1]), augmentation=None, seed=0)  # only row 1 trains
        >>> batch = images[np.array([[0, 1, 2]])]
        >>> batch["image"].shape, batch["row"].tolist()
        (torch.Size([1, 3, 1, 1, 1]), [[1, 1, 1]])
    """

    store: Store | LazyStore
    rows: np.ndarray
    augmentation: Augmentation | VolumeAugmentation | None
    seed: int

    def __getitem__(self, draws: np.ndarray) -> Batch:
        flat = draws.ravel()
        rows = self.rows[drawn(flat, self.seed, len(self.rows))]
        images = self.store.images[rows]
        if self.augmentation is not None:
            images = self.augmentation(images, flat, self.seed)
        image = to_float(images)
        return Batch(image=image.view(*draws.shape, *image.shape[1:]), row=torch.from_numpy(rows).view(draws.shape))


@dataclass
class ScoringImages(Dataset[Batch]):
    """Maps rows of the store, [B], to a batch of image [B, C, *S], label, row and, if the store has masks, mask.

    See `anomaly_lab.data.store.store.open_or_build` for an example of a store.
    """

    store: Store | LazyStore

    def __getitem__(self, rows: np.ndarray) -> Batch:
        return self.store.batch(rows)


def chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Split rows into batches of `size`; the last one may be shorter.

    Examples:
        >>> [batch.tolist() for batch in chunks(np.arange(5), 2)]
        [[0, 1], [2, 3], [4]]
    """
    return [rows[i : i + size] for i in range(0, len(rows), size)]
