"""The plain head of an image classifier: the last feature map of a backbone -> logits of the classes."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

HeadName = Literal["linear", "dense", "flatten"]
DENSE = 256  # units of the dense layer


class Head(nn.Module):
    """Head: feature maps, of which only the last, [B, C, H, W], is used -> logits [B, 1, num_classes].

    Args:
        shape: C, H and W.
        num_classes: number of classes.
        kind: `linear`, one layer on the mean of each channel; `dense`, two with 256 units between, as the `simple`
            network has; `flatten`, the same two on all values of the map.
        dropout: probability of dropping an input of the last layer.

    Examples:
        >>> import torch
        >>> [Head((8, 2, 3), 5, kind)([torch.zeros(2, 8, 2, 3)]).shape for kind in ("linear", "dense", "flatten")]
        [torch.Size([2, 1, 5]), torch.Size([2, 1, 5]), torch.Size([2, 1, 5])]
        >>> sum(p.numel() for p in Head((512, 7, 7), 1000).parameters())  # ResNet-18's `fc`
        513000
    """

    def __init__(self, shape: Sequence[int], num_classes: int, kind: HeadName = "linear", dropout: float = 0.5) -> None:
        super().__init__()
        channels, height, width = shape
        pool: nn.Module = nn.Identity() if kind == "flatten" else nn.AdaptiveAvgPool2d(1)
        layers: list[nn.Module] = [pool, nn.Flatten()]
        features = channels * (height * width if kind == "flatten" else 1)
        if kind != "linear":
            layers += [nn.Linear(features, DENSE), nn.ReLU()]
            features = DENSE
        self.layers = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(features, num_classes))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.layers(maps[-1].float())
        return logits[:, None]
