import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from anomaly_lab.networks.averages import Averages


def owner_of(network: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({"network": network})


def test_weights_are_averaged_by_hand() -> None:
    """The first weights seen begin the average: 2, then .75 · 2 + .25 · 6 = 3, then .75 · 3 + .25 · 7 = 4."""
    owner = owner_of(nn.Linear(1, 1))
    averages, found = Averages(owner, ["network"], 0.75), []
    for weight in (2.0, 6.0, 7.0):
        nn.init.constant_(owner["network"].weight, weight)
        averages.follow(owner)
        found.append(averages["network"].weight.item())
    assert found == [2, 3, 4]


def test_statistics_are_the_present_ones() -> None:
    owner = owner_of(nn.BatchNorm1d(1, momentum=1.0))
    averages = Averages(owner, ["network"], 0.75)
    for value in (1.0, 5.0):
        owner["network"](torch.full((3, 1), value))
        averages.follow(owner)
    assert averages["network"].running_mean.item() == 5


def test_nothing_of_them_is_trained() -> None:
    owner = owner_of(nn.Linear(2, 2))
    averages = Averages(owner, ["network"], 0.5)
    assert not any(weight.requires_grad for weight in averages.parameters())
    assert owner["network"].weight.requires_grad


def test_they_survive_a_checkpoint() -> None:
    """A loaded average goes on from where it was, it does not begin anew."""
    owner = owner_of(nn.Linear(1, 1))
    averages, later = Averages(owner, ["network"], 0.5), Averages(owner, ["network"], 0.5)
    nn.init.constant_(owner["network"].weight, 2.0)
    averages.follow(owner)
    later.load_state_dict(copy.deepcopy(averages.state_dict()))
    nn.init.constant_(owner["network"].weight, 4.0)
    later.follow(owner)
    assert later["network"].weight.item() == 3


def test_of_a_spectrally_normalised_layer_the_bare_weights_are_averaged() -> None:
    owner = owner_of(spectral_norm(nn.Linear(3, 3, bias=False)))
    averages = Averages(owner, ["network"], 0.5)
    for _ in range(50):  # the power iteration settles
        owner["network"](torch.zeros(1, 3))
    averages.follow(owner)
    largest = torch.linalg.matrix_norm(averages["network"].eval().weight, 2).item()
    assert largest == pytest.approx(1, abs=1e-3)
