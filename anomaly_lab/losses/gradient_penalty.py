"""Penalties on a critic's slope."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class KnowsItsSlope(Protocol):
    """A critic that computes its derivative towards images cheaper than autograd does."""

    def slope(self, image: Tensor) -> Tensor:
        """[B, C, *S] -> of the same shape, with a graph for the weights."""
        ...


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Squared distance from 1 of the critic's slope between real and fake (Gulrajani et al. 2017, eq. 3).

    Computed in float32 under any precision: a slope's norm needs the digits.

    Args:
        critic: image [B, C, *S] -> score [B]; must not mix samples, so no batch norm. It may know its own slope.
        real: images, [B, C, *S].
        fake: generated images, like `real`.

    Returns:
        Mean over the batch, a scalar with a graph for the critic's weights.
    """
    with torch.autocast(real.device.type, enabled=False):
        real, fake = real.detach().float(), fake.detach().float()
        t = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)  # one number a sample, not a voxel
        between = torch.lerp(real, fake, t)
        slope = critic.slope(between) if isinstance(critic, KnowsItsSlope) else _slope(critic, between)
        norm = (slope.flatten(1).square().sum(1) + 1e-12).sqrt()  # the root has no derivative at 0
        return (norm - 1).square().mean()


def _slope(critic: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    image.requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(image).sum(), image, create_graph=True)
    return slope
