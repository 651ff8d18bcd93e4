"""Batch norm with the statistics of the current batch in a network that is otherwise in eval mode."""

import contextlib
from collections.abc import Iterator

from torch import nn


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
