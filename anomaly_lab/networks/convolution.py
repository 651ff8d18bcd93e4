"""A 2-D convolution that can be differentiated twice at the price of its first derivative.

A gradient penalty differentiates a gradient. Torch then computes the weight's share as a convolution whose kernel is as
large as the picture, which takes 1.7 to 3.9 times as long as an ordinary weight gradient of as many operations (8×8 to
64×64 pixels, 512 to 64 channels, on a CPU). Here a derivative of any order is one of three ordinary operations.
"""

from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """[B, in_channels, H, W] -> [B, out_channels, H, W]: `nn.Conv2d` of stride 1, padded with zeros to keep the size.

    Args:
        in_channels, out_channels: as `nn.Conv2d`'s.
        kernel_size: side of the kernel, odd.
        bias: whether to add one number a channel.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        """`twice`: the result will be differentiated twice; for once, torch's own convolution has less overhead."""
        if twice and torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type):
            return _convolve(x, self.weight, self.bias)
        return super().forward(x)  # autocast knows torch's own operations only


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # Views, because the engine does not say of a leaf whether its gradient is asked for.
    y: Tensor = _Convolution.apply(*(t if t is None else t.view_as(t) for t in (x, weight, bias)))
    return y


class _Convolution(torch.autograd.Function):
    """x [B, C, H, W], weight [D, C, k, k], bias [D] or None -> [B, D, H, W]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        # Unlike conv2d deaf to autocast, which a caller may leave on during backward.
        y: Tensor = torch.ops.aten.convolution(x, weight, bias, *_geometry(weight))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        # `needs_input_grad` does not know that a slope towards the image asks for no weight's gradient.
        nodes: list[Any] = [node for node, _ in ctx.next_functions]  # of `bias` none, if there is none
        asked = [
            needed and torch._C._will_engine_execute_node(node)
            for needed, node in zip_longest(ctx.needs_input_grad, nodes)
        ]
        if not torch.is_grad_enabled():
            return _gradients(gradient, x, weight, asked)
        return (
            _InputGradient.apply(gradient, weight, x.detach()) if asked[0] else None,
            _WeightGradient.apply(gradient, x, weight.detach()) if asked[1] else None,
            gradient.sum((0, 2, 3)) if asked[2] else None,
        )


class _InputGradient(torch.autograd.Function):
    """Gradient towards y [B, D, H, W], weight -> towards x, of `like`'s shape."""

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
    """Gradient towards y [B, D, H, W], x [B, C, H, W] -> towards the weight, of `like`'s shape."""

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


def _gradients(gradient: Tensor, x: Tensor, weight: Tensor, asked: list[bool]) -> tuple[Tensor, ...]:
    """Towards x, weight and bias, in one call; None where not `asked`."""
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        gradient, x, weight, [len(weight)], *_geometry(weight), asked
    )
    return found


def _geometry(weight: Tensor) -> tuple[Any, ...]:
    """Stride, padding, dilation, transposed, output padding, groups."""
    return [1, 1], [side // 2 for side in weight.shape[2:]], [1, 1], False, [0, 0], 1
