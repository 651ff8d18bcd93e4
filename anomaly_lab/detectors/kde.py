"""Kernel density estimate: an image is as anomalous as the normals' density about it is low.

Parzen 1962, Annals of Mathematical Statistics 33, 1065-1076. Bandwidths tried as by Ruff et al. 2018.
"""

import math
from typing import Annotated

import torch
from torch import Tensor

from anomaly_lab.detectors.families.kernel import FeatureBankDetector, FeatureName, features_of
from anomaly_lab.networks.kernels import squared_distances
from anomaly_lab.types import Channels, Count, Iterations, Prediction, Range

BANDWIDTHS = tuple(2 ** (0.5 + i / 2) for i in range(10))  # 2^.5 … 2^5
FOLDS = 5


class KDE(FeatureBankDetector):
    """A Gaussian about each normal; its width is the one under which held-out normals are likeliest.

    Args:
        patch_size: side of the square image, a power of two >= 32 for `code`, twice.
        in_channels: 1 or 3.
        features, weights, components, feature_iterations, samples, batch_size: as FeatureBankDetector's.
        bandwidths: standard deviations to choose from, in units of the features.
    """

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Range("[1, 2048]")] = (32, 32),
        in_channels: Channels = 1,
        features: FeatureName = "pixels",
        weights: str = "",
        components: Annotated[int, Range("[0, 65536]")] = 0,
        feature_iterations: Iterations = 10_000,
        samples: Count = 10_000,
        batch_size: Annotated[int, Range("[1, 65536]")] = 64,
        bandwidths: Annotated[tuple[float, ...], Range("[1e-06, 1000000]", counts=range(1, 1001))] = BANDWIDTHS,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.assemble(features_of(features, patch_size, in_channels), samples, components)

    def learn(self) -> None:
        rows, bandwidths = self.machine.project(), self.settings.bandwidths
        likelihood = cross_validated(rows, bandwidths)
        bandwidth = bandwidths[int(likelihood.argmax())]
        gamma = 1 / (2 * bandwidth**2)
        offset = self.machine.projection.dimensions / 2 * math.log(gamma / math.pi) - math.log(len(rows))
        self.machine.learnt(torch.ones(len(rows)), gamma, offset)
        self.track({"train/bandwidth": torch.tensor(bandwidth), "train/log_likelihood": likelihood.max() / len(rows)})

    def predict(self, image: Tensor) -> Prediction:
        """Score: minus the logarithm of the density."""
        rows, _ = self.machine.support()
        exponents = self.machine.exponents(self.featured(image), rows)
        return Prediction(-(exponents.logsumexp(1) + self.machine.offset).float())


def cross_validated(rows: Tensor, bandwidths: tuple[float, ...]) -> Tensor:
    """Log-likelihood of rows [n, F] under a density of the others, for each bandwidth, summed over 5 folds.

    A row that came twice counts once: its twin in another fold would make the narrowest density the best.
    """
    distinct = torch.unique(rows, dim=0)
    total = torch.zeros(len(bandwidths), dtype=rows.dtype, device=rows.device)
    if len(distinct) < FOLDS:
        return total
    shuffled = distinct[torch.randperm(len(distinct)).to(rows.device)]
    for held_out in torch.arange(len(shuffled), device=rows.device).chunk(FOLDS):
        others = torch.ones(len(shuffled), dtype=torch.bool, device=rows.device)
        others[held_out] = False
        squared = squared_distances(shuffled[held_out], shuffled[others])
        for i, bandwidth in enumerate(bandwidths):
            constant = rows.shape[1] / 2 * math.log(2 * math.pi * bandwidth**2) + math.log(squared.shape[1])
            total[i] += ((-squared / (2 * bandwidth**2)).logsumexp(1) - constant).sum()
    return total
