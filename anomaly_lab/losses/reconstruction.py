"""Distances between images and their reconstructions, per sample."""

from torch import Tensor


def mean_squared(x: Tensor, x_hat: Tensor) -> Tensor:
    """Return the mean of (x - x_hat)² over all axes but the first, in float32.

    Args:
        x: [B, *].
        x_hat: [B, *].

    Returns:
        [B].

    Examples:
        >>> import torch
        >>> mean_squared(torch.zeros(2, 1, 2, 2), torch.stack([torch.ones(1, 2, 2), 3 * torch.ones(1, 2, 2)])).tolist()
        [1.0, 9.0]
    """
    return (x.float() - x_hat.float()).square().flatten(1).mean(1)
