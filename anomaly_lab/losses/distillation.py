"""Distances between the feature maps of a student and a teacher, per sample."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_lab.losses.reconstruction import mean_squared


def directions(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Return the sum over layers of 1 - cosine similarity of the flattened feature maps, in float32.

    Salehi et al. 2021, L_dir.

    Args:
        student: feature maps of each layer, [B, C, *S].
        teacher: feature maps of the same shapes.

    Returns:
        [B].

    Examples:
        >>> import torch
        >>> x = torch.tensor([[[[1.0, 0.0]]]])
        >>> directions([x, x], [5 * x, x.flip(3)]).tolist()  # parallel in the first layer, orthogonal in the second
        [1.0]
    """
    pairs = zip(student, teacher, strict=True)
    cosines = [F.cosine_similarity(s.float().flatten(1), t.float().flatten(1)) for s, t in pairs]
    return (1 - torch.stack(cosines)).sum(0)


def values(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Return the sum over layers of the mean squared difference of the feature maps, in float32.

    Salehi et al. 2021, L_val.

    Args:
        student: feature maps of each layer, [B, C, *S].
        teacher: feature maps of the same shapes.

    Returns:
        [B].

    Examples:
        >>> import torch
        >>> student = [torch.zeros(1, 1, 2, 2), torch.zeros(1, 4, 1, 1)]
        >>> values(student, [layer + 1 for layer in student]).tolist()  # each layer differs by 1 everywhere
        [2.0]
    """
    return torch.stack([mean_squared(s, t) for s, t in zip(student, teacher, strict=True)]).sum(0)
