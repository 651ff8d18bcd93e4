"""Small pictures, a detector to follow by hand, and the loader that feeds a detector with them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import Dataset

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.types import Batch, Phase, Prediction

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


class Shift(Detector):
    """Learns one number per network: `near` the images' mean in phase one, `far` minus that in phase two."""

    networks = ("near", "far")

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.near, self.far = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.near.weight)
        nn.init.zeros_(self.far.weight)
        self.lr = lr
        self.seen: list[Tensor] = []

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("near", 3, ("near",), minibatches=2), Phase("far", 2, ("far",)))

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return SGD(self.near.parameters(), self.lr), SGD(self.far.parameters(), self.lr)

    def near_step(self, batches: Tensor) -> None:
        for batch in batches:
            self.seen.append(batch)
            self.step_optimizer("near", lambda x: (self.near.weight + self.far.weight - x.mean()).square().sum(), batch)

    def far_step(self, batches: Tensor) -> None:
        assert self.far.training
        assert not self.near.training
        for batch in batches:
            self.step_optimizer("far", lambda x: (self.near.weight + self.far.weight).square().sum(), batch)

    def predict(self, image: Tensor) -> Prediction:
        return Prediction(image.flatten(1).mean(1) - self.near.weight.squeeze())
