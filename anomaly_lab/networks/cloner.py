"""The cloner of Multi-KD: a narrow VGG whose last four blocks end in maps of the teacher's shapes."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from anomaly_lab.networks.teachers import Backbone

CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each block, VGG-16's


class Cloner(nn.Module):
    """image [B, 3, H, W] -> four maps of the sizes and channels of the teacher's taps.

    Blocks of 3×3 convolutions without bias; batch norm and ReLU after each but a block's last, which has ReLU only.
    A block then pools as the teacher shrinks, so that its values lie where the teacher's do; the teacher's other ways
    to shrink, such as strided convolutions, become max-pooling with the same window.

    Args:
        backbone: of the teacher; for VGG-16 and width 16 the plan is the authors'
            16,16,M,16,128,M,16,16,256,M,16,16,512,M,16,16,512,M.
        width: channels within the blocks and of the first; 0 for the teacher's, a cloner of equal size.

    Attributes:
        scale: [4], what the teacher's taps are to be divided by before they are compared; 1 unless somebody sets it.
    """

    scale: Tensor

    def __init__(self, backbone: Backbone, width: int = 16) -> None:
        super().__init__()
        ends = (3, width or backbone.widths[0], *backbone.widths[1:])
        blocks = []
        for count, (begin, end), pool in zip(CONVOLUTIONS, pairwise(ends), backbone.pools, strict=True):
            channels = [begin, *[width or end] * (count - 1), end]
            blocks.append(nn.Sequential(*_layers(channels), pool()))
        self.blocks = nn.ModuleList(blocks)
        self.register_buffer("scale", torch.ones(len(backbone.taps)))

    def forward(self, image: Tensor) -> list[Tensor]:
        taps, h = [], image
        for block in self.blocks:
            h = block(h)
            taps.append(h)
        return taps[1:]


@contextmanager
def guided(network: nn.Module) -> Iterator[None]:
    """What is computed inside has guided gradients: no ReLU of `network` lets a negative one pass.

    Springenberg et al. 2015. Both the forward and the backward pass must happen inside.
    """
    relus = [module for module in network.modules() if isinstance(module, nn.ReLU)]
    hooks = [relu.register_full_backward_hook(_positive) for relu in relus]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _positive(_: nn.Module, towards_input: tuple[Tensor, ...], __: object) -> tuple[Tensor, ...]:
    return tuple(gradient.clamp_min(0) for gradient in towards_input)


def _layers(channels: list[int]) -> list[nn.Module]:
    """Convolutions from each number of channels to the next."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(channels), start=2):
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        nn.init.xavier_uniform_(convolution.weight)
        layers += [convolution, *([nn.BatchNorm2d(after)] if i < len(channels) else []), nn.ReLU()]
    return layers
