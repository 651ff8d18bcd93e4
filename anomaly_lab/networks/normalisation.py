"""Batch norm by other statistics than its module's: of a batch in eval mode, of a batch that processes share."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.distributed
from torch import Tensor, nn


@contextlib.contextmanager
def batch_statistics(*networks: nn.Module) -> Iterator[None]:
    """Let batch norm use the statistics of the current batch inside the context; all state is restored afterwards.

    Running statistics are neither used nor updated. A score computed this way depends on the other images of the batch;
    it exists to reproduce code that does not call `eval()`.

    Examples:
        >>> import torch
        >>> norm = nn.BatchNorm1d(1, affine=False).eval()
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> with batch_statistics(norm):
        ...     norm(x).flatten().round().tolist()
        [-1.0, 1.0]
        >>> norm(x).flatten().round().tolist()  # the running mean is still 0, the variance 1
        [1.0, 3.0]
    """
    norms = [m for network in networks for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, (training, tracking) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracking


def shared_batch_norm(  # noqa: PLR0913, the signature is that of `F.batch_norm`
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise by mean and variance over the batches of all processes, which are equally large.

    It is `F.batch_norm` of the joined batch. `nn.SyncBatchNorm` needs a GPU and has no second derivative, which a
    gradient penalty takes.

    Args:
        x: this process's part of the batch, [B, C, ...].
        running_mean, running_var: [C], updated in place; None where they are not tracked.
        weight, bias: [C]; None for 1 and 0.
        training: always True; eval mode needs no other process.
        momentum: of the running statistics.
        eps: added to the variance.

    Examples:
        Every process calls it at the same time, so this is not executed:

        >>> shared_batch_norm(torch.randn(4, 2), None, None)  # doctest: +SKIP
    """
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    axes = [axis for axis in range(x.ndim) if axis != 1]
    n = x.numel() // x.shape[1]
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    part_var, part_mean = torch.var_mean(exact, axes, correction=0)
    mine = torch.zeros(size, 1, 1, dtype=exact.dtype, device=x.device)
    mine[rank] = 1
    parts = _Sum.apply(mine * torch.stack([part_mean, part_var]))  # [size, 2, C]: all parts, by one message
    mean = parts[:, 0].mean(0)
    var = (parts[:, 1] + (parts[:, 0] - mean).square()).mean(0)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (n * size / max(n * size - 1, 1))).to(running_var.dtype), momentum)
    scale = (var + eps).rsqrt() if weight is None else weight.to(exact.dtype) * (var + eps).rsqrt()
    along = [1, -1] + [1] * (x.ndim - 2)
    y = (exact - mean.view(along)) * scale.view(along)
    shifted: Tensor = y if bias is None else y + bias.to(exact.dtype).view(along)
    return shifted.to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, and the gradient of that."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Sum.apply(gradient)
