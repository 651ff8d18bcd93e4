"""What is particular to the two-class CNN."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import Fit, Toy

from anomaly_lab.detectors.families import fake_pool
from anomaly_lab.detectors.pool_cnn import PoolCNN
from anomaly_lab.types import UserError

TOY = Toy(
    {
        "width": 8,
        "latent_dim": 16,
        "n_critic": 2,
        "gan_iterations": 150,
        "lr": 0.001,
        "classifier_iterations": 100,
        "lr_classifier": 0.001,
    }
)


def tiny(**changes: object) -> PoolCNN:
    torch.manual_seed(0)
    sizes = {"width": 4, "latent_dim": 8, "n_critic": 2, "gan_iterations": 2, "classifier_iterations": 3}
    return PoolCNN(**{**sizes, **changes})


def test_each_phase_moves_its_own_networks(fit: Fit, pictures: Tensor) -> None:
    detector, found = tiny(), []
    for phase in detector.schedule:
        before = copy.deepcopy(detector.state_dict())
        fit(detector, pictures, iterations=phase.iterations)
        after = detector.state_dict()
        found.append({key.split(".")[0] for key in before if not torch.equal(before[key], after[key])})
    assert found == [{"generator", "critic", "iteration"}, {"classifier", "iteration"}]


def test_loss_and_score_by_hand(pictures: Tensor, tmp_path: Path) -> None:
    detector = tiny().eval()
    fake = pictures[:1].flip(2)
    detector.pool = fake_pool.filled(tmp_path / "pool", fake)  # of one image, so that any draw is it
    stored = detector.pool.draw(1)
    torch.testing.assert_close(stored, fake, rtol=0, atol=1 / 255)
    logits, opinion = detector.classifier(pictures), detector.classifier(stored)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    expected = cross_entropy(logits, torch.ones(12)) + cross_entropy(opinion, torch.zeros(1))
    torch.testing.assert_close(detector.classifier_loss(pictures), expected)
    torch.testing.assert_close(detector.predict(pictures).anomaly_score, -logits)


def test_the_classifier_is_the_papers_critic() -> None:
    """METHODS §7.1."""
    assert sum(p.numel() for p in PoolCNN().classifier.parameters()) == 3_124_225
    assert sum(p.numel() for p in PoolCNN(in_channels=3).classifier.parameters()) == 3_127_425


def test_it_says_so_when_there_is_no_pool(pictures: Tensor) -> None:
    with pytest.raises(UserError, match="callback fakepool"):
        tiny().classifier_loss(pictures)
