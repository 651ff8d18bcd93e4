"""A 2-D convolution whose second derivative costs as much as its first.

A gradient penalty differentiates a gradient. For that, torch computes the weight gradient as a convolution whose kernel
is as large as the image, which takes 1.7 to 3.9 times as long as an ordinary weight gradient with the same number of
operations (8×8 to 64×64 pixels, 512 to 64 channels, on a CPU). Here, a derivative of any order is one of three ordinary
operations: convolution, input gradient or weight gradient.
"""

from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` of stride 1, zero-padded to keep the size: [B, in_channels, H, W] -> [B, out_channels, H, W].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel, odd.
        bias: whether to add a bias per channel.

    Examples:
        >>> conv = Conv2d(1, 2, 3)
        >>> x = torch.rand(1, 1, 8, 8)
        >>> conv(x).shape, torch.allclose(conv(x), conv(x, twice=True), atol=1e-6)
        (torch.Size([1, 2, 8, 8]), True)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        """Convolve; `twice` if the result will be differentiated twice: otherwise torch's own operation is cheaper."""
        if twice and torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type):
            return _convolve(x, self.weight, self.bias)
        return super().forward(x)  # autocast supports torch's own operations only


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # Views, because autograd does not tell for a leaf whether its gradient is needed.
    y: Tensor = _Convolution.apply(*(t if t is None else t.view_as(t) for t in (x, weight, bias)))
    return y


class _Convolution(torch.autograd.Function):
    """Convolution: x [B, C, H, W], weight [D, C, k, k], bias [D] or None -> [B, D, H, W]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        # Unlike conv2d, this ignores autocast, which a caller may leave enabled during backward.
        y: Tensor = torch.ops.aten.convolution(x, weight, bias, *_geometry(weight))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        # `needs_input_grad` is also true for weights when only the gradient of the image is requested.
        nodes: list[Any] = [node for node, _ in ctx.next_functions]  # no node for a missing bias
        requested = [
            needed and torch._C._will_engine_execute_node(node)
            for needed, node in zip_longest(ctx.needs_input_grad, nodes)
        ]
        if not torch.is_grad_enabled():
            return _gradients(gradient, x, weight, requested)
        return (
            _InputGradient.apply(gradient, weight, x.detach()) if requested[0] else None,
            _WeightGradient.apply(gradient, x, weight.detach()) if requested[1] else None,
            gradient.sum((0, 2, 3)) if requested[2] else None,
        )


class _InputGradient(torch.autograd.Function):
    """Input gradient: gradient of y [B, D, H, W] and weight -> gradient of x, of the shape of `like`."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        return _gradients(gradient, like, weight, [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        gradient, weight = ctx.saved_tensors
        towards_gradient, towards_weight, _ = ctx.needs_input_grad
        return (
            _convolve(change, weight) if towards_gradient else None,
            _WeightGradient.apply(gradient, change, weight.detach()) if towards_weight else None,
            None,
        )


class _WeightGradient(torch.autograd.Function):
    """Weight gradient: gradient of y [B, D, H, W] and x [B, C, H, W] -> gradient of the weight, shaped like `like`."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, like: Tensor) -> Tensor:
        ctx.save_for_backward(gradient, x)
        return _gradients(gradient, x, like, [False, True, False])[1]

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        gradient, x = ctx.saved_tensors
        towards_gradient, towards_x, _ = ctx.needs_input_grad
        return (
            _convolve(x, change) if towards_gradient else None,
            _InputGradient.apply(gradient, change, x.detach()) if towards_x else None,
            None,
        )


def _gradients(gradient: Tensor, x: Tensor, weight: Tensor, requested: list[bool]) -> tuple[Tensor, ...]:
    """Return the gradients of x, weight and bias from one call; None where not requested."""
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        gradient, x, weight, [len(weight)], *_geometry(weight), requested
    )
    return gradients


def _geometry(weight: Tensor) -> tuple[Any, ...]:
    """Return stride, padding, dilation, transposed, output padding and groups."""
    return [1, 1], [side // 2 for side in weight.shape[2:]], [1, 1], False, [0, 0], 1
