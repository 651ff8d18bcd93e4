"""Small pictures and the loader that feeds a detector with them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anomaly_lab.detector import Detector
from anomaly_lab.types import Batch

Fit = Callable[..., Detector]


class Iterations(Dataset[Batch]):
    """Item i holds the mini-batches of iteration i, drawn by a generator of its own."""

    def __init__(self, detector: Detector, images: Tensor, length: int, batch_size: int) -> None:
        self.detector, self.images, self.length, self.batch_size = detector, images, length, batch_size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Batch:
        if i >= self.length:
            raise IndexError
        minibatches = self.detector.phase.minibatches
        shape = (minibatches, self.batch_size)
        chosen = torch.randint(len(self.images), shape, generator=torch.Generator().manual_seed(i))
        return Batch(image=self.images[chosen])


def smooth(n: int, seed: int, coarse_side: int = 4) -> Tensor:
    """Blurred noise [n, 1, 32, 32] in [-1, 1] of coarse_side² values: pictures with structure, no two alike."""
    coarse = torch.rand(n, 1, coarse_side, coarse_side, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
