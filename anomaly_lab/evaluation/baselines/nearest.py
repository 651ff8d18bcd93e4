"""Nearest neighbour: how far an image, made small, is from the most alike training normal."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_lab.evaluation.baselines.baseline import Baseline, Facts

SIDES = {2: 16, 3: 8}  # pixels a side of a small image, by its number of dimensions


class Nearest(Baseline):
    """Mean squared distance to the nearest training normal, both shrunk to 16×16 pixels (8×8×8 of a volume).

    Examples:
        >>> baseline = Nearest()
        >>> baseline.fit(torch.tensor([0.0, 4.0]).reshape(2, 1, 1, 1), Facts())
        >>> baseline.score(torch.full((1, 1, 1), 5.0))
        1.0
    """

    title, noun = "Nearest normal", "nearest-normal"
    rule = "squared distance to the most alike training normal, both shrunk to 16×16 pixels"

    def fit(self, normals: Tensor, facts: Facts) -> None:
        self.small = torch.stack([_small(image) for image in normals])

    def score(self, image: Tensor) -> float:
        return float((self.small - _small(image)).square().mean(1).min())

    def map(self, image: Tensor) -> Tensor:
        small = _small(image)
        nearest = self.small[(self.small - small).square().mean(1).argmin()]
        sides = [min(side, SIDES[image.ndim - 1]) for side in image.shape[1:]]
        residual = (small - nearest).view(len(image), *sides).abs().mean(0)
        return F.interpolate(residual[None, None], size=image.shape[1:], mode="nearest")[0, 0].float()


def _small(image: Tensor) -> Tensor:
    """Return an image [C, *S] by mean values of its parts, float64 [D]."""
    sides = tuple(min(side, SIDES[image.ndim - 1]) for side in image.shape[1:])
    shrink: Callable[..., Tensor] = F.adaptive_avg_pool2d if len(sides) == 2 else F.adaptive_avg_pool3d
    return shrink(image[None].double(), sides).flatten()
