"""From rows of the store to batches: which image comes when, and whole batches by one index into the store.

The order of the training images is a pure function of the seed and the number of the draw, so there is nothing to save.
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
    """Element that each draw takes out of `size`: endless passes, every one in a fresh order.

    Args:
        draws: numbers of the draws, counted from the start of the training; any shape.
        seed: of the orders.
        size: how many elements there are.

    Returns:
        Elements in [0, size), like `draws`: draw s is element s % size of pass s // size.
    """
    passes, elements = np.divmod(draws, size)
    chosen = np.empty_like(draws)
    for number in np.unique(passes):
        here = passes == number
        chosen[here] = _pass(seed, int(number), size)[elements[here]]
    return chosen


@dataclass(frozen=True)
class IterationSampler:
    """Draw numbers of each iteration of one Lightning epoch, as [minibatches, images on this rank].

    Attributes:
        schedule: the training, which tells how many mini-batches an iteration takes.
        iterations: those of the epoch, counted from the start of the training.
        batch_size: images of a mini-batch over all ranks; must be divisible by `world_size`.
        rank, world_size: this process takes its contiguous share of every mini-batch.
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
    """Maps the draws of one iteration, [minibatches, B], to a batch: image [minibatches, B, C, *S] and row.

    Attributes:
        store: the pixels.
        rows: rows of the store that train.
        augmentation: what changes them, if anything.
        seed: of the order and of the changes.
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
    """Maps rows of the store, [B], to a batch: image [B, C, *S], label, row and mask, if there are masks."""

    store: Store | LazyStore

    def __getitem__(self, rows: np.ndarray) -> Batch:
        return self.store.batch(rows)


def chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut rows into batches of `size`, the last one shorter."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]
