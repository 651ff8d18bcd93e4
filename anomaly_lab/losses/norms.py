"""Norms of differences, per sample."""

import torch
from torch import Tensor


def difference_norm(a: Tensor, b: Tensor, degree: float = 1) -> Tensor:
    """‖a - b‖ of that degree over all but the first axis, a sum and no mean; [B], computed in float32."""
    norm: Tensor = torch.linalg.vector_norm((a.float() - b.float()).flatten(1), degree, dim=1)
    return norm
