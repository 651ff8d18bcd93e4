"""TensorFlow 1's RMSprop against its own update, written out, and who uses it."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import RMSprop

from anomaly_lab.detectors.alocc import ALOCC
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.optimizers import tensorflow_rmsprop
from anomaly_lab.detectors.fanogan import FAnoGAN


def step_optimizer(optimizer: RMSprop, p: nn.Parameter, gradients: torch.Tensor) -> None:
    for gradient in gradients:
        p.grad = gradient.clone()
        optimizer.step()


def test_steps_are_tensorflows() -> None:
    torch.manual_seed(0)
    gradients = torch.randn(30, 5) * torch.tensor([1e-6, 1e-3, 1.0, 10.0, 0.0])
    p = nn.Parameter(torch.randn(5))
    expected, mean_square = p.detach().double(), torch.ones(5, dtype=torch.float64)
    step_optimizer(tensorflow_rmsprop([p], 0.01), p, gradients)
    for gradient in gradients.double():
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        expected = expected - 0.01 * gradient / (mean_square + 1e-10).sqrt()
    torch.testing.assert_close(p.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_its_first_step_is_small_where_torchs_is_ten_times_the_rate() -> None:
    gradient = torch.full((1, 3), 1e-3)
    ours, theirs = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    step_optimizer(tensorflow_rmsprop([ours], 1e-2), ours, gradient)
    step_optimizer(RMSprop([theirs], 1e-2), theirs, gradient)
    assert ours.abs().max() < 1.1e-5
    assert theirs.abs().min() > 0.09


def test_it_is_resumed_from_its_state() -> None:
    torch.manual_seed(1)
    gradients = torch.randn(8, 4)
    whole = nn.Parameter(torch.zeros(4))
    step_optimizer(tensorflow_rmsprop([whole], 0.1), whole, gradients)
    part = nn.Parameter(torch.zeros(4))
    first = tensorflow_rmsprop([part], 0.1)
    step_optimizer(first, part, gradients[:3])
    second = tensorflow_rmsprop([part], 0.1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step_optimizer(second, part, gradients[3:])
    assert torch.equal(part, whole)


def test_every_group_of_weights_begins_alike() -> None:
    network = nn.Linear(3, 2)
    optimizer = tensorflow_rmsprop(network.parameters(), 0.1)
    assert [optimizer.state[p]["square_avg"].unique().tolist() for p in network.parameters()] == [[1.0], [1.0]]


@pytest.mark.parametrize(
    ("detector", "which"),
    [
        (FAnoGAN((32, 32), width=2, latent_dim=4), {"encoder": 2}),
        (ALOCC((32, 32), width=2), {"reconstructor": 0, "discriminator": 1}),
    ],
    ids=["f-AnoGAN", "ALOCC"],
)
def test_detectors_written_in_tensorflow_begin_with_its_step(detector: Detector, which: dict[str, int]) -> None:
    """A gradient of 1 moves a weight by the learning rate, not by ten times that."""
    optimizers = detector.configure_optimizers()
    for network, i in which.items():
        before = [p.detach().clone() for p in detector.get_submodule(network).parameters()]
        for p in detector.get_submodule(network).parameters():
            p.grad = torch.ones_like(p)
        optimizers[i].step()
        lr = optimizers[i].param_groups[0]["lr"]
        for p, old in zip(detector.get_submodule(network).parameters(), before, strict=True):
            torch.testing.assert_close(old - p.detach(), torch.full_like(p, lr), rtol=1e-2, atol=1e-7)
