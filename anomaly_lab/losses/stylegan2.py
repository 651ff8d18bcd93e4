"""Regularisers of StyleGAN2: the discriminator's slope at real images, and the lengths of paths in the image."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Return the mean squared norm of the discriminator's gradient at real images.

    Mescheder, Geiger, Nowozin 2018, eq. 9, without the weight gamma / 2. Computed in float32 at any precision.

    Args:
        discriminator: image [B, C, H, W] -> logit [B].
        real: images, [B, C, H, W].

    Returns:
        A scalar with a graph for the discriminator's weights.

    Examples:
        >>> def discriminator(image):  # its gradient is 3 for each of 4 pixels
        ...     return 3 * image.flatten(1).sum(1)
        >>> r1_penalty(discriminator, torch.zeros(2, 1, 2, 2)).item()
        36.0
    """
    with torch.autocast(real.device.type, enabled=False):
        image = real.detach().to(torch.promote_types(real.dtype, torch.float32)).requires_grad_(True)
        (slope,) = torch.autograd.grad(discriminator(image).sum(), image, create_graph=True)
        return slope.square().flatten(1).sum(1).mean()


def path_lengths(synthesis: Callable[[Tensor], Tensor], styles: Tensor) -> Tensor:
    """Return how far a step of a style moves the image in a random direction, ‖Jᵀ y‖ with y ~ N(0, 1) / √(H W).

    Karras et al. 2020 (StyleGAN2), eq. 4 and appendix B. Computed in float32 at any precision.

    Args:
        synthesis: styles [B, L, W] -> image [B, C, H, W].
        styles: [B, L, W], with a graph for the mapping network.

    Returns:
        [B], the root of the mean over L of the sum over W of the squared gradient; with a graph for all weights.

    Examples:
        >>> styles = torch.ones(3, 2, 4, requires_grad=True)
        >>> path_lengths(lambda styles: styles.mean(1)[:, None, None], styles).shape
        torch.Size([3])
    """
    with torch.autocast(styles.device.type, enabled=False):
        image = synthesis(styles)
        direction = torch.randn_like(image) / math.sqrt(math.prod(image.shape[2:]))
        (slope,) = torch.autograd.grad((image * direction).sum(), styles, create_graph=True)
        return (slope.square().sum(2).mean(1) + 1e-12).sqrt()  # 1e-12: the root has no derivative at 0
