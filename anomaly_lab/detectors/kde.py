"""Kernel density estimate: the lower the density of normals at an image, the more anomalous it is.

Parzen 1962, Annals of Mathematical Statistics 33, 1065-1076. The default bandwidths are those of Ruff et al. 2018.
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
    """One phase, `gather`, then a Gaussian around each normal; its bandwidth maximises the cross-validated likelihood.

    Args:
        patch_size: height and width of the image; for the features `code` equal, a power of two >= 32.
        in_channels: 1 or 3.
        features, weights, components, feature_iterations, samples, batch_size: as for FeatureBankDetector.
        bandwidths: standard deviations to choose from, in units of the features.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.KDE(patch_size=(1, 1), samples=1, bandwidths=(1.0,))
        >>> detector.machine.gather(torch.tensor([[0.5]]))
        >>> detector.learn()
        >>> round(detector.predict(torch.zeros(1, 1, 1, 1)).anomaly_score.item(), 4)  # at its centre: ½ log 2π
        0.9189
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
        """Choose the bandwidth h with the highest cross-validated likelihood and store the density of all rows."""
        rows, bandwidths = self.machine.project(), self.settings.bandwidths
        likelihood = cross_validated(rows, bandwidths)
        bandwidth = bandwidths[int(likelihood.argmax())]
        # log p(x) = logsumexp_i(-|x - x_i|² / 2h²) - F/2 · log 2πh² - log n; the last two terms are the offset
        gamma = 1 / (2 * bandwidth**2)
        offset = self.machine.projection.dimensions / 2 * math.log(gamma / math.pi) - math.log(len(rows))
        self.machine.learnt(torch.ones(len(rows)), gamma, offset)
        self.track({"train/bandwidth": torch.tensor(bandwidth), "train/log_likelihood": likelihood.max() / len(rows)})

    def predict(self, image: Tensor) -> Prediction:
        """Score: minus the log density."""
        rows = self.machine.projected(self.machine.rows[: self.machine.gathered])  # they all weigh alike
        exponents = self.machine.exponents(self.featured(image), rows)
        return Prediction(-(exponents.logsumexp(1) + self.machine.offset).float())


def cross_validated(rows: Tensor, bandwidths: tuple[float, ...]) -> Tensor:
    """Return the 5-fold cross-validated log-likelihood of rows [n, F] for each bandwidth.

    Duplicate rows are counted once: with a copy in another fold, the narrowest bandwidth would always win.

    Examples:
        >>> rows = torch.arange(10.0, dtype=torch.float64)[:, None]
        >>> likelihood = cross_validated(rows, bandwidths=(0.01, 1.0, 100.0))
        >>> int(likelihood.argmax())  # rows 1 apart
        1
    """
    distinct = torch.unique(rows, dim=0)
    total = torch.zeros(len(bandwidths), dtype=rows.dtype, device=rows.device)
    if len(distinct) < FOLDS:
        return total
    shuffled = distinct[torch.randperm(len(distinct)).to(rows.device)]
    for held_out in torch.arange(len(shuffled), device=rows.device).chunk(FOLDS):
        is_fitted = torch.ones(len(shuffled), dtype=torch.bool, device=rows.device)
        is_fitted[held_out] = False
        squared = squared_distances(shuffled[held_out], shuffled[is_fitted])
        for i, bandwidth in enumerate(bandwidths):
            constant = rows.shape[1] / 2 * math.log(2 * math.pi * bandwidth**2) + math.log(squared.shape[1])
            total[i] += ((-squared / (2 * bandwidth**2)).logsumexp(1) - constant).sum()
    return total
