"""PCA-32: what 32 principal components of the training normals do not explain of an image."""

import torch
from torch import Tensor

from anomaly_lab.evaluation.baselines.baseline import Baseline, Facts
from anomaly_lab.networks.subspace import principal_axes, residual

COMPONENTS = 32


class PCA32(Baseline):
    """Mean squared error of the reconstruction from 32 principal components, or fewer where there are fewer images.

    Examples:
        >>> baseline = PCA32()
        >>> baseline.fit(torch.tensor([0.0, 2.0, 4.0]).reshape(3, 1, 1, 1), Facts())
        >>> round(baseline.score(torch.full((1, 1, 1), 5.0)), 6)  # one axis explains a single pixel fully
        0.0
    """

    title, noun = "PCA-32 reconstruction", "PCA-32"
    rule = "squared error of the reconstruction from 32 principal components of the same normals"

    def fit(self, normals: Tensor, facts: Facts) -> None:
        x = normals.flatten(1)
        self.mean = x.mean(0, dtype=torch.float64)
        self.axes = principal_axes(x, self.mean, COMPONENTS)

    def score(self, image: Tensor) -> float:
        return float(self._residual(image).square().mean())

    def map(self, image: Tensor) -> Tensor:
        return self._residual(image).view(image.shape).abs().mean(0).float()

    def _residual(self, image: Tensor) -> Tensor:
        return residual(image.flatten(), self.mean, self.axes)
