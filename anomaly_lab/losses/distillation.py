"""How far a student's layers are from the teacher's, per sample."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_lab.losses.reconstruction import mean_squared


def directions(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over layers of 1 - cosine of the angle between the flattened maps, each [B, C, *S]; [B], in float32."""
    pairs = zip(student, teacher, strict=True)
    cosines = [F.cosine_similarity(s.float().flatten(1), t.float().flatten(1)) for s, t in pairs]
    return (1 - torch.stack(cosines)).sum(0)


def values(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean squared difference of the maps, each [B, C, *S]; [B], in float32."""
    return torch.stack([mean_squared(s, t) for s, t in zip(student, teacher, strict=True)]).sum(0)
