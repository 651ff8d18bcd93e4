"""What a classifier of photographs saw in normals, place by place: a second look at an image, beside its map.

A reconstruction misses what it can redraw, and features of a network that has never seen such images miss what has the
looks of tissue; they miss different lesions. As the baseline `place_nn` (Cohen, Hoshen 2020, SPADE; Roth et al. 2021,
PatchCore), with features of length 1. Distances are those of `networks.places.PlaceBank`, computed as products, so that
a graph of them takes any number of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_lab.evaluation.baselines.place_nn import REACH
from anomaly_lab.evaluation.baselines.places import BACKBONE, SIDE, STAGE
from anomaly_lab.networks.places import PlaceFeatures
from anomaly_lab.types import UserError

MAX_NORMALS = 500  # that are remembered, at most


class Memory:
    """Distances of features to the nearest of all remembered normals at the same place or one beside.

    Args:
        shape: of an image, [C, H, W].
        device: where to compute.
        weights: "package" for those of the installed package, or "random" to draw them, for a trial.

    Attributes:
        digest: SHA-256 of the network's weights; empty if they are random.
        rows: features of the remembered normals, [n, F, h, w], each of length 1 at every place.

    Raises:
        UserError: images are volumes, or the package with the weights is not installed.

    Examples:
        >>> memory = Memory((1, 16, 16), weights="random")
        >>> normals = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> memory.add(normals)
        >>> memory.distances(normals).amax().item() < 1e-3
        True
        >>> memory.distances(normals, own=[0, 1, 2]).amin().item() > 1e-3  # each by the others
        True
    """

    def __init__(self, shape: Sequence[int], device: torch.device | str = "cpu", weights: str = "package") -> None:
        if len(shape) != 3:
            raise UserError("score.features=true: the network sees pictures, not volumes; set score.features=false")
        with torch.random.fork_rng():
            self._features = PlaceFeatures(BACKBONE, (STAGE,), SIDE, shape[1:], unit=True)
        try:
            self.digest = "" if weights == "random" else self._features.load(weights)
        except UserError as error:
            raise UserError(f"score.features=true: {str(error).partition(': ')[2]}") from error
        self._features.to(device).eval()
        self.rows = torch.zeros(0, self._features.num_features, *self._features.grid, device=device)

    def add(self, image: Tensor) -> None:
        """Remember normals [B, C, H, W]; those beyond the capacity are dropped."""
        room = MAX_NORMALS - len(self.rows)
        if room > 0:
            self.rows = torch.cat([self.rows, self._seen(image[:room])])

    def distances(self, image: Tensor, own: Sequence[int | None] | None = None) -> Tensor:
        """Return the distances of images [B, C, H, W] at every place, [B, h, w], in [0, 2].

        Args:
            image: the images.
            own: number of the row that an image is itself, which is left out for it; None, or a number that no row
                has, leaves out none.
        """
        seen = self._seen(image)
        height, width = seen.shape[2:]
        here = seen.flatten(2).permute(2, 0, 1)  # [places, B, F]
        padded = F.pad(self.rows, (REACH,) * 4, mode="replicate")
        best = torch.full((), -1.0, device=seen.device)
        left_out = self._left_out(own)
        for dy in range(2 * REACH + 1):
            for dx in range(2 * REACH + 1):
                there = padded[:, :, dy : dy + height, dx : dx + width].flatten(2).permute(2, 1, 0)  # [places, F, n]
                cosine = here @ there
                if left_out is not None:
                    cosine = cosine.masked_fill(left_out, -1.0)
                best = torch.maximum(best, cosine.amax(2))  # [places, B]
        squares: Tensor = 2 - 2 * best  # of |a - b| for vectors of length 1
        return squares.clamp(min=0).sqrt().T.reshape(-1, height, width)

    def _left_out(self, own: Sequence[int | None] | None) -> Tensor | None:
        """Return for [B] images which of the rows does not count, bool [B, n]; None if all count for all."""
        if own is None or all(row is None for row in own):
            return None
        chosen = torch.tensor([-1 if row is None else row for row in own], device=self.rows.device)
        return chosen[:, None] == torch.arange(len(self.rows), device=self.rows.device)

    def _seen(self, image: Tensor) -> Tensor:
        if self.rows.device != image.device:
            self._features, self.rows = self._features.to(image.device), self.rows.to(image.device)
        with torch.autocast(image.device.type, enabled=False):
            features: Tensor = self._features(image)
            return features
