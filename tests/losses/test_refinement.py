"""CHR's mask and loss by hand tables."""

import math

import torch

from anomaly_lab.losses.refinement import refinement_loss

L2 = math.log(2)


def test_mask_of_the_code_by_hand() -> None:
    """A negative counts unless its logit is below -20; a positive always; the mean counts all four."""
    logits = torch.tensor([[[-20.5, -19.5], [-20.5, 0.0]]])  # one image, two heads, two classes
    negative = torch.tensor([[0, 0]])
    first = -math.log(1 - 1 / (1 + math.exp(19.5)) + 1e-10)
    assert math.isclose(refinement_loss(logits, negative).item(), (0 + first) / 2 + (0 + L2) / 2, rel_tol=1e-5)
    positive = torch.tensor([[1, 0]])
    certain = -math.log(1 / (1 + math.exp(20.5)) + 1e-10)  # about 20.4: bounded by the 1e-10
    expected = (certain + first) / 2 + (certain + L2) / 2
    assert math.isclose(refinement_loss(logits, positive).item(), expected, rel_tol=1e-5)


def test_without_certain_negatives_it_is_the_sum_of_binary_cross_entropies() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(6, 3, 5), torch.randint(0, 2, (6, 5))
    expected = sum(
        torch.nn.functional.binary_cross_entropy_with_logits(logits[:, i], target.float()).item() for i in range(3)
    )
    assert math.isclose(refinement_loss(logits, target).item(), expected, rel_tol=1e-5)


def test_a_masked_negative_has_no_gradient() -> None:
    logits = torch.tensor([[[-21.0, -5.0]]], requires_grad=True)
    refinement_loss(logits, torch.tensor([[0, 0]])).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 0] == 0 < logits.grad[0, 0, 1]


def test_unknown_targets_count_for_nothing() -> None:
    logits = torch.tensor([[[0.0, 9.0]]])
    for balance in ("code", "paper"):
        assert math.isfinite(refinement_loss(logits, torch.tensor([[-1, -1]]), balance).item())
    assert math.isclose(refinement_loss(logits, torch.tensor([[0, -1]])).item(), L2, rel_tol=1e-6)


def test_our_reading_of_the_paper_by_hand() -> None:
    """Three of four are negative: the positive weighs 3/4, each negative 1/4. A class without positives: nothing."""
    logits = torch.zeros(4, 1, 2)
    target = torch.tensor([[1, 0], [0, 0], [0, 0], [0, 0]])
    expected = (0.75 + 3 * 0.25) * L2 / 8
    assert math.isclose(refinement_loss(logits, target, "paper").item(), expected, rel_tol=1e-6)
