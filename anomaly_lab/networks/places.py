"""Normality place by place: what a pretrained classifier sees at each place, and how far that is from normal.

Two descriptions of the normals at a place: one Gaussian (Defard, Setkov, Loesch, Audigier 2020, PaDiM), or the normals
themselves, of which the nearest counts (Cohen, Hoshen 2020, SPADE; Roth et al. 2021, PatchCore).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_lab.networks.backbones import ARCHITECTURES, FrozenStages, load
from anomaly_lab.networks.banks import Bank
from anomaly_lab.networks.pretrained import Normalised
from anomaly_lab.types import UserError

AT_ONCE = 2**22  # distances computed at once: 16 MB of float32


class PlaceFeatures(nn.Module):
    """Features of a frozen classifier at each place: image [B, C, H, W] in [-1, 1] -> [B, num_features, *grid].

    Weights are random until `load` replaces them.

    Args:
        backbone: a key of `backbones.ARCHITECTURES`.
        stages: numbers of the stages whose outputs are used, from 1; they are resized to the finest grid.
        side: pixels to which the shorter side of an image is resized; 0 leaves images as they are.
        patch_size: height and width of the image.
        unit: whether the features of a place are divided by their length, so that distances compare their directions
            alone; the length mostly follows contrast.

    Attributes:
        num_features: channels of all stages together.
        grid: number of places, height and width.

    Examples:
        >>> features = PlaceFeatures("efficientnet_lite0", stages=(2,), side=64, patch_size=(32, 32))
        >>> features(torch.zeros(2, 1, 32, 32)).shape, features.grid
        (torch.Size([2, 40, 8, 8]), (8, 8))
    """

    def __init__(
        self, backbone: str, stages: Sequence[int], side: int, patch_size: Sequence[int], unit: bool = False
    ) -> None:
        super().__init__()
        self.unit = unit
        architecture = ARCHITECTURES[backbone]
        if not stages or not all(1 <= stage <= len(architecture.ends) for stage in stages):
            raise ValueError(f"stages={tuple(stages)}: {backbone} has the stages 1 to {len(architecture.ends)}")
        self.taps = tuple(stage - 1 for stage in stages)
        self.frozen = FrozenStages(backbone, max(stages))
        self.normalised = Normalised(architecture.normalisation)
        scale = side / min(patch_size) if side else 1.0
        self.size = tuple(max(architecture.least, round(length * scale)) for length in patch_size)
        self.num_features = sum(architecture.widths[tap] for tap in self.taps)
        with torch.device("meta"), torch.no_grad():
            shapes = [tap.shape[2:] for tap in FrozenStages(backbone, max(stages))(torch.zeros(1, 3, *self.size))]
        self.grid: tuple[int, int] = max((shapes[tap][0], shapes[tap][1]) for tap in self.taps)

    def load(self, weights: str) -> str:
        """Read the classifier's weights from a file, or from the installed package's (`package`); return the digest.

        Raises:
            UserError: the file or the package is missing or contains something else.
        """
        return load([self.frozen], weights)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        image = image.float()
        if tuple(image.shape[2:]) != self.size:
            image = F.interpolate(image, size=self.size, mode="bilinear", antialias=True)
        taps = self.frozen(self.normalised((image.expand(-1, 3, -1, -1) + 1) / 2))
        chosen = [taps[tap] for tap in self.taps]
        features = torch.cat([h if h.shape[2:] == self.grid else _resized(h, self.grid) for h in chosen], 1)
        return F.normalize(features, dim=1) if self.unit else features


def _resized(h: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(h, size=tuple(size), mode="bilinear")


class PlaceGaussian(nn.Module):
    """A Gaussian at each place: features [B, F, *grid] -> Mahalanobis distances [B, *grid] (PaDiM, eq. 2).

    Mean and covariance are updated batch by batch (Chan, Golub, LeVeque 1983), so that no features are kept.

    Args:
        num_features: F.
        grid: number of places, height and width.
        regularisation: what `learn` adds to the variances, in shares of their mean (PaDiM, eq. 1: .01 itself).

    Examples:
        >>> places = PlaceGaussian(num_features=1, grid=(1, 1), regularisation=0.0)
        >>> places.gather(torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1))
        >>> places.learn()  # mean 0, variance 1
        >>> places(torch.tensor([2.0]).reshape(1, 1, 1, 1)).item()
        2.0
    """

    mean: Tensor
    matrices: Tensor
    filled: Tensor

    def __init__(self, num_features: int, grid: Sequence[int], regularisation: float = 0.01) -> None:
        super().__init__()
        self.grid, self.regularisation = tuple(grid), regularisation
        places = math.prod(grid)
        self.register_buffer("mean", torch.zeros(places, num_features))
        # First the sums of products of deviations from the mean, then the inverse Cholesky factors of the covariances
        self.register_buffer("matrices", torch.zeros(places, num_features, num_features))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.count = 0
        self.register_load_state_dict_post_hook(_recount)  # type: ignore[no-untyped-call]

    def gather(self, features: Tensor) -> None:
        """Take the features of some normals into account, [n, F, *grid]."""
        x = _by_place(features)
        before, n = self.count, x.shape[1]
        mean = x.mean(1)
        centred, gap = x - mean[:, None], mean - self.mean
        self.matrices.baddbmm_(centred.mT, centred)
        self.matrices.baddbmm_(gap[:, :, None], gap[:, None], alpha=before * n / (before + n))
        self.mean += gap * (n / (before + n))
        self.count += n
        self.filled += n

    def learn(self) -> None:
        """Turn the sums into covariances, regularise them and keep what the distances need.

        Raises:
            UserError: a covariance is singular.
        """
        covariance = self.matrices.double() if self.matrices.device.type != "mps" else self.matrices.cpu().double()
        covariance = covariance / max(1, self.count - 1)
        eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
        added = self.regularisation * covariance.diagonal(dim1=1, dim2=2).mean().clamp_min(1e-12)
        factor, fault = torch.linalg.cholesky_ex(covariance + added * eye)
        if bool(fault.any()):
            raise UserError(
                f"the covariance of {self.count} normals is singular at {int((fault > 0).sum())} places: raise "
                f"detector.regularisation={self.regularisation}, or train on more normals"
            )
        self.matrices.copy_(torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False))

    def forward(self, features: Tensor) -> Tensor:
        whitened = (_by_place(features) - self.mean[:, None]) @ self.matrices.mT
        distances: Tensor = whitened.norm(dim=2).T.reshape(-1, *self.grid)
        return distances


class PlaceBank(nn.Module):
    """All normals at each place: features [B, F, *grid] -> distances [B, *grid] to the nearest within reach.

    Args:
        capacity: maximum number of normals.
        num_features: F.
        grid: number of places, height and width.
        reach: how many places away a normal's feature may lie, along each axis; 0 for the same place.

    Examples:
        >>> places = PlaceBank(capacity=1, num_features=1, grid=(1, 3), reach=1)
        >>> places.gather(torch.tensor([0.0, 5.0, 9.0]).reshape(1, 1, 1, 3))
        >>> places(torch.tensor([5.0, 5.0, 0.0]).reshape(1, 1, 1, 3)).tolist()  # the last may look at 5 and 9
        [[[0.0, 0.0, 5.0]]]
    """

    def __init__(self, capacity: int, num_features: int, grid: Sequence[int], reach: int = 1) -> None:
        super().__init__()
        self.grid, self.reach = tuple(grid), reach
        self.bank = Bank(capacity, (num_features, *grid))

    def gather(self, features: Tensor) -> None:
        """Keep the features of some normals, [n, F, *grid]; those beyond the capacity are dropped."""
        self.bank.gather(features)

    def forward(self, features: Tensor) -> Tensor:
        rows = self.bank.gathered
        height, width = self.grid
        padded = F.pad(rows, (self.reach,) * 4, value=math.inf)
        nearest = torch.full((len(features), *self.grid), math.inf, device=features.device)
        for image, best in zip(features, nearest, strict=True):
            for part in torch.split(padded, max(1, AT_ONCE // math.prod(rows.shape[1:]))):
                for dy in range(2 * self.reach + 1):
                    for dx in range(2 * self.reach + 1):
                        moved = part[:, :, dy : dy + height, dx : dx + width]
                        torch.minimum(best, (moved - image).square().sum(1).amin(0), out=best)
        return nearest.sqrt()


def pooled(distances: Tensor, share: float) -> Tensor:
    """Return the mean of the largest values of maps [B, *S], [B].

    Args:
        distances: the maps.
        share: fraction of the values that counts: 1 for the mean of all, 0 for the largest alone.

    Examples:
        >>> maps = torch.tensor([[[0.0, 1.0], [2.0, 5.0]]])
        >>> [pooled(maps, share).item() for share in (0.0, 0.5, 1.0)]
        [5.0, 3.5, 2.0]
    """
    flat = distances.flatten(1)
    return flat.topk(max(1, round(share * flat.shape[1])), dim=1).values.mean(1)


def _by_place(features: Tensor) -> Tensor:
    """Reorder features [B, F, *grid] to [places, B, F]."""
    return features.float().flatten(2).permute(2, 0, 1)


def _recount(places: PlaceGaussian, keys: object) -> None:
    places.count = int(places.filled)
