"""PaDiM: a Gaussian of a pretrained classifier's features at each place of normal images; far from it is anomalous.

Defard, Setkov, Loesch, Audigier 2020, arXiv:2011.08785 (ICPR 2020 workshops).
"""

from typing import Annotated

import torch
from torch import Tensor

from anomaly_lab.detectors.families.places import PlaceDetector
from anomaly_lab.networks.backbones import BackboneName
from anomaly_lab.networks.places import PlaceGaussian
from anomaly_lab.types import Channels, Count, Fraction, Range


class PaDiM(PlaceDetector):
    """One phase, `gather`: mean and covariance of the features at each place; at its end they are regularised.

    Args:
        patch_size: height and width of the image, pixels.
        in_channels: 1 or 3; grey images are repeated to three channels.
        backbone, weights, stages, side, unit, samples, batch_size, share, map_sigma: as for PlaceDetector.
        dimensions: number of features, drawn at random, that are kept of each place; 0 for all.
        regularisation: what is added to the variances, in shares of their mean (≠ paper: .01 itself).

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.PaDiM((32, 32), weights="random", side=0, dimensions=8, samples=4, batch_size=4)
        >>> detector.places.gather(detector.described(torch.rand(4, 1, 32, 32)))
        >>> detector.learn()
        >>> detector.predict(torch.zeros(2, 1, 32, 32)).anomaly_map.shape
        torch.Size([2, 1, 32, 32])
    """

    fixed = ("features", "kept")
    places: PlaceGaussian
    kept: Tensor

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Range("[8, 2048]")] = (64, 64),
        in_channels: Channels = 1,
        backbone: BackboneName = "efficientnet_lite0",
        weights: str = "package",
        stages: Annotated[tuple[int, ...], Range("[1, 4]", counts=range(1, 5))] = (2,),
        side: Annotated[int, Range("[0, 2048]")] = 0,
        unit: bool = False,
        samples: Count = 1000,
        batch_size: Annotated[int, Range("[1, 65536]")] = 64,
        dimensions: Annotated[int, Range("[0, 4096]")] = 0,
        regularisation: Annotated[float, Range("(0, 1000000]")] = 0.01,
        share: Fraction = 0.05,
        map_sigma: Annotated[float, Range("[0, 100]")] = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.assemble()
        features = self.features.num_features
        # PaDiM, section 3.3: a random choice of features does better than principal components
        kept = torch.randperm(features)[: dimensions or features].sort().values
        self.register_buffer("kept", kept)
        self.places = PlaceGaussian(len(kept), self.features.grid, regularisation)

    def described(self, image: Tensor) -> Tensor:
        """Return the kept features [B, F, *grid] of images [B, C, H, W]."""
        return super().described(image).index_select(1, self.kept)

    def learn(self) -> None:
        """Regularise the covariances and keep what Mahalanobis distances need."""
        self.places.learn()
