"""Feature pyramid with a classifier on every level, the first part of GBAD.

Lin et al. 2017, as torchvision builds it. The paper of GBAD names the layers and gives no sizes: L1 to L4 are the
pyramid's levels, FC1 to FC4 classify each, FC5 classifies all four, and the mean of the five outputs is the prediction.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

LEVELS, CHANNELS = 4, 256


class FeaturePyramid(nn.Module):
    """Pyramid: outputs of the stages of a backbone -> four levels, each [B, 256, H', W'], the finest first.

    If the backbone has three stages, the coarsest level is the one before it at every other pixel.

    Args:
        widths: channels of the three or four stages.

    Examples:
        >>> stages = [torch.zeros(2, width, side, side) for width, side in ((8, 16), (16, 8), (32, 4))]
        >>> [tuple(level.shape[2:]) for level in FeaturePyramid((8, 16, 32))(stages)]
        [(16, 16), (8, 8), (4, 4), (2, 2)]
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        extra = LastLevelMaxPool() if len(widths) < LEVELS else None
        self.pyramid = FeaturePyramidNetwork(list(widths), CHANNELS, extra)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        levels: dict[str, Tensor] = self.pyramid({str(i): stage for i, stage in enumerate(stages)})
        return list(levels.values())


class LevelClassifiers(nn.Module):
    """FC1 to FC5: mean of each channel of each of four levels -> five logits a class.

    Args:
        num_classes: number of classes.

    Examples:
        >>> levels = [torch.zeros(2, 256, side, side) for side in (16, 8, 4, 2)]
        >>> LevelClassifiers(3)(levels).shape
        torch.Size([2, 5, 3])
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.single = nn.ModuleList(nn.Linear(CHANNELS, num_classes) for _ in range(LEVELS))  # FC1 to FC4
        self.joint = nn.Linear(LEVELS * CHANNELS, num_classes)  # FC5

    @staticmethod
    def pooled(levels: Sequence[Tensor]) -> Tensor:
        """Return the mean of each channel of each level, [B, 1024]."""
        return torch.cat([level.float().mean((2, 3)) for level in levels], 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        pooled = self.pooled(levels)
        parts = zip(self.single, pooled.chunk(LEVELS, 1), strict=True)
        return torch.stack([*(layer(part) for layer, part in parts), self.joint(pooled)], 1)
