"""The two-class SVM in torch against scikit-learn, and what it is trained on."""

import copy
from pathlib import Path

import pytest
import torch
from sklearn.svm import SVC
from toys import Fit, Toy, smooth

from anomaly_lab.detectors.families import fake_pool
from anomaly_lab.detectors.pool_svm import PoolSVM
from anomaly_lab.types import UserError

TOY = Toy(
    {"width": 8, "latent_dim": 16, "n_critic": 2, "gan_iterations": 150, "lr": 0.001, "samples": 256, "batch_size": 16}
)


def tiny(**changes: object) -> PoolSVM:
    torch.manual_seed(0)
    sizes = {"width": 4, "latent_dim": 8, "n_critic": 2, "gan_iterations": 0, "samples": 40, "batch_size": 10}
    return PoolSVM(**{**sizes, **changes})


def test_scores_are_scikit_learns(fit: Fit) -> None:
    detector = fit(tiny(cost=0.5), smooth(60, seed=1, coarse_side=2), batch_size=10)
    rows = detector.machine.rows.double()
    judge = SVC(C=0.5, gamma="scale").fit(rows, [0] * 40 + [1] * 40)
    others = smooth(50, seed=2)
    expected = torch.from_numpy(judge.decision_function((others.flatten(1).double() + 1) / 2))
    score = detector.score({"image": others}).anomaly_score
    torch.testing.assert_close(score.double(), expected, rtol=1e-5, atol=1e-5)


def test_half_of_what_it_learns_from_is_the_pools(fit: Fit, tmp_path: Path) -> None:
    detector = tiny()
    detector.pool = fake_pool.filled(tmp_path / "pool", torch.full((3, 1, 32, 32), -1.0))
    fit(detector, torch.ones(4, 1, 32, 32), batch_size=10)
    assert detector.machine.rows.mean(1).tolist() == [1.0] * 40 + [0.0] * 40
    score = detector.score({"image": torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 32, 32)}).anomaly_score
    assert score[0] > 0 > score[1]


def test_no_more_normals_are_gathered_than_asked_for(fit: Fit, tmp_path: Path) -> None:
    """45 in batches of 10: half of the last one, and as many of the pool."""
    detector = tiny(samples=45)
    detector.pool = fake_pool.filled(tmp_path / "pool", torch.full((3, 1, 32, 32), -1.0))
    fit(detector, torch.ones(4, 1, 32, 32), batch_size=10)
    assert detector.machine.rows.mean(1).tolist() == [1.0] * 45 + [0.0] * 45


def test_each_phase_moves_its_own_networks(fit: Fit) -> None:
    detector, found = tiny(gan_iterations=2), []
    for phase in detector.schedule:
        before = copy.deepcopy(detector.state_dict())
        fit(detector, smooth(30, seed=1), iterations=phase.iterations, batch_size=10)
        after = detector.state_dict()
        found.append({key.split(".")[0] for key in before if not torch.equal(before[key], after[key])})
    assert found == [{"generator", "critic", "iteration"}, {"machine", "iteration"}]


def test_it_says_so_when_there_is_no_pool() -> None:
    with pytest.raises(UserError, match="callback fakepool"):
        tiny().learn()
