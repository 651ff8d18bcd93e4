"""From rows of the store to batches: the order of the training images, and whole batches by one indexing operation.

The order is a pure function of the seed and the index of the draw, so a checkpoint need not save it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from anomaly_lab.data.preprocessing.augmentation import Augmentation
from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.preprocessing.volume_augmentation import VolumeAugmentation
from anomaly_lab.data.splitting.streams import stream
from anomaly_lab.data.store.lazy import LazyStore
from anomaly_lab.data.store.store import Store
from anomaly_lab.devices import sent
from anomaly_lab.types import Batch, Schedule

UPLOADED_BYTES = 2**28  # copied to a device at once
Order = Literal["training order", "balanced normals"]


@lru_cache(maxsize=8)
def _pass(seed: int, number: int, size: int, order: Order) -> np.ndarray:
    return stream(seed, order, number).permutation(size)


def drawn(draws: np.ndarray, seed: int, size: int, order: Order = "training order") -> np.ndarray:
    """Return the element that each draw selects: endless passes over all elements, each in a new random order.

    Args:
        draws: indices of the draws, counted from the start of the training; any shape.
        seed: seed of the orders.
        size: number of elements.
        order: the random stream of the orders.

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
        chosen[here] = _pass(seed, int(number), size, order)[elements[here]]
    return chosen


def balanced(draws: np.ndarray, seed: int, normal: np.ndarray, anomalous: np.ndarray) -> np.ndarray:
    """Return the row that each draw selects: endless passes over all anomalous rows and as many normal ones.

    Normal rows are drawn anew for each pass, and no normal row a second time before all of them have been drawn.

    Args:
        draws: indices of the draws, counted from the start of the training; any shape.
        seed: seed of the orders.
        normal, anomalous: the rows; neither may be empty.

    Returns:
        Rows, in the shape of `draws`.

    Examples:
        >>> rows = balanced(np.arange(8), seed=0, normal=np.arange(10, 14), anomalous=np.arange(2))
        >>> first, second = rows.reshape(2, 4)
        >>> sorted(first.tolist())[:2], sorted(second.tolist())[:2]  # both anomalous rows in each pass …
        ([0, 1], [0, 1])
        >>> sorted({*first.tolist(), *second.tolist()} - {0, 1})  # … and all normal rows in two passes
        [10, 11, 12, 13]
    """
    size = len(anomalous)
    element = drawn(draws, seed, 2 * size)
    number = draws // (2 * size)
    of_normals = drawn(number * size + element % size, seed, len(normal), "balanced normals")
    return np.asarray(np.where(element < size, anomalous[element % size], normal[of_normals]))


def selected(draws: np.ndarray, seed: int, rows: np.ndarray, anomalous: np.ndarray | None) -> np.ndarray:
    """Return the row that each draw selects: one of `rows`, or of `rows` and `anomalous` in turn, `balanced`."""
    return rows[drawn(draws, seed, len(rows))] if anomalous is None else balanced(draws, seed, rows, anomalous)


class EpochSampler:
    """The sampler of whatever epoch is being trained, so that one loader, and its processes, serve all epochs.

    Examples:
        >>> sampler = EpochSampler()
        >>> sampler.epoch = [np.array([[0, 1]])]
        >>> len(sampler), [draws.tolist() for draws in sampler]
        (1, [[[0, 1]]])
    """

    epoch: IterationSampler | list[np.ndarray]

    def __len__(self) -> int:
        return len(self.epoch)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.epoch)


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
        anomalous: rows of which all are drawn in each pass, with as many of `rows`; None to draw all of `rows` alone.
        targets: class targets of every row of the store, int8 [N, K]; None for batches without target.

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
    anomalous: np.ndarray | None = None
    targets: np.ndarray | None = None

    def __getitem__(self, draws: np.ndarray) -> Batch:
        flat = draws.ravel()
        rows = selected(flat, self.seed, self.rows, self.anomalous)
        images = self.store.images[rows]
        if self.augmentation is not None:
            images = self.augmentation(images, flat, self.seed)
        image = to_float(images)
        batch = Batch(image=image.view(*draws.shape, *image.shape[1:]), row=torch.from_numpy(rows).view(draws.shape))
        return batch if self.targets is None else _with_target(batch, self.targets)


