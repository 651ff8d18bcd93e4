"""What the baselines on features of a pretrained network share: the network, and its features of an image."""

from abc import abstractmethod
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_lab.evaluation.baselines.baseline import Baseline, Facts
from anomaly_lab.networks.places import PlaceBank, PlaceFeatures, PlaceGaussian, pooled

BACKBONE, STAGE, SIDE = "efficientnet_lite0", 2, 64  # a place for 8 pixels; larger images are shrunk
SHARE = 0.05  # of the places, the farthest, whose mean distance is the score
SAMPLED = 200  # training normals of which features are computed
LEAST_SIDE = 16  # pixels; a smaller picture has too few places that differ


class SharedFeatures:
    """Features of EfficientNet-Lite0 with the installed weights, computed once for all baselines that ask in turn.

    Args:
        size: height and width of the images.

    Raises:
        UserError: the package of weights is not installed.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.network = PlaceFeatures(BACKBONE, (STAGE,), SIDE, size)
        self.network.load("package")
        self.last = (torch.empty(0), torch.empty(0))

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features [n, F, *grid] of one image [C, H, W], or of at most SAMPLED of images [N, C, H, W].

        Images pass one by one, so that no image depends on others.
        """
        if images is not self.last[0]:
            singles = images[None] if images.ndim == 3 else images[sampled(len(images))]
            self.last = (images, torch.cat([self.network(single[None]) for single in singles]))
        return self.last[1]


def sampled(count: int) -> Tensor:
    """Return the numbers of at most SAMPLED images of `count`, evenly spaced."""
    return torch.linspace(0, count - 1, min(SAMPLED, count)).long()


shared_features = lru_cache(maxsize=1)(SharedFeatures)


class _PlaceBaseline(Baseline):
    """How far features are at each place from those of the normals; the mean of the farthest is the score."""

    @classmethod
    def reason_against(cls, size: tuple[int, ...], facts: Facts) -> str:
        if len(size) != 2 or min(size) < LEAST_SIDE:
            return " "
        return "" if facts.features else "features of a pretrained network were not asked for"

    @abstractmethod
    def description(self, num_features: int, grid: tuple[int, int], count: int) -> PlaceBank | PlaceGaussian:
        """Return what takes the features of `count` normals and gives distances from them."""

    def fit(self, normals: Tensor, facts: Facts) -> None:
        self.features = shared_features((normals.shape[2], normals.shape[3]))
        network, features = self.features.network, self.features(normals)
        self.places = self.description(network.num_features, network.grid, len(features))
        self.places.gather(features)
        height, width = network.grid
        self.note = f"{len(features)} of {len(normals)} training normals, {height}×{width} places"

    def score(self, image: Tensor) -> float:
        return float(pooled(self.distances(image), SHARE))

    def map(self, image: Tensor) -> Tensor:
        size = tuple(image.shape[1:])
        return F.interpolate(self.distances(image)[None], size=size, mode="bilinear")[0, 0]

    @torch.no_grad()
    def distances(self, image: Tensor) -> Tensor:
        """Return the distance at each place of an image [C, H, W], [1, *grid]."""
        distances: Tensor = self.places(self.features(image))
        return distances
