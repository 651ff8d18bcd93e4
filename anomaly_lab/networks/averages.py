"""Exponential moving averages of network weights, which smooth the oscillations of adversarial training."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Averages(nn.Module):
    """A copy of each network with exponential moving averages of its weights, used for scoring and never trained.

    Batch-norm statistics and the vectors of spectral norm are copied from the network, not averaged.

    Args:
        owner: the module that holds the networks.
        names: names of the networks in `owner`.
        decay: weight of the previous average in an update; the average covers about 1 / (1 - decay) iterations.

    Examples:
        >>> owner = nn.ModuleDict({"net": nn.Linear(1, 1, bias=False)})
        >>> averages = Averages(owner, ["net"], decay=0.5)
        >>> for weight in (2.0, 4.0):
        ...     _ = nn.init.constant_(owner["net"].weight, weight)
        ...     averages.follow(owner)
        >>> averages["net"].weight.item()  # 0.5 · 2 + 0.5 · 4
        3.0
    """

    def __init__(self, owner: nn.Module, names: Sequence[str], decay: float) -> None:
        super().__init__()
        averaging: Callable[[float], Any] = get_ema_multi_avg_fn  # torch does not annotate it
        self._average = averaging(decay)
        copies = {name: AveragedModel(owner.get_submodule(name), multi_avg_fn=self._average) for name in names}
        self.copies = nn.ModuleDict(copies).requires_grad_(False)
        self.begun = False  # whether any copy was made, readable without waiting for the device
        self.register_load_state_dict_post_hook(_look)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def follow(self, owner: nn.Module) -> None:
        """Update the averages with the owner's current weights; the first call copies them.

        The same as `AveragedModel.update_parameters`, which asks the device twice for the number of updates.
        """
        for name, copy in self.copies.items():
            assert isinstance(copy, AveragedModel)
            network = owner.get_submodule(name)
            averages, weights = ([p.detach() for p in each.parameters()] for each in (copy, network))
            if self.begun:
                self._average(averages, weights, copy.n_averaged)
            else:
                torch._foreach_copy_(averages, weights)
            for buffer, of_network in zip(copy.module.buffers(), network.buffers(), strict=True):
                buffer.copy_(of_network)
            copy.n_averaged.add_(1)
        self.begun = True

    def __getitem__(self, name: str) -> Any:
        """Return the network `name` with averaged weights."""
        return self.copies[name].module


def _look(averages: Averages, keys: object) -> None:
    averages.begun = all(int(copy.n_averaged) for copy in averages.copies.values())  # type: ignore[arg-type]
