"""Base class of methods that are fitted to normals at once, in seconds: no gradients, only a last phase, `gather`."""

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.types import Phase


class GatheringDetector(Detector):
    """A detector whose last phase, `gather`, shows it normals batch by batch; at the end of it `learn` fits the method.

    The last of `networks` is what is fitted.

    Settings:
        samples: number of images to gather. If there are fewer normals, some are gathered repeatedly.
        batch_size: size of a mini-batch, from which the number of iterations of `gather` follows.

    Attributes:
        fixed: names of sub-modules and buffers that gathering leaves as they are, such as pretrained features; a
            detector that is fitted again has the same ones.
    """

    fixed: tuple[str, ...] = ()

    @abstractmethod
    def gather(self, image: Tensor) -> None:
        """Take normals [B, C, *S] in [-1, 1] into account."""

    def learn(self) -> None:
        """Fit the method to what was gathered; by default there is nothing to do."""

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        return (Phase("gather", math.ceil(p.samples / p.batch_size), self.networks[-1:]),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return ()

    @property
    def ready(self) -> bool:
        """Whether the method is fitted, which is done at the end of the last phase."""
        return self.finished

    def gather_step(self, batches: Tensor) -> None:
        """Gather each mini-batch of [1, B, C, *S] of all ranks; fit the method in the last iteration."""
        for image in batches:
            self.gather(torch.as_tensor(self.all_gather(image)).reshape(-1, *image.shape[1:]))
        if self.iterations_done + 1 == self.schedule.iterations:
            self.learn()

    @property
    def refits(self) -> bool:
        """Whether gathering is all there is: features, or a generator, that were trained have seen all normals."""
        return len(self.phases()) == 1

    @torch.no_grad()
    def refitted(self, batches: Iterable[Tensor]) -> Self:
        """Fit another one to mini-batches [B, C, *S]; the process's random numbers are left alone."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            other = type(self)(**self.hparams).to(self.device).eval()
            for name in self.fixed:
                setattr(other, name, getattr(self, name))
            torch.manual_seed(0)
            for image in batches:
                other.gather(image.to(self.device))
            other.learn()
        return other
