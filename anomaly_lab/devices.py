"""What a device can do and is told: copies that nobody waits for, how it rounds, and whether bfloat16 is worth it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


def emulates_bfloat16(device: torch.device | str | None = None) -> bool:
    """Return whether bfloat16 is slower than float32: on a processor without instructions for it, several times.

    Args:
        device: where one computes; None is the GPU, if there is one.

    Examples:
        >>> emulates_bfloat16("cuda")
        False
    """
    on_gpu = torch.cuda.is_available() if device is None else torch.device(device).type != "cpu"
    return not (on_gpu or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def precision_for(requested: Any) -> Any:
    """Return the precision a Trainer is to have, or "32-true" if that is bf16-mixed and the hardware only emulates it.

    Examples:
        >>> precision_for("32-true")
        '32-true'
    """
    return "32-true" if requested == "bf16-mixed" and emulates_bfloat16() else requested
