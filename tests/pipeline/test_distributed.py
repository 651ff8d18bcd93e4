"""The strategy of several processes begins with one state; that they equal one process is tested in e2e/test_ddp."""

import pytest
import torch
from torch import nn

from anomaly_lab.pipeline.distributed import OneNetworkAtATime


def test_every_state_is_sent_from_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(2))
    sent = []

    def broadcast(tensor: torch.Tensor, src: int) -> None:
        assert tensor.is_contiguous()
        sent.append(src)
        tensor.fill_(1)

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    strategy = OneNetworkAtATime()
    strategy._lightning_module = module
    strategy.configure_ddp()
    assert sent == [0] * len(module.state_dict())
    assert all((value == 1).all() for value in module.state_dict().values())
