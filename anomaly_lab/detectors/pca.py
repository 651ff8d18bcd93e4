"""PCA: normal images span a subspace; what their principal components do not explain of an image is anomalous.

Jolliffe 2002, Principal Component Analysis; as a detector of anomalies by the residual, Jackson, Mudholkar 1979,
Technometrics 21, 341-349.
"""

import math
from typing import Annotated

import torch
from torch import Tensor

from anomaly_lab.detectors.families.gathering import GatheringDetector
from anomaly_lab.networks.low_pass import low_pass
from anomaly_lab.networks.subspace import Subspace
from anomaly_lab.types import Channels, Count, Prediction, Range


class PCA(GatheringDetector):
    """One phase, `gather`: normal images are kept; at its end mean and principal axes are computed from them.

    Args:
        patch_size: size of the image, two or three dimensions.
        in_channels: 1 or 3.
        components: number of principal axes; fewer where there are fewer images.
        blur: standard deviation of the Gaussian blur before all else, pixels; 0 for none. Without fine detail, which
            no axis explains in normals either, larger lesions stand out.
        samples: number of images to gather. If there are fewer normals, some are gathered repeatedly.
        batch_size: size of a mini-batch, from which the number of iterations of `gather` follows.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.PCA(patch_size=(2, 2), components=1, samples=2)
        >>> detector.subspace.bank.gather(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
        >>> detector.learn()
        >>> detector.predict(torch.tensor([[[[0.5, 0.5], [0.5, -0.5]]]])).anomaly_score.item()
        0.1875
    """

    networks = ("subspace",)

    def __init__(
        self,
        patch_size: Annotated[tuple[int, ...], Range("[1, 2048]", counts=(2, 3))] = (64, 64),
        in_channels: Channels = 1,
        components: Count = 32,
        blur: Annotated[float, Range("[0, 100]")] = 0.0,
        samples: Count = 1000,
        batch_size: Annotated[int, Range("[1, 65536]")] = 64,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.subspace = Subspace(samples, in_channels * math.prod(patch_size), components)

    def gather(self, image: Tensor) -> None:
        self.subspace.bank.gather(low_pass(image, self.settings.blur).flatten(1))

    def learn(self) -> None:
        """Compute mean and axes of the images gathered."""
        self.subspace.learn()

    @torch.no_grad()
    def predict(self, image: Tensor) -> Prediction:
        """Score: mean squared residual of the blurred image; map: its absolute value, mean over channels."""
        blurred = low_pass(image, self.settings.blur)
        residual = self.subspace(blurred.flatten(1)).view_as(blurred)
        anomaly_map = residual.abs().mean(1, keepdim=True)
        return Prediction(residual.square().flatten(1).mean(1), anomaly_map, (blurred - residual).clamp(-1, 1))
