"""Norms of differences, per sample."""

import torch
from torch import Tensor


def difference_norm(a: Tensor, b: Tensor, degree: float = 1) -> Tensor:
    """Return the norm ‖a - b‖ of the given degree over all axes but the first, a sum rather than a mean, in float32.

    Args:
        a: [B, *].
        b: [B, *].
        degree: 1 for the L1 norm, 2 for the L2 norm.

    Returns:
        [B].

    Examples:
        >>> a, b = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
        >>> difference_norm(a, b).item(), difference_norm(a, b, 2).item()
        (7.0, 5.0)
    """
    norm: Tensor = torch.linalg.vector_norm((a.float() - b.float()).flatten(1), degree, dim=1)
    return norm
