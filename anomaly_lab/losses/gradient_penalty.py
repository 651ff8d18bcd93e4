"""Gradient penalty of the Wasserstein GAN."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class HasSlope(Protocol):
    """A critic with a faster way than autograd to compute its gradient with respect to images."""

    def slope(self, image: Tensor) -> Tensor:
        """Return the gradient for images [B, C, *S], of the same shape, with a graph for the critic's weights."""
        ...


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean squared deviation from 1 of the critic's gradient norm between real and generated images.

    Gulrajani et al. 2017, eq. 3, without the weight lambda. Computed in float32 at any precision: the norm would lose
    too many digits in bfloat16.

    Args:
        critic: image [B, C, *S] -> output [B]. It must not mix samples, so it may not contain batch norm. If it has a
            method `slope`, that is used in place of autograd.
        real: images, [B, C, *S].
        fake: generated images, [B, C, *S].

    Returns:
        A scalar with a graph for the critic's weights.

    Examples:
        >>> def critic(image):  # its gradient is 1 for each of the 4 pixels, so the norm is 2
        ...     return image.flatten(1).sum(1)
        >>> x = torch.zeros(4, 1, 2, 2)
        >>> round(gradient_penalty(critic, x, x + 1).item(), 4)
        1.0
    """
    with torch.autocast(real.device.type, enabled=False):
        real, fake = real.detach().float(), fake.detach().float()
        t = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)  # one number per sample, not per voxel
        between = torch.lerp(real, fake, t)
        slope = critic.slope(between) if isinstance(critic, HasSlope) else _slope(critic, between)
        norm = (slope.flatten(1).square().sum(1) + 1e-12).sqrt()  # 1e-12: the root has no derivative at 0
        return (norm - 1).square().mean()


def _slope(critic: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    image.requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(image).sum(), image, create_graph=True)
    return slope
