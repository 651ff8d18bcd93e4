"""CHR's refinement: three feature maps of a backbone, merged from deep to shallow, with a classifier on each.

Miao et al. 2019, CVPR; layers of the authors' code, with mean pooling of any size in place of 7, 14 and 28 pixels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Refinement(nn.Module):
    """Maps of the last three stages, shallow first -> the maps that the heads 1, 2 and 3 pool, the deepest first.

    Convolutions are 1×1 with bias, each followed by ReLU; there is no norm.

    Args:
        widths: channels of the stages, shallow first; three or more.

    Examples:
        >>> stages = [torch.zeros(2, width, side, side) for width, side in ((8, 8), (16, 4), (32, 2))]
        >>> [tuple(refined.shape[1:]) for refined in Refinement((8, 16, 32))(stages)]
        [(32, 2, 2), (16, 4, 4), (8, 8, 8)]
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        *_, shallow, middle, deep = widths
        self.deepest = nn.Conv2d(deep, deep, 1)
        self.lateral2, self.merge2 = nn.Conv2d(middle, middle, 1), nn.Conv2d(deep + middle, middle, 1)
        self.lateral3, self.merge3 = nn.Conv2d(shallow, shallow, 1), nn.Conv2d(middle + shallow, shallow, 1)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        *_, shallow, middle, deep = stages
        # The second head gets the deepest stage itself, not what the first head makes of it.
        second = F.relu(self.merge2(_beside(deep, F.relu(self.lateral2(middle)))))
        third = F.relu(self.merge3(_beside(second, F.relu(self.lateral3(shallow)))))
        return [F.relu(self.deepest(deep)), second, third]


class RefinedHeads(nn.Module):
    """The linear classifiers of the three heads: maps from `Refinement` -> logits [B, 3, num_classes].

    Args:
        widths: channels of the stages, shallow first; three or more.
        num_classes: number of classes.

    Examples:
        >>> maps = [torch.zeros(2, width, side, side) for width, side in ((32, 2), (16, 4), (8, 8))]
        >>> RefinedHeads((8, 16, 32), num_classes=5)(maps).shape
        torch.Size([2, 3, 5])
    """

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, num_classes) for width in widths[:-4:-1])

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return torch.stack([layer(h.float().mean((2, 3))) for layer, h in zip(self.layers, maps, strict=True)], 1)


def _beside(coarse: Tensor, fine: Tensor) -> Tensor:
    """Enlarge `coarse` to the size of `fine` and put the channels of both together."""
    return torch.cat([F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False), fine], 1)
