"""Distances between an image and its reconstruction, per sample."""

from torch import Tensor


def mean_squared(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean of (x - x_hat)² over all but the first axis, [B]; computed in float32."""
    return (x.float() - x_hat.float()).square().flatten(1).mean(1)
