"""Base class of kernel methods: features of normals are gathered batch by batch, then the method is fitted at once."""

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
from anomaly_lab.types import Phase

FeatureName = Literal["pixels", "code", "squeezenet", "squeezenet_caffe"]
Features = Pixels | SqueezeNetFeatures | SVDDAutoencoder


class FeatureBankDetector(Detector):
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
        samples: number of images to gather. If there are fewer normals, some are gathered repeatedly.
        batch_size: size of a mini-batch, from which the number of iterations of `gather` follows.
    """

    networks: tuple[str, ...] = ("features", "machine")
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

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        gather = Phase("gather", math.ceil(p.samples / p.batch_size), ("machine",))
        if isinstance(self.features, SVDDAutoencoder):
            return (Phase("features", p.feature_iterations, ("features",)), gather)
        return (gather,)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return (Adam(self.features.parameters(), 1e-4),) if isinstance(self.features, SVDDAutoencoder) else ()

    @property
    def ready(self) -> bool:
        """Whether the method is fitted, which is done at the end of the last phase."""
        return self.finished

    @property
    def refits(self) -> bool:
        """Whether gathering is all there is: features, or a generator, that were trained have seen all normals."""
        return len(self.phases()) == 1

    @torch.no_grad()
    def refitted(self, image: Tensor) -> "FeatureBankDetector":
        """Fit another machine to images [n, C, *S], each gathered once; the process's random numbers are left alone."""
        other = type(self)(**self.hparams).to(self.device).eval()
        other.features = self.features
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for part in torch.split(image, self.settings.batch_size):
                other.machine.gather(other.featured(part.to(self.device)))
            other.learn()
        return other

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

    def gather_step(self, batches: Tensor) -> None:
        """Add the features of each mini-batch of [1, B, C, H, W] on all ranks; fit the method in the last iteration."""
        for image in batches:
            image_of_all_ranks = torch.as_tensor(self.all_gather(image)).reshape(-1, *image.shape[1:])
            self.machine.gather(self.featured(image_of_all_ranks))
        if self.iterations_done + 1 == self.schedule.iterations:
            self.learn()

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
