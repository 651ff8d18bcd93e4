"""Two baselines that need no training: anomaly scores fitted in seconds on a detector's training normals.

"mean_image" is the mean squared distance to the mean training image. "pca_32" is the mean squared error of the
reconstruction from 32 principal components (fewer where there are fewer images; Jolliffe 2002, Principal Component
Analysis). A detector that does not beat them is not worth its training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

NAMES = ("mean_image", "pca_32")
NUM_COMPONENTS = 32
MAX_IMAGES = 2000  # PCA needs an [n, n] matrix, and more images hardly change 32 components
MAX_VALUES = 2**26  # pixels of all images kept in memory: 256 MB of float32


@dataclass(frozen=True)
class Baselines:
    """Both baselines, fitted.

    Attributes:
        mean: the mean training image, float64 [D], D being the number of values in an image.
        components: principal axes, float64 [k, D].

    Examples:
        >>> train = [torch.tensor([0.0, 2.0, 4.0]).reshape(3, 1, 1, 1)]  # three images of one pixel, mean 2
        >>> scores = Baselines.fit(train).scores([torch.full((1, 1, 1, 1), 5.0)])
        >>> scores["mean_image"].item(), round(scores["pca_32"].item(), 6)  # one axis explains a single pixel fully
        (9.0, 0.0)
    """

    mean: Tensor
    components: Tensor

    @classmethod
    def fit(cls, train: Iterable[Tensor]) -> Baselines:
        """Fit both baselines, on a fixed random sample if the images exceed MAX_IMAGES or MAX_VALUES.

        Args:
            train: batches of normal images, [B, C, *S], in a reproducible order.

        Raises:
            ValueError: `train` is empty.
        """
        sample = _sample(_images(train))
        if not sample:
            raise ValueError("the baselines got no training images: check that the training split is not empty")
        normals = torch.stack(sample)
        mean = normals.mean(0, dtype=torch.float64)
        return cls(mean, principal_components(normals, mean))

    def scores(self, others: Iterable[Tensor]) -> dict[str, Tensor]:
        """Score images with each baseline; higher = more anomalous, not rescaled.

        Images are scored one by one in float64, so a score does not depend on the batch size.

        Args:
            others: batches of images [B, C, *S] with the shape of the training images.

        Returns:
            "mean_image" and "pca_32", each float64 [N], the N images in the given order.
        """
        scores = [[part.square().mean().item() for part in self._residuals(image)] for image in _images(others)]
        columns = torch.tensor(scores, dtype=torch.float64).reshape(-1, len(NAMES)).unbind(1)
        return dict(zip(NAMES, columns, strict=True))

    def maps(self, image: Tensor) -> dict[str, Tensor]:
        """Return anomaly maps of images [B, C, *S]: each baseline's absolute residual, averaged over the channels.

        Returns:
            "mean_image" and "pca_32", each float32 [B, 1, *S].
        """
        residuals = zip(*(self._residuals(one) for one in _images([image])), strict=True)
        stacked = (torch.stack(parts).view(image.shape) for parts in residuals)
        return {name: part.abs().mean(1, keepdim=True).float() for name, part in zip(NAMES, stacked, strict=True)}

    def _residuals(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return an image [D] minus the mean, and minus its PCA reconstruction, in the order of NAMES."""
        centred = image.double() - self.mean
        return centred, centred - (self.components @ centred) @ self.components


def principal_components(x: Tensor, mean: Tensor) -> Tensor:
    """Compute the leading principal axes.

    They come from the eigenvectors of the [n, n] inner products, because images have more pixels than there are images.

    Args:
        x: [n, D].
        mean: mean of x, [D].

    Returns:
        Orthonormal axes, float64 [k, D]: k = min(32, n - 1), or fewer where x varies in fewer directions.

    Examples:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])  # varies along the first coordinate only
        >>> principal_components(x, x.mean(0, dtype=torch.float64)).abs().round()
        tensor([[1., 0.]], dtype=torch.float64)
    """
    products = torch.zeros(len(x), len(x), dtype=torch.float64)
    columns = zip(torch.split(x, 4096, 1), torch.split(mean, 4096), strict=True)
    blocks = list(columns)  # in blocks, to keep the float64 copies small
    for block, centre in blocks:
        centred = block.double() - centre
        products += centred @ centred.T
    variance, vectors = torch.linalg.eigh(products)  # ascending
    variance, vectors = variance[-NUM_COMPONENTS:], vectors[:, -NUM_COMPONENTS:]
    nonzero = variance > 1e-10 * variance[-1]  # also drops the direction that centring removes
    axes = torch.cat([vectors[:, nonzero].T @ (block.double() - centre) for block, centre in blocks], 1)
    return torch.div(axes, variance[nonzero].sqrt()[:, None])


def _images(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        yield from batch.detach().cpu().float().flatten(1)


def _sample(images: Iterable[Tensor]) -> list[Tensor]:
    """Draw at most MAX_IMAGES images, each with equal probability (reservoir sampling, Vitter 1985, algorithm R)."""
    random, sample = Random(0), list[Tensor]()
    for seen, image in enumerate(images):
        limit = min(MAX_IMAGES, max(2 * NUM_COMPONENTS, MAX_VALUES // len(image)))
        if len(sample) < limit:
            sample.append(image.clone())  # a view would keep its whole batch alive
        elif (place := random.randrange(seen + 1)) < limit:
            sample[place] = image.clone()
    return sample
