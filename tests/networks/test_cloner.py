"""The authors' plan to the last weight, the teacher's shapes, and guided gradients on a network small enough to see."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from anomaly_lab.networks.cloner import Cloner, guided
from anomaly_lab.networks.teachers import BACKBONES, Teacher


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def plan(channels: list[int], normalised: list[int]) -> int:
    """Weights of 3×3 convolutions without bias, and two of batch norm for each normalised channel."""
    return sum(9 * a * b for a, b in pairwise(channels)) + 2 * sum(normalised)


def test_as_many_weights_as_published() -> None:
    assert count(Cloner(BACKBONES["vgg16"])) == 343_984


def test_as_many_weights_as_by_hand() -> None:
    vgg = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    first = [64, 128, 256, 256, 512, 512, 512, 512]  # all but the last of each block
    assert count(Cloner(BACKBONES["vgg16"], width=0)) == plan(vgg, first)
    squeezed = [3, 16, 16, 16, 96, 16, 16, 256, 16, 16, 512, 16, 16, 512]
    assert count(Cloner(BACKBONES["squeezenet1_0"])) == plan(squeezed, [16] * 8)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("sides", [(32, 32), (37, 48)])
def test_its_maps_have_the_teachers_shapes(name: str, sides: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *sides)
    found, expected = Cloner(BACKBONES[name], 4)(image), Teacher(name)(image)
    assert [tap.shape for tap in found] == [tap.shape for tap in expected]
    assert all(tap.min() >= 0 for tap in found)


@pytest.mark.parametrize("name", BACKBONES)
def test_its_values_lie_where_the_teachers_do(name: str) -> None:
    """A value of the first map sees the same pixels, give or take the cloner's own smaller convolutions."""
    image = torch.rand(1, 3, 48, 48, requires_grad=True)
    centres = []
    for network in (Cloner(BACKBONES[name]).eval(), Teacher(name, "unit")):
        tap = network(image)[0]
        row, column = tap.shape[2] // 2, tap.shape[3] // 2
        (slope,) = torch.autograd.grad(tap[0, :, row, column].sum(), image)
        seen = slope[0].abs().sum(0).nonzero().float()
        centres.append((seen.amin(0) + seen.amax(0)) / 2)
    torch.testing.assert_close(centres[0], centres[1], atol=1.0, rtol=0)


def test_guided_gradients_drop_what_is_negative() -> None:
    """y = relu(x) - 3 relu(x) + 2 relu(-x): at x = 1 the slope is -2; guided, only the first way back is open."""
    network = nn.Sequential(nn.Linear(1, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    network[0].weight.data = torch.tensor([[1.0], [1.0], [-1.0]])
    network[2].weight.data = torch.tensor([[1.0, -3.0, 2.0]])
    x = torch.ones(1, 1, requires_grad=True)

    def slope() -> float:
        return torch.autograd.grad(network(x), x)[0].item()

    assert slope() == -2
    with guided(network):
        assert network(x).item() == -2  # the value is what it was
        assert slope() == 1
    assert slope() == -2


def test_guidance_ends_with_an_error_too() -> None:
    network = nn.Sequential(nn.ReLU())
    with pytest.raises(RuntimeError), guided(network):
        raise RuntimeError
    assert not network[0]._backward_hooks
