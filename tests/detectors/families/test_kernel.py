"""What gathering detectors share: what is gathered, when they learn, from which features, and how it is kept."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import squeezenet1_0
from toys import Fit, smooth

from anomaly_lab.detectors.ocsvm import OCSVM
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles, load
from anomaly_lab.networks.features import SqueezeNetFeatures
from anomaly_lab.types import UserError


def tiny(**changes: object) -> OCSVM:
    torch.manual_seed(0)
    return OCSVM(**{"samples": 10, "batch_size": 4, "feature_iterations": 2, **changes})


def test_samples_are_counted_in_whole_minibatches(fit: Fit, pictures: Tensor) -> None:
    detector = tiny()
    assert [(phase.name, phase.iterations) for phase in detector.schedule] == [("gather", 3)]
    fit(detector, pictures)
    assert detector.machine.count == 10
    images = (pictures.flatten(1) + 1) / 2
    assert all((row == images).all(1).any() for row in detector.machine.rows)


def test_it_learns_at_the_end_and_no_sooner(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(), pictures, iterations=2)
    assert not detector.machine.weights.any()
    assert fit(tiny(), pictures).machine.weights.any()


def test_the_code_is_learnt_first(fit: Fit, pictures: Tensor) -> None:
    detector = tiny(features="code")
    assert [phase.name for phase in detector.schedule] == ["features", "gather"]
    start = copy.deepcopy(detector.state_dict())
    between = copy.deepcopy(fit(detector, pictures, iterations=2).state_dict())
    fit(detector, pictures, iterations=3)

    def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
        return {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} - {"iteration"}

    assert moved(start, between) == {"features"}
    assert moved(between, detector.state_dict()) == {"machine"}
    assert detector.machine.rows.shape == (10, 32)
    assert detector.score({"image": pictures}).anomaly_score.std() > 0


def test_the_autoencoders_loss_by_hand(pictures: Tensor) -> None:
    detector = tiny(features="code").eval()
    image = (pictures + 1) / 2
    expected = (detector.features(image) - image).square().sum() / len(pictures)
    torch.testing.assert_close(detector.reconstruction_loss(pictures), expected)


def test_pretrained_features_are_read_once_and_kept(fit: Fit, pictures: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(3)
    torch.save(squeezenet1_0(weights=None).state_dict(), tmp_path / "weights.pth")
    detector = fit(tiny(features="squeezenet", weights=str(tmp_path / "weights.pth")), pictures)
    (tmp_path / "weights.pth").unlink()
    fresh = tiny(features="squeezenet", weights=str(tmp_path / "weights.pth"))
    fresh.load_state_dict(detector.state_dict())
    assert isinstance(fresh.features, SqueezeNetFeatures)
    batch = {"image": pictures}
    assert torch.equal(fresh.score(batch).anomaly_score, detector.score(batch).anomaly_score)
    with pytest.raises(UserError, match="no such file"):
        fit(tiny(features="squeezenet", weights="nowhere.pth"), pictures)


@pytest.mark.parametrize("features", ["pixels", "code"])
def test_components_reduce_what_is_gathered(fit: Fit, features: str) -> None:
    pictures = smooth(40, seed=1, coarse_side=2)
    detector = fit(tiny(features=features, components=5, samples=40), pictures, batch_size=10)
    rows, weights = detector.machine.support()
    assert rows.shape == (len(weights), 5)
    assert detector.machine.projection.dimensions <= 4 or features == "code"
    assert detector.score({"image": pictures}).anomaly_score.std() > 0


def test_stopped_while_gathering_it_goes_on_as_if_it_had_not(fit: Fit, pictures: Tensor, tmp_path: Path) -> None:
    """Through a checkpoint file, which holds tensors only."""
    straight = fit(tiny(samples=8), pictures, iterations=1)
    CheckpointFiles().save_checkpoint({"state_dict": straight.state_dict()}, tmp_path / "00000001.ckpt")
    (file,) = tmp_path.glob("*.ckpt")
    resumed = tiny(samples=8)
    resumed.load_state_dict(load(file)["state_dict"])
    for detector in (straight, resumed):
        fit(detector, pictures.flip(3), iterations=1)
        assert detector.machine.count == 8
    batch = {"image": pictures}
    assert torch.equal(resumed.score(batch).anomaly_score, straight.score(batch).anomaly_score)


def test_it_is_ready_when_it_is_fitted(pictures: Tensor, fit: Fit) -> None:
    """And not before, though an epoch may end while it gathers."""
    assert not fit(tiny(), pictures, iterations=2).ready
    assert fit(tiny(), pictures).ready