class ResidentImages(Dataset[Batch]):
    """The batches of `TrainingImages` from pixels that lie on a device and are augmented there.

    They are the same to rounding: see `Augmentation.on_device`. Patches of volumes can be augmented on the host only.

    Args:
        store: the pixels.
        rows: the training rows of the store, all of which are copied to the device.
        augmentation: applied to the images; None for no augmentation.
        seed: seed of the order and of the augmentation.
        device: where the pixels are to lie.
        anomalous, targets: as of `TrainingImages`.

    Examples:
        >>> from types import SimpleNamespace
        >>> store = SimpleNamespace(images=np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
        >>> images = ResidentImages(store, np.array([1]), augmentation=None, seed=0, device="cpu")
        >>> images[np.array([[0, 1]])]["image"].flatten().tolist()
        [1.0, 1.0]
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        augmentation: Augmentation | None,
        seed: int,
        device: torch.device | str,
        anomalous: np.ndarray | None = None,
        targets: np.ndarray | None = None,
    ) -> None:
        self.augmentation, self.seed, self.device = augmentation, seed, torch.device(device)
        self.full = int(np.iinfo(store.images.dtype).max)
        copied = rows if anomalous is None else np.concatenate([rows, anomalous])
        self.pixels = _uploaded(store.images, copied, self.device)
        self.rows = torch.from_numpy(copied).to(self.device)
        self.targets = None if targets is None else torch.from_numpy(targets[copied]).to(self.device)
        place = np.arange(len(copied))  # of a row in `pixels`
        self.places = place[: len(rows)], None if anomalous is None else place[len(rows) :]

    def __getitem__(self, draws: np.ndarray) -> Batch:
        flat = draws.ravel()
        index = sent(torch.from_numpy(selected(flat, self.seed, *self.places)), self.device)
        pixels = self.pixels[index]
        levels = pixels.float() if self.full == 255 else pixels.int().bitwise_and(self.full).float()
        if self.augmentation is not None:
            levels = self.augmentation.on_device(levels, self.full, flat, self.seed)
        image = levels / (self.full / 2) - 1
        batch = Batch(image=image.view(*draws.shape, *image.shape[1:]), row=self.rows[index].view(draws.shape))
        if self.targets is not None:
            batch["target"] = self.targets[index].view(*draws.shape, -1)
        return batch


def _uploaded(images: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """Copy rows to a device, part by part; 16 bits as int16, since few of torch's functions take uint16."""
    dtype = torch.uint8 if images.dtype == np.uint8 else torch.int16
    pixels = torch.empty((len(rows), *images.shape[1:]), dtype=dtype, device=device)
    size = max(1, UPLOADED_BYTES // max(1, images[:1].nbytes))
    for part, chosen in zip(torch.split(pixels, size), chunks(rows, size), strict=True):
        here = images[chosen]
        part.copy_(torch.from_numpy(here if here.dtype == np.uint8 else here.view(np.int16)))
    return pixels


@dataclass
class ScoringImages(Dataset[Batch]):
    """Maps rows of the store, [B], to a batch of image [B, C, *S], label, row and, if the store has masks, mask.

    With `targets`, int8 [N, K] of every row of the store, there are targets, too.
    See `anomaly_lab.data.store.store.open_or_build` for an example of a store.
    """

    store: Store | LazyStore
    targets: np.ndarray | None = None

    def __getitem__(self, rows: np.ndarray) -> Batch:
        batch = self.store.batch(rows)
        return batch if self.targets is None else _with_target(batch, self.targets)


def _with_target(batch: Batch, targets: np.ndarray) -> Batch:
    batch["target"] = torch.from_numpy(targets[batch["row"].numpy()])
    return batch


def chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Split rows into batches of `size`; the last one may be shorter.

    Examples:
        >>> [batch.tolist() for batch in chunks(np.arange(5), 2)]
        [[0, 1], [2, 3], [4]]
    """
    return [rows[i : i + size] for i in range(0, len(rows), size)]
