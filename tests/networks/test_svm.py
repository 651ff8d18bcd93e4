"""The machine in torch against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor

from anomaly_lab.networks.svm import SupportVectorMachine


def clouds(n: int, m: int) -> tuple[Tensor, Tensor]:
    """Losses of n normals and m anomalies, which overlap and have very different scales."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n + m, 2, generator=generator).exp() * torch.tensor([0.01, 300.0])
    label = torch.cat([torch.zeros(n), torch.ones(m)]).long()
    return rows + label[:, None] * torch.tensor([0.01, 200.0]), label


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize(("n", "m"), [(40, 30), (3000, 400)])
def test_decisions_are_scikit_learns(kernel: str, n: int, m: int) -> None:
    rows, label = clouds(n, m)
    machine = SupportVectorMachine(n, m + 5, 2, kernel, cost=2.0)
    order = torch.randperm(n + m, generator=torch.Generator().manual_seed(1))
    for part in order.split(64):
        machine.gather(rows[part], label[part])
    machine.learn()
    x = rows.double().numpy()[order]
    scaler = StandardScaler().fit(x)
    svm = SVC(C=2.0, kernel=kernel, gamma="scale", class_weight="balanced").fit(scaler.transform(x), label[order])
    query = torch.cat([rows, rows * 3 - 1])
    expected = svm.decision_function(scaler.transform(query.double().numpy()))
    # Two solutions of libsvm agree to its tolerance, .001; the machine's own is met far closer, below.
    np.testing.assert_allclose(machine(query).numpy(), expected, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_the_stored_machine_is_the_fitted_one(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-5 of scikit-learn's own decisions, with thousands of equal weights, from a state dict."""
    fitted = []

    class Kept(SVC):
        def fit(self, *args: object) -> SVC:
            fitted.append((self, args[0]))
            return super().fit(*args)

    monkeypatch.setattr("anomaly_lab.networks.svm.SVC", Kept)
    rows, label = clouds(6000, 500)
    machine, other = (SupportVectorMachine(6000, 500, 2, kernel) for _ in range(2))
    machine.gather(rows, label)
    machine.learn()
    other.load_state_dict(machine.state_dict())
    svm, x = fitted[0]
    np.testing.assert_allclose(other(rows).numpy(), svm.decision_function(x), atol=1e-5, rtol=0)


def test_what_exceeds_a_class_is_dropped_and_unknown_rows_are() -> None:
    machine = SupportVectorMachine(3, 2, 1)
    machine.gather(torch.arange(8.0)[:, None], torch.tensor([0, 1, -1, 0, 1, 1, 0, 0]))
    assert machine.counts.tolist() == [3, 2]
    assert machine.rows.flatten().tolist() == [0, 3, 6, 1, 4]


def test_the_sigmoid_rises_with_the_decision() -> None:
    rows, label = clouds(60, 50)
    machine = SupportVectorMachine(60, 50, 2)
    machine.gather(rows, label)
    machine.learn()
    probability = machine.probability(torch.linspace(-3, 3, 9))
    assert (probability.diff() > 0).all()
    assert 0 <= probability.min() < 0.5 < probability.max() <= 1


def test_one_class_alone_is_refused() -> None:
    machine = SupportVectorMachine(3, 2, 1)
    machine.gather(torch.zeros(3, 1), torch.zeros(3).long())
    with pytest.raises(ValueError, match="3 normals and 0 anomalies"):
        machine.learn()
