"""Mean image: how far an image is from the mean of the training normals."""

import torch
from torch import Tensor

from anomaly_lab.evaluation.baselines.baseline import Baseline, Facts
from anomaly_lab.networks.subspace import residual


class MeanImage(Baseline):
    """Mean squared distance to the mean training image.

    Examples:
        >>> baseline = MeanImage()
        >>> baseline.fit(torch.tensor([0.0, 2.0, 4.0]).reshape(3, 1, 1, 1), Facts())  # images of one pixel, mean 2
        >>> baseline.score(torch.full((1, 1, 1), 5.0))
        9.0
    """

    title, noun = "Mean-image distance", "mean-image"
    rule = "squared distance to the mean of the training normals"

    def fit(self, normals: Tensor, facts: Facts) -> None:
        x = normals.flatten(1)
        self.mean = x.mean(0, dtype=torch.float64)
        self.axes = torch.zeros(0, x.shape[1], dtype=torch.float64)

    def score(self, image: Tensor) -> float:
        return float(self._residual(image).square().mean())

    def map(self, image: Tensor) -> Tensor:
        return self._residual(image).view(image.shape).abs().mean(0).float()

    def _residual(self, image: Tensor) -> Tensor:
        return residual(image.flatten(), self.mean, self.axes)
