"""The kernel sum against scikit-learn's kernel and a loop."""

import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel

from anomaly_lab.networks.kernels import KernelMachine, scale, squared_distances


def test_squared_distances_by_hand() -> None:
    x, y = torch.tensor([[0.0, 0.0], [1.0, 2.0]]).double(), torch.tensor([[3.0, 4.0]]).double()
    assert squared_distances(x, y).tolist() == [[25.0], [8.0]]


def test_what_is_gathered_beyond_the_capacity_is_left_out() -> None:
    machine = KernelMachine(5, 2)
    for first in (0.0, 1.0, 2.0):
        machine.gather(torch.full((2, 2), first))
    assert machine.count == 5
    assert machine.rows[:, 0].tolist() == [0, 0, 1, 1, 2]


def test_a_loaded_machine_gathers_on() -> None:
    one, other = KernelMachine(5, 2), KernelMachine(5, 2)
    one.gather(torch.ones(2, 2))
    other.load_state_dict(one.state_dict())
    other.gather(torch.full((1, 2), 3.0))
    assert other.rows[:, 0].tolist() == [1, 1, 3, 0, 0]
    assert (other.gathered, int(other.count)) == (3, 3)


def test_the_sum_is_the_kernels() -> None:
    torch.manual_seed(0)
    machine, rows, x, weights = KernelMachine(9, 3), torch.randn(7, 3), torch.randn(4, 3), torch.randn(7)
    weights[2] = 0  # no support vector
    machine.gather(rows)
    machine.learnt(weights, gamma=0.3, offset=-2.0)
    assert len(machine.support()[0]) == 6
    expected = torch.from_numpy(rbf_kernel(x, rows, gamma=0.3)) @ weights - 2
    torch.testing.assert_close(machine(x).float(), expected.float())


def test_learnt_twice_nothing_is_left_of_the_first_time() -> None:
    machine = KernelMachine(4, 2)
    machine.gather(torch.ones(4, 2))
    machine.learnt(torch.ones(4), 1.0, 0.0)
    machine.learnt(torch.ones(2), 1.0, 0.0)
    assert machine(torch.ones(1, 2)).item() == 2


@pytest.mark.parametrize(("rows", "gamma"), [([[0.0, 2.0], [0.0, 2.0]], 0.5), ([[1.0], [1.0]], 1.0)])
def test_scale_is_scikit_learns(rows: list[list[float]], gamma: float) -> None:
    """1 / (2 features · variance 1); rows that do not vary get 1."""
    assert scale(torch.tensor(rows)) == gamma


def test_projected_rows_and_queries_meet() -> None:
    torch.manual_seed(0)
    rows = torch.randn(30, 6)
    machine = KernelMachine(30, 6, components=4)
    machine.gather(rows)
    projected = machine.project()
    assert projected.shape == (30, 4)
    machine.learnt(torch.ones(30), 0.5, 0.0)
    expected = (-0.5 * squared_distances(projected[:3], projected)).exp().sum(1)
    torch.testing.assert_close(machine(rows[:3]), expected)
