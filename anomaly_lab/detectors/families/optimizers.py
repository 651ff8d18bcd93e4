"""Optimisers that reproduce those of the authors' frameworks where torch's optimiser of the same name differs."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import RMSprop


def tensorflow_rmsprop(parameters: Iterable[nn.Parameter], lr: float) -> RMSprop:
    """Return RMSprop with TensorFlow 1's defaults, with which f-AnoGAN and ALOCC were trained.

    The mean squares start at 1 (torch: at 0) and decay by .9 (torch: .99). With torch's defaults, the first step would
    be 10 lr for every weight, whatever the gradient, which can saturate a wide layer followed by tanh.

    Args:
        parameters: parameters of a network that is already on its training device.
        lr: learning rate.

    Examples:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> weight.grad = torch.full((1,), 1e-6)
        >>> tensorflow_rmsprop([weight], lr=1.0).step()
        >>> bool(weight.abs() < 1e-5)  # torch's first step would be 9
        True
    """
    optimizer = RMSprop(parameters, lr, alpha=0.9, eps=1e-5)  # √1e-10: TensorFlow adds 1e-10 inside the root
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p] = {"step": torch.zeros(()), "square_avg": torch.ones_like(p)}
    return optimizer
