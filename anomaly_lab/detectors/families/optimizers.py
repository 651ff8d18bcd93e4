"""Optimisers that reproduce those of the authors where torch has none, or another one of the same name."""

from collections.abc import Iterable
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import nn
from torch.optim import Adam, Optimizer, RAdam, RMSprop


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


def lazy_adam(parameters: Iterable[nn.Parameter], lr: float, interval: int) -> Adam:
    """Return Adam with beta (0, .99) for a network that is also regularised in a step of its own, every few iterations.

    Karras et al. 2020 (StyleGAN2), appendix B: as there are interval + 1 steps in `interval` iterations, the learning
    rate becomes c lr and the betas beta^c, c = interval / (interval + 1).

    Args:
        parameters: parameters of the network.
        lr: learning rate of a network without regularisation.
        interval: iterations from one regularising step to the next; 0 for none.

    Examples:
        >>> optimizer = lazy_adam([nn.Parameter(torch.zeros(1))], lr=0.1, interval=4)
        >>> round(optimizer.param_groups[0]["lr"], 6), round(optimizer.param_groups[0]["betas"][1], 6)
        (0.08, 0.991992)
    """
    c = interval / (interval + 1) if interval else 1.0
    return Adam(parameters, lr * c, betas=(0.0, 0.99**c), eps=1e-8)


def scale_rate(optimizer: Optimizer | LightningOptimizer, factor: float) -> None:
    """Set the learning rate to that with which an optimiser was made, times a factor; its state knows both.

    Args:
        optimizer: any optimiser, as torch or Lightning has it.
        factor: 1 for the rate at the beginning.

    Examples:
        >>> optimizer = lazy_adam([nn.Parameter(torch.zeros(1))], lr=0.1, interval=0)
        >>> for factor in (0.5, 0.25):
        ...     scale_rate(optimizer, factor)
        >>> optimizer.param_groups[0]["lr"]
        0.025
    """
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


class Ranger(RAdam):
    """Rectified Adam with gradient centralisation, and lookahead: every k steps, weights return half of their way.

    Liu et al. 2020 (RAdam); Yong et al. 2020 (gradient centralisation); Zhang, Lucas, Hinton, Ba 2019 (Lookahead).
    Everything that a resumed training needs is in the state of the optimiser.

    Args:
        parameters: parameters of a network.
        lr: learning rate.
        k: steps from one return to the next.
        alpha: fraction of the way since the last return that is kept.

    Examples:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> optimizer = Ranger([weight], lr=0.1, k=1)
        >>> weight.grad = torch.ones(1)
        >>> optimizer.step()
        >>> round(weight.item(), 4)  # half of RAdam's first step
        -0.05
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, k: int = 6, alpha: float = 0.5) -> None:
        super().__init__(parameters, lr, betas=(0.95, 0.999), eps=1e-5)
        for group in self.param_groups:
            group.update(k=k, alpha=alpha, steps=0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step; see torch.optim.Optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        fresh = {}
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            if p.grad.ndim > 1:  # gradient centralisation: the mean of each output's gradient is 0
                p.grad.sub_(p.grad.mean(dim=tuple(range(1, p.grad.ndim)), keepdim=True))
            if not self.state[p]:
                fresh[p] = p.detach().clone(memory_format=torch.preserve_format)
        super().step()
        for p, start in fresh.items():
            self.state[p]["slow"] = start
        for group in self.param_groups:
            group["steps"] += 1
            if group["steps"] % group["k"] == 0:
                self._look_back([p for p in group["params"] if p.grad is not None], group["alpha"])
        return loss

    def _look_back(self, weights: list[nn.Parameter], alpha: float) -> None:
        if weights:
            slow = [self.state[p]["slow"] for p in weights]
            torch._foreach_lerp_(slow, [p.detach() for p in weights], alpha)
            torch._foreach_copy_([p.detach() for p in weights], slow)
