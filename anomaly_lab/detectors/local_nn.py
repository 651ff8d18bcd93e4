"""Local nearest neighbour: what a classifier of photographs sees at a place, against all normals there and beside it.

The memory of normal features is that of Cohen, Hoshen 2020 (SPADE, arXiv:2005.02357) and of Roth, Pemula, Zepeda,
Schölkopf, Brox, Gehler 2021 (PatchCore, arXiv:2106.08265). ≠ paper: both look for the nearest feature anywhere in the
image; pictures of bodies are aligned, so that here it must lie at the same place or a few places beside it.
"""

from typing import Annotated

import torch
from torch import Tensor

from anomaly_lab.detectors.families.places import PlaceDetector
from anomaly_lab.networks.backbones import BackboneName
from anomaly_lab.networks.places import PlaceBank
from anomaly_lab.types import Channels, Count, Fraction, Range


class LocalNN(PlaceDetector):
    """One phase, `gather`: the features of the normals are kept; a distance is that to the nearest within reach.

    Args:
        patch_size: height and width of the image, pixels.
        in_channels: 1 or 3; grey images are repeated to three channels.
        backbone, weights, stages, side, unit, samples, batch_size, share, map_sigma: as for PlaceDetector. The time of
            a score grows with `samples`.
        reach: how many places away a normal's feature may lie, along each axis.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.LocalNN((32, 32), weights="random", side=0, samples=1, batch_size=1)
        >>> normal = torch.rand(1, 1, 32, 32)
        >>> detector.places.gather(detector.described(normal))
        >>> detector.predict(normal).anomaly_score.item()
        0.0
    """

    graph_batch = 1
    places: PlaceBank

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Range("[8, 2048]")] = (64, 64),
        in_channels: Channels = 1,
        backbone: BackboneName = "efficientnet_lite0",
        weights: str = "package",
        stages: Annotated[tuple[int, ...], Range("[1, 4]", counts=range(1, 5))] = (2,),
        side: Annotated[int, Range("[0, 2048]")] = 0,
        unit: bool = False,
        samples: Count = 300,
        batch_size: Annotated[int, Range("[1, 65536]")] = 64,
        reach: Annotated[int, Range("[0, 16]")] = 1,
        share: Fraction = 0.05,
        map_sigma: Annotated[float, Range("[0, 100]")] = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.assemble()
        self.places = PlaceBank(samples, self.features.num_features, self.features.grid, reach)

    def described(self, image: Tensor) -> Tensor:
        """Return the features [B, F, *grid] of images [B, C, H, W].

        They pass one by one: how a convolution rounds depends on its batch, and distances to a twin are all rounding.
        """
        return torch.cat([super(LocalNN, self).described(single) for single in torch.split(image, 1)])
