"""What loaders ask for pictures: whole batches by one index into the store; samplers decide on the length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from anomaly_lab.data.preprocessing.augmentation import Augmentation
from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.preprocessing.volume_augmentation import VolumeAugmentation
from anomaly_lab.data.sampling import drawn
from anomaly_lab.data.store.lazy import LazyStore
from anomaly_lab.data.store.store import Store
from anomaly_lab.types import Batch


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
class JudgedImages(Dataset[Batch]):
    """Maps rows of the store, [B], to a batch: image [B, C, *S], label, row and mask, if there are masks."""

    store: Store | LazyStore

    def __getitem__(self, rows: np.ndarray) -> Batch:
        return self.store.batch(rows)


def chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut rows into batches of `size`, the last one shorter."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]
