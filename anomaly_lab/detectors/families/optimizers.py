"""Optimizers as authors' frameworks had them, where torch's of the same name takes other steps."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import RMSprop


def tensorflow_rmsprop(parameters: Iterable[nn.Parameter], lr: float) -> RMSprop:
    """RMSprop with TensorFlow 1's defaults, in which f-AnoGAN and ALOCC were written.

    Its mean squares begin at 1 (torch: at 0) and decay by .9 (.99). Torch's first step is therefore 10 lr in every
    weight, whatever the gradient: enough to drive all outputs of a wide layer under a tanh to ±1, where no gradient is.

    Args:
        parameters: of a network that is where it will be trained.
        lr: learning rate.
    """
    optimizer = RMSprop(parameters, lr, alpha=0.9, eps=1e-5)  # TensorFlow's 1e-10 is added before the root is taken
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p] = {"step": torch.zeros(()), "square_avg": torch.ones_like(p)}
    return optimizer
