"""What kernel methods share: they gather a sample of the normals, batch by batch, and learn from all of it at once."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.networks.features import Pixels, SqueezeNetFeatures
from anomaly_lab.networks.kernels import KernelMachine
from anomaly_lab.networks.svdd import SVDDAutoencoder
from anomaly_lab.types import Phase, UserError

FeatureName = Literal["pixels", "code", "squeezenet", "squeezenet_caffe"]
Features = Pixels | SqueezeNetFeatures | SVDDAutoencoder


class FeatureBankDetector(Detector):
    """A detector whose last phase, `gather`, collects features of normals; at its end `learn` makes a machine of them.

    A subclass calls `assemble` in its constructor, writes `learn` and `predict` and has the settings `samples` and
    `batch_size`; `weights` and `feature_iterations` if it lets choose the features.

    Settings:
        features: what is gathered of an image: its `pixels`, the `code` of an autoencoder that the phase `features`
            trains first, or a pretrained `squeezenet`'s pooled features; `squeezenet_caffe` if its weights were learnt
            with Caffe, on other colours.
        weights: file of its weights by torchvision's names (squeezenet1_0), read when the training begins.
        components: most whitened principal components (95 % of the variance) to which they are reduced; 0 for none.
        feature_iterations: length of the phase `features`, where there is one.
        samples: images to gather. More than there are normals would only repeat them.
        batch_size: of a mini-batch, which tells how many iterations that takes.
    """

    networks: tuple[str, ...] = ("features", "machine")
    features: Features
    machine: KernelMachine

    def assemble(self, features: Features, capacity: int, components: int = 0) -> None:
        """Make room for the features of `capacity` images."""
        self.features = features
        num_features = features.encoder.num_features if isinstance(features, SVDDAutoencoder) else features.num_features
        self.machine = KernelMachine(capacity, num_features, components)

    @abstractmethod
    def learn(self) -> None:
        """Learn from what `machine` has gathered."""

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        gather = Phase("gather", math.ceil(p.samples / p.batch_size), ("machine",))
        if isinstance(self.features, SVDDAutoencoder):
            return (Phase("features", p.feature_iterations, ("features",)), gather)
        return (gather,)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return (Adam(self.features.parameters(), 1e-4),) if isinstance(self.features, SVDDAutoencoder) else ()

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1 and not any(p.requires_grad for p in self.parameters()):
            raise UserError(f"{type(self).__name__} has nothing to share out among processes: set trainer.devices=1")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if isinstance(self.features, SqueezeNetFeatures) and not self.iterations_done:
            self.features.load(self.settings.weights)

    def features_step(self, batches: Tensor) -> None:
        """The autoencoder moves once on each mini-batch of [1, B, C, H, W]."""
        for image in batches:
            self.step_optimizer("features", self.reconstruction_loss, image)

    def reconstruction_loss(self, image: Tensor) -> Tensor:
        """Sum of squared errors on pixels in [0, 1], mean over the batch [B, C, H, W]."""
        image = (image + 1) / 2
        loss: Tensor = (self.features(image).float() - image).square().flatten(1).sum(1).mean()
        self.track({"train/reconstruction": loss})
        return loss

    def gather_step(self, batches: Tensor) -> None:
        """Add each mini-batch of [1, B, C, H, W], all ranks' parts of it; learn at the end of the schedule."""
        for image in batches:
            everywhere = torch.as_tensor(self.all_gather(image)).reshape(-1, *image.shape[1:])
            self.machine.gather(self.featured(everywhere))
        if self.iterations_done + 1 == self.schedule.iterations:
            self.learn()

    @torch.no_grad()
    def featured(self, image: Tensor) -> Tensor:
        """Features [B, D] of images [B, C, *S], in float32."""
        with torch.autocast(image.device.type, enabled=False):
            if isinstance(self.features, SVDDAutoencoder):
                found: Tensor = self.features.encoder((image.float() + 1) / 2)
            else:
                found = self.features(image)
            return found


def features_of(name: FeatureName, patch_size: Sequence[int], in_channels: int) -> Features:
    """The module that a detector's setting `features` asks for."""
    if name == "code":
        return SVDDAutoencoder(in_channels, patch_size)
    if name == "pixels":
        return Pixels(in_channels * math.prod(patch_size))
    return SqueezeNetFeatures("caffe" if name == "squeezenet_caffe" else "imagenet")
