"""Moving averages of the weights of networks that are trained against each other, which never settle themselves."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Averages(nn.Module):
    """A copy of each network with exponential moving averages of its weights; the copies judge, they are not trained.

    Batch norm's statistics and spectral norm's vectors are the network's present ones.

    Args:
        owner: the module that holds the networks.
        names: of the owner's networks.
        decay: what remains of an average in an iteration; it looks back over 1 / (1 - decay) of them.
    """

    def __init__(self, owner: nn.Module, names: Sequence[str], decay: float) -> None:
        super().__init__()
        averaging: Callable[[float], Any] = get_ema_multi_avg_fn  # torch leaves it without types
        copies = {name: AveragedModel(owner.get_submodule(name), multi_avg_fn=averaging(decay)) for name in names}
        self.copies = nn.ModuleDict(copies).requires_grad_(False)

    def follow(self, owner: nn.Module) -> None:
        """Take the owner's present weights into the averages; the first time they are the averages."""
        for name, copy in self.copies.items():
            assert isinstance(copy, AveragedModel)
            copy.update_parameters(owner.get_submodule(name))

    def __getitem__(self, name: str) -> Any:
        """The network `name` with averaged weights."""
        return self.copies[name].module
