"""Batch norm by the batch's own statistics, in a network that is otherwise judging."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def batch_statistics(*networks: nn.Module) -> Iterator[None]:
    """Inside, batch norm normalises each batch by itself; afterwards everything is as before, running means included.

    A score made so depends on what else is in the batch: this is here to reproduce code that forgets `eval()`.
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
