"""What a GPU is told: copies that nobody waits for, and how it rounds while it trains and while it scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor of the host on `device`; a GPU fetches it in the background, from pinned memory.

    Examples:
        >>> sent(torch.ones(2), "cpu").tolist()
        [1.0, 1.0]
    """
    device = torch.device(device)
    pinned = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
    return pinned.to(device, non_blocking=True)


@contextmanager
def rounding(device: torch.device | str, *, strict: bool) -> Iterator[None]:
    """Choose how a GPU multiplies float32 numbers inside the block; other devices always multiply them as they are.

    Args:
        device: where the block computes.
        strict: all digits, for scores that agree with those of a CPU, by the same convolutions at every call. Otherwise
            the factors are rounded to ten bits of mantissa (TF32), which is several times as fast.

    Examples:
        >>> with rounding("cpu", strict=True):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).tolist()
        [[2.0, 2.0], [2.0, 2.0]]
    """
    if torch.device(device).type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = not strict
    cudnn.benchmark = cudnn.benchmark and not strict
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
