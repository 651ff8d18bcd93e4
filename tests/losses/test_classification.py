"""Cross-entropies by hand tables; what is unknown has no gradient."""

import math

import torch
from sklearn.metrics import log_loss

from anomaly_lab.losses.classification import class_weights, multiclass_loss, multilabel_loss


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_multilabel_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    target = torch.tensor([[1, 0, -1], [-1, 1, 0]], dtype=torch.int8)
    terms = [-math.log(sigma(2)), -math.log(1 - sigma(-1)), -math.log(sigma(3)), -math.log(1 - sigma(-2))]
    assert math.isclose(multilabel_loss(logits, target).item(), sum(terms) / 4, rel_tol=1e-6)
    weight = torch.tensor([3.0, 5.0, 7.0])  # of the positives
    expected = (3 * terms[0] + terms[1] + 5 * terms[2] + terms[3]) / 4
    assert math.isclose(multilabel_loss(logits, target, weight).item(), expected, rel_tol=1e-6)


def test_what_is_unknown_moves_nothing() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    target = torch.tensor([[1, -1, 0]] * 4, dtype=torch.int8)
    multilabel_loss(logits, target).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 1] == 0).all()
    assert (logits.grad[:, [0, 2]] != 0).all()
    nothing = multilabel_loss(logits, torch.full((4, 3), -1))
    assert nothing.item() == 0


def test_multiclass_is_scikit_learns() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(9, 4), torch.arange(9) % 4
    target = torch.eye(4, dtype=torch.int8)[labels]
    expected = log_loss(labels, logits.double().softmax(1), labels=range(4))
    assert math.isclose(multiclass_loss(logits, target).item(), expected, rel_tol=1e-6)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = log_loss(labels, logits.double().softmax(1), labels=range(4), sample_weight=weight[labels])
    assert math.isclose(multiclass_loss(logits, target, weight).item(), expected, rel_tol=1e-6)


def test_weights_make_all_classes_count_alike() -> None:
    target = torch.eye(3, dtype=torch.int8)[[0] * 6 + [1] * 3 + [2]]
    weight = class_weights(torch.stack([target.sum(0), 10 - target.sum(0)], 1), "multiclass")
    torch.testing.assert_close(weight * target.sum(0), torch.full((3,), 10 / 3))
    assert class_weights(torch.tensor([[1, 3], [1, 2]]), "multilabel").tolist() == [3, 2]
    assert class_weights(torch.tensor([[0, 4], [4, 0]]), "multilabel").isfinite().all()  # a class nobody has, or all
