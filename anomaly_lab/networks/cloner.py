"""The cloner of Multi-KD: a narrow VGG whose last four blocks end in feature maps of the teacher's shapes."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from anomaly_lab.networks.teachers import Backbone

CONVOLUTIONS = (2, 2, 3, 3, 3)  # number per block, as in VGG-16


class Cloner(nn.Module):
    """Student network: image [B, 3, H, W] -> four feature maps with the sizes and channels of the teacher's taps.

    Blocks consist of 3×3 convolutions without bias. Each is followed by batch norm and ReLU, the last of a block by
    ReLU only. Each block ends in max-pooling with the window by which the teacher's block shrinks the image, so that
    the positions of the maps correspond, even if the teacher uses strided convolutions.

    Args:
        backbone: backbone of the teacher. For VGG-16 and width 16 the channels are those of the authors' code:
            16,16,M,16,128,M,16,16,256,M,16,16,512,M,16,16,512,M.
        width: channels of the first block and within the others; 0 for those of the teacher, a cloner of equal size.

    Attributes:
        scale: [4], by which the teacher's taps are divided before the comparison; 1 unless set by the detector.

    Examples:
        >>> from anomaly_lab.networks.teachers import BACKBONES
        >>> [tuple(tap.shape) for tap in Cloner(BACKBONES["vgg16"], width=4)(torch.zeros(2, 3, 32, 32))]
        [(2, 128, 8, 8), (2, 256, 4, 4), (2, 512, 2, 2), (2, 512, 1, 1)]
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
    """Compute guided gradients inside the context: no ReLU of `network` passes a negative gradient.

    Springenberg et al. 2015. Both the forward and the backward pass must run inside.

    Examples:
        >>> x = torch.tensor([1.0], requires_grad=True)
        >>> relu = nn.ReLU()
        >>> with guided(relu):
        ...     (-relu(x)).sum().backward()
        >>> x.grad.item() == 0  # the gradient -1 is blocked
        True
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
    """Return convolutions from each number of channels to the next, with norm and activation."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(channels), start=2):
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        nn.init.xavier_uniform_(convolution.weight)
        layers += [convolution, *([nn.BatchNorm2d(after)] if i < len(channels) else []), nn.ReLU()]
    return layers
