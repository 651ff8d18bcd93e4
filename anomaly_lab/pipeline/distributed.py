"""Several processes that train one detector."""

from __future__ import annotations

import torch.distributed
from pytorch_lightning.strategies import DDPStrategy


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
