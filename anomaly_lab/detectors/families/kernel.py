"""Base class of kernel methods: features of normals are gathered batch by batch, then the method is fitted at once."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.gathering import GatheringDetector
from anomaly_lab.networks.features import Pixels, SqueezeNetFeatures
from anomaly_lab.networks.kernels import KernelMachine
from anomaly_lab.networks.svdd import SVDDAutoencoder
from anomaly_lab.types import Phase

FeatureName = Literal["pixels", "code", "squeezenet", "squeezenet_caffe"]
Features = Pixels | SqueezeNetFeatures | SVDDAutoencoder


class FeatureBankDetector(GatheringDetector):
    """A detector whose last phase, `gather`, collects a feature bank of normals; at its end `learn` fits the method.

    A subclass calls `assemble` in its constructor and implements `learn` and `predict`. It has the settings `samples`
    and `batch_size`, and, if the features can be chosen, `weights` and `feature_iterations`.

    Settings:
        features: features of an image: its `pixels`; the `code` of an autoencoder that is trained first, in the phase
            `features`; or the pooled features of a pretrained `squeezenet`. `squeezenet_caffe` is for weights trained
            with Caffe, which expect other colours.
        weights: file of SqueezeNet's weights in torchvision's format (squeezenet1_0), read when training starts.
        components: maximum number of whitened principal components (95 % of the variance) to reduce the features to; 0
            for no reduction.
        feature_iterations: length of the phase `features`, if there is one.
        samples, batch_size: as for GatheringDetector.
    """

    networks: tuple[str, ...] = ("features", "machine")
    fixed = ("features",)
    features: Features
    machine: KernelMachine

    def assemble(self, features: Features, capacity: int, components: int = 0) -> None:
        """Create the feature bank for `capacity` images."""
        self.features = features
        num_features = features.encoder.num_features if isinstance(features, SVDDAutoencoder) else features.num_features
        self.machine = KernelMachine(capacity, num_features, components)

    @abstractmethod
    def learn(self) -> None:
        """Fit the method to the rows gathered in `machine`."""

    def gather(self, image: Tensor) -> None:
        self.machine.gather(self.featured(image))

    def phases(self) -> tuple[Phase, ...]:
        if isinstance(self.features, SVDDAutoencoder):
            return (Phase("features", self.settings.feature_iterations, ("features",)), *super().phases())
        return super().phases()

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return (Adam(self.features.parameters(), 1e-4),) if isinstance(self.features, SVDDAutoencoder) else ()

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if isinstance(self.features, SqueezeNetFeatures) and not self.iterations_done:
            self.features.load(self.settings.weights)

    def features_step(self, batches: Tensor) -> None:
        """Take one optimiser step of the autoencoder on each mini-batch of [1, B, C, H, W]."""
        for image in batches:
            self.step_optimizer("features", self.reconstruction_loss, image)

    def reconstruction_loss(self, image: Tensor) -> Tensor:
        """Return the sum of squared errors of pixels in [0, 1], averaged over the batch [B, C, H, W]."""
        image = (image + 1) / 2
        loss: Tensor = (self.features(image).float() - image).square().flatten(1).sum(1).mean()
        self.track({"train/reconstruction": loss})
        return loss

    @torch.no_grad()
    def featured(self, image: Tensor) -> Tensor:
        """Return the features [B, D] of images [B, C, *S], in float32."""
        with torch.autocast(image.device.type, enabled=False):
            if isinstance(self.features, SVDDAutoencoder):
                x: Tensor = self.features.encoder((image.float() + 1) / 2)
            else:
                x = self.features(image)
            return x


def features_of(name: FeatureName, patch_size: Sequence[int], in_channels: int) -> Features:
    """Return the module for a detector's setting `features`.

    Examples:
        >>> features_of("pixels", patch_size=(32, 32), in_channels=1).num_features
        1024
    """
    if name == "code":
        return SVDDAutoencoder(in_channels, patch_size)
    if name == "pixels":
        return Pixels(in_channels * math.prod(patch_size))
    return SqueezeNetFeatures("caffe" if name == "squeezenet_caffe" else "imagenet")
