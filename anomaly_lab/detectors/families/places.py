"""Base class of methods that compare what a pretrained classifier sees at a place with what it sees in normals."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_lab.detectors.families.gathering import GatheringDetector
from anomaly_lab.networks.low_pass import low_pass
from anomaly_lab.networks.places import PlaceBank, PlaceFeatures, PlaceGaussian, pooled
from anomaly_lab.types import Prediction


class PlaceDetector(GatheringDetector):
    """One phase, `gather`: features of normals are collected place by place; nothing is trained by gradients.

    A subclass calls `assemble` in its constructor. The classifier is part of the checkpoint, so that a trained run is
    evaluated without the file of its weights.

    Settings:
        backbone: the classifier, of torchvision or `efficientnet_lite0`.
        weights: file of its state dict, read when training starts; `package` for those of the installed package, or
            `random` to draw them, for a trial.
        stages: the stages of the classifier whose outputs are used, from 1; the last of four has a stride of 32.
        side: pixels to which the shorter side of an image is resized for the classifier; 0 for none.
        unit: whether features are divided by their length at each place, so that only directions are compared.
        samples, batch_size: as for GatheringDetector.
        share: fraction of the places, those with the largest distances, whose mean is the score: 1 for the mean of all,
            0 for the largest alone.
        map_sigma: standard deviation of the Gaussian blur of a map, pixels; 0 for none. The score is not affected.
    """

    networks = ("places",)
    fixed: tuple[str, ...] = ("features",)
    features: PlaceFeatures
    places: PlaceGaussian | PlaceBank

    def assemble(self) -> None:
        """Create the classifier by the settings."""
        p = self.settings
        self.features = PlaceFeatures(p.backbone, p.stages, p.side, p.patch_size, p.unit)

    def described(self, image: Tensor) -> Tensor:
        """Return the features [B, F, *grid] of images [B, C, H, W], in float32."""
        with torch.autocast(image.device.type, enabled=False):
            features: Tensor = self.features(image)
            return features

    def gather(self, image: Tensor) -> None:
        self.places.gather(self.described(image))

    def load_pretrained(self) -> dict[str, Any]:
        """Read the classifier's weights.

        Returns:
            Name of the classifier, file and SHA-256 of the weights and whether they are random, for the record.

        Raises:
            UserError: the file or the package is missing or contains something else.
        """
        p = self.settings
        is_random = p.weights == "random"
        sha256 = None if is_random else self.features.load(p.weights)
        return {"name": p.backbone, "weights": p.weights, "sha256": sha256, "random": is_random}

    @property
    def caveats(self) -> tuple[str, ...]:
        p = self.settings
        if p.weights != "random":
            return ()
        return (f"the weights of {p.backbone} are random, not trained on ImageNet",)

    @torch.no_grad()
    def predict(self, image: Tensor) -> Prediction:
        """Score: mean of the largest distances; map: the distances, resized to the image."""
        distances = self.places(self.described(image))
        size = image.shape[2:]
        anomaly_map = F.interpolate(distances[:, None], size=tuple(size), mode="bilinear")
        return Prediction(pooled(distances, self.settings.share), low_pass(anomaly_map, self.settings.map_sigma))
