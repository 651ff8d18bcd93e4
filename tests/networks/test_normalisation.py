import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly_lab.networks.normalisation import batch_statistics, shared_batch_norm


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


def normalised(norm: object, x: Tensor) -> list[Tensor]:
    """Output, running statistics, gradients, and the gradient of a penalty on a gradient, of the images x."""
    weight, bias = torch.linspace(1, 2, 3).double().requires_grad_(), torch.ones(3).double().requires_grad_()
    mean, var = torch.zeros(3).double(), torch.ones(3).double()
    x = x.clone().requires_grad_()
    y = norm(x, mean, var, weight=weight, bias=bias, training=True, momentum=0.1, eps=1e-5)
    (slope,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    (slope.square().sum() + y.sin().sum()).backward()
    return [y.detach(), x.grad, slope.detach(), mean, var, weight.grad, bias.grad]


def take_part(rank: int, size: int, folder: str, x: Tensor) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    *images, mean, var, weight, bias = normalised(shared_batch_norm, x.chunk(size)[rank])
    for gradient in (weight, bias):
        torch.distributed.all_reduce(gradient)
    torch.save([images, [mean, var, weight, bias]], f"{folder}/{rank}")
    torch.distributed.destroy_process_group()  # an interpreter that ends before its threads is aborted


@pytest.mark.slow
def test_two_processes_normalise_as_one_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 2, 2).double() + 100
    *images, mean, var, weight, bias = normalised(F.batch_norm, x)
    torch.multiprocessing.spawn(take_part, (2, str(tmp_path), x), nprocs=2)
    parts = [torch.load(tmp_path / str(rank)) for rank in (0, 1)]
    for whole, *shares in zip(images, *(part[0] for part in parts), strict=True):
        torch.testing.assert_close(torch.cat(shares), whole)
    for _, alike in parts:
        torch.testing.assert_close(alike, [mean, var, weight, bias])
