"""Which picture comes when: a pure function of the seed and the number of the draw; nothing to save."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from anomaly_lab.types import Schedule


@lru_cache(maxsize=8)
def _pass(seed: int, number: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, number]).permutation(size)


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
