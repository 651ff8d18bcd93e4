"""TensorFlow 1's RMSprop against its own update, written out, and who uses it; Ranger and lazy Adam against torch's."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, RAdam, RMSprop

from anomaly_lab.detectors.alocc import ALOCC
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.optimizers import Ranger, lazy_adam, tensorflow_rmsprop
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


def minimised(optimizer_of: Callable[[list[nn.Parameter]], Optimizer], steps: int) -> tuple[list[nn.Parameter], Any]:
    """Weights after some steps on a fixed function, and the optimiser."""
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3))]
    optimizer = optimizer_of(weights)
    for i in range(steps):
        descend(weights, optimizer, i)
    return weights, optimizer


def descend(weights: list[nn.Parameter], optimizer: Optimizer, i: int) -> None:
    optimizer.zero_grad()
    image = torch.randn(5, 4, generator=torch.Generator().manual_seed(i))
    (image @ weights[0].T + weights[1]).square().sum().backward()
    optimizer.step()


class Centred(RAdam):
    """torch's RAdam on gradients without their mean."""

    def step(self, closure: Any = None) -> Any:
        for p in self.param_groups[0]["params"]:
            p.grad = p.grad - p.grad.mean(1, keepdim=True) if p.grad.ndim == 2 else p.grad
        return super().step(closure)


def test_ranger_is_radam_with_centred_gradients_until_it_looks_back() -> None:
    def plain(weights: list[nn.Parameter]) -> Optimizer:
        return Centred(weights, 0.01, betas=(0.95, 0.999), eps=1e-5)

    for steps in (5, 10):
        ours, _ = minimised(lambda weights: Ranger(weights, 0.01, k=100), steps)
        theirs, _ = minimised(plain, steps)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


def test_ranger_returns_half_of_its_way_every_k_steps() -> None:
    start, _ = minimised(lambda weights: Ranger(weights, 0.01), 0)
    fast, _ = minimised(lambda weights: Ranger(weights, 0.01, k=100), 3)
    back, optimizer = minimised(lambda weights: Ranger(weights, 0.01, k=3), 3)
    for a, b, c in zip(start, fast, back, strict=True):
        torch.testing.assert_close(c, (a + b) / 2)
        torch.testing.assert_close(optimizer.state[c]["slow"], c.detach())


def test_a_resumed_ranger_goes_on_as_if_it_had_not_stopped() -> None:
    straight, _ = minimised(lambda weights: Ranger(weights, 0.01, k=4), 10)
    for stop in (1, 4, 7):
        weights, optimizer = minimised(lambda weights: Ranger(weights, 0.01, k=4), stop)
        fresh = [nn.Parameter(weight.detach().clone()) for weight in weights]
        resumed = Ranger(fresh, 0.5)
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for i in range(stop, 10):
            descend(fresh, resumed, i)
        assert all(torch.equal(one, other) for one, other in zip(fresh, straight, strict=True))


def test_lazy_adam_learns_as_fast_as_adam_in_as_many_iterations() -> None:
    """c interval + c = interval: learning rates and decays of all steps together are those of Adam."""
    group = lazy_adam([nn.Parameter(torch.zeros(1))], 0.1, interval=16).param_groups[0]
    assert 17 * group["lr"] == pytest.approx(16 * 0.1)
    assert group["betas"][0] == 0
    assert group["betas"][1] ** 17 == pytest.approx(0.99**16)
    plain = lazy_adam([nn.Parameter(torch.zeros(1))], 0.1, interval=0).param_groups[0]
    assert (plain["lr"], plain["betas"]) == (0.1, (0, 0.99))
