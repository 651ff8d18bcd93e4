"""What is particular to the two-class CNN."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import Fit, smooth

from anomaly_lab.detectors.families import fake_pool
from anomaly_lab.detectors.pool_cnn import PoolCNN
from anomaly_lab.types import UserError


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


@pytest.mark.slow
def test_solves_a_toy_problem(fit: Fit, tmp_path: Path) -> None:
    """Pictures of four blended corners against a pool of coarser and finer noise; squares are found."""
    detector = tiny(width=8, gan_iterations=0, classifier_iterations=150, lr_classifier=1e-3)
    noise = torch.cat([smooth(128, 5, coarse_side=8), smooth(128, 6, coarse_side=4)])
    detector.pool = fake_pool.filled(tmp_path / "pool", noise)
    fit(detector, smooth(256, 1, coarse_side=2), batch_size=32)
    normal, anomalous = smooth(100, 2, coarse_side=2), smooth(100, 3, coarse_side=2)
    anomalous[:, :, 8:18, 10:20] = 1.0
    score = detector.score({"image": torch.cat([normal, anomalous])}).anomaly_score
    wins = (score[100:, None] > score[None, :100]).float().mean()  # AUROC by its definition
    assert wins.item() >= 0.9
