"""The floor under every detector: two scores that need no training, fitted on the same normals in seconds.

"mean_image": mean squared distance to the mean training image. "pca_32": mean squared error of the
reconstruction from 32 principal components (fewer where there are fewer images; Jolliffe 2002, Principal
Component Analysis). A detector that does not beat them has not learnt what is worth its training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

NAMES = ("mean_image", "pca_32")
NUM_COMPONENTS = 32
MAX_IMAGES = 2000  # PCA needs their [n, n] products; more of them hardly move 32 components
MAX_VALUES = 2**26  # of all images kept together: 256 MB of float32


@dataclass(frozen=True)
class Baselines:
    """Both baselines, fitted.

    Attributes:
        mean: training image, float64 [D] with D values of an image.
        components: principal axes, float64 [k, D].
    """

    mean: Tensor
    components: Tensor

    @classmethod
    def fit(cls, train: Iterable[Tensor]) -> Baselines:
        """From a random sample of the training images, always the same, where they exceed MAX_IMAGES or MAX_VALUES.

        Args:
            train: batches of normal images, [B, C, *S], in an order that does not change.

        Raises:
            ValueError: there are none.
        """
        kept = _sample(_images(train))
        if not kept:
            raise ValueError("the baselines got no training images")
        normals = torch.stack(kept)
        mean = normals.mean(0, dtype=torch.float64)
        return cls(mean, principal_components(normals, mean))

    def scores(self, others: Iterable[Tensor]) -> dict[str, Tensor]:
        """Of the other images by each floor; higher = more anomalous, as raw as a detector's.

        Everything is done image by image in float64, so that a score does not depend on the batches.

        Args:
            others: batches of them, of the training images' shape.

        Returns:
            "mean_image" and "pca_32", each float64 [N], N images in the order they came.
        """
        scores = [[part.square().mean().item() for part in self._residuals(image)] for image in _images(others)]
        columns = torch.tensor(scores, dtype=torch.float64).reshape(-1, len(NAMES)).unbind(1)
        return dict(zip(NAMES, columns, strict=True))

    def maps(self, image: Tensor) -> dict[str, Tensor]:
        """Where images [B, C, *S] differ from the mean and from their components: float32 [B, 1, *S], mean of |·|."""
        residuals = zip(*(self._residuals(one) for one in _images([image])), strict=True)
        stacked = (torch.stack(parts).view(image.shape) for parts in residuals)
        return {name: part.abs().mean(1, keepdim=True).float() for name, part in zip(NAMES, stacked, strict=True)}

    def _residuals(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """An image [D] less the mean, and less its components as well, in the order of NAMES."""
        centred = image.double() - self.mean
        return centred, centred - (self.components @ centred) @ self.components


def principal_components(x: Tensor, mean: Tensor) -> Tensor:
    """The min(32, n - 1) leading principal axes of x [n, D], fewer where x varies in fewer directions.

    Orthonormal, float64 [k, D]. From the eigenvectors of the [n, n] products, since images have more pixels
    than there are images.
    """
    products = torch.zeros(len(x), len(x), dtype=torch.float64)
    columns = zip(torch.split(x, 4096, 1), torch.split(mean, 4096), strict=True)
    blocks = list(columns)  # so that float64 copies stay small
    for block, centre in blocks:
        centred = block.double() - centre
        products += centred @ centred.T
    variance, vectors = torch.linalg.eigh(products)  # ascending
    variance, vectors = variance[-NUM_COMPONENTS:], vectors[:, -NUM_COMPONENTS:]
    real = variance > 1e-10 * variance[-1]  # also drops the direction lost to the mean
    axes = torch.cat([vectors[:, real].T @ (block.double() - centre) for block, centre in blocks], 1)
    return torch.div(axes, variance[real].sqrt()[:, None])


def _images(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        yield from batch.detach().cpu().float().flatten(1)


def _sample(images: Iterable[Tensor]) -> list[Tensor]:
    """At most MAX_IMAGES images, each with the same chance (reservoir sampling, Vitter 1985, algorithm R)."""
    random, kept = Random(0), list[Tensor]()
    for seen, image in enumerate(images):
        limit = min(MAX_IMAGES, max(2 * NUM_COMPONENTS, MAX_VALUES // len(image)))
        if len(kept) < limit:
            kept.append(image.clone())  # a view would keep its whole batch alive
        elif (place := random.randrange(seen + 1)) < limit:
            kept[place] = image.clone()
    return kept
