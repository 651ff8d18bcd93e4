"""How several processes train one detector: the strategy of the Trainer."""

from __future__ import annotations

import subprocess

import torch.distributed
from omegaconf import DictConfig
from pytorch_lightning.strategies import DDPStrategy, ParallelStrategy, Strategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from anomaly_lab.experiment import config as configuration
from anomaly_lab.pipeline import launchers
from anomaly_lab.types import UserError

children: list[subprocess.Popen[bytes]] = []  # that this process started; the strategy's launcher has them, too


class OneNetworkAtATime(DDPStrategy):
    """DDP without torch's wrapper: a step reduces the gradients of the one network it moves, and nothing else.

    `Detector.step_optimizer` reduces them. Torch's wrapper would reduce all networks at every step, and would have to
    walk the graph to find out which of them took part. No buffer is changed between two forward passes; batch-norm
    statistics are averaged at the end of an epoch (`Detector.on_train_epoch_end`).
    """

    def configure_ddp(self) -> None:
        """Begin with the weights of the first process everywhere."""
        assert self.lightning_module is not None
        for tensor in self.lightning_module.state_dict().values():
            if not tensor.is_contiguous():
                whole = tensor.contiguous()
                torch.distributed.broadcast(whole, src=0)
                tensor.copy_(whole)
            else:
                torch.distributed.broadcast(tensor, src=0)

    def _configure_launcher(self) -> None:
        super()._configure_launcher()
        assert isinstance(self.launcher, _SubprocessScriptLauncher)
        self.launcher.procs = children


def chosen_strategy(trainer: DictConfig) -> Strategy | None:
    """Return the strategy that Lightning chooses for the section `trainer`; None for one process without asking it.

    Raises:
        UserError: it is a kind of parallel training by which a detector cannot be trained.

    Examples:
        >>> chosen_strategy(DictConfig({"strategy": "auto", "devices": 1, "num_nodes": 1})) is None
        True
    """
    if (trainer.strategy, trainer.devices, trainer.num_nodes) == ("auto", 1, 1):
        return None
    plain = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    over = {"plugins": [launchers.environment()], "callbacks": None, "precision": "32-true", "sync_batchnorm": False}
    strategy: Strategy = configuration.build(trainer, **plain, **over).strategy
    by_programs = isinstance(strategy, DDPStrategy) and strategy._start_method == "popen"
    if isinstance(strategy, ParallelStrategy) and not by_programs:
        raise UserError(f"trainer.strategy={trainer.strategy}: detectors step one network at a time; set it to ddp")
    return strategy
