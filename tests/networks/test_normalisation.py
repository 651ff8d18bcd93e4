import copy

import pytest
import torch
from torch import nn

from anomaly_lab.networks.normalisation import batch_statistics


def network() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5)).eval()
    made[1].running_mean += 1
    return made


def test_normalises_by_the_batch() -> None:
    net, x = network(), torch.randn(8, 1, 6, 6)
    with batch_statistics(net):
        y = net(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    h = net[0](x)
    expected = (h - h.mean((0, 2, 3), keepdim=True)) / (h.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(y, expected)  # and Dropout went on judging


def test_leaves_nothing_behind() -> None:
    net, x = network(), torch.randn(8, 1, 6, 6)
    before, judged = copy.deepcopy(net.state_dict()), net(x)
    with batch_statistics(net):
        net(x)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(net(x), judged)
    net.train()(x)
    assert not torch.equal(before["1.running_mean"], net[1].running_mean)  # it still learns in training


def test_restores_after_an_error() -> None:
    net = network()
    with pytest.raises(RuntimeError), batch_statistics(net):
        raise RuntimeError
    assert not net[1].training
    assert net[1].track_running_stats
