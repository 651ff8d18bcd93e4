"""What every detector promises, asked of every experiment's detector: whoever adds one is asked too."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import Fit

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment import compose, config
from anomaly_lab.types import Prediction


def _one_of_each() -> list[str]:
    """Every detector on a grey and on a colour set; on other data it promises the same."""
    return [f"{detector}_{dataset}" for detector in compose.detectors() for dataset in ("abmnist", "isic2016")]


EXPERIMENTS = _one_of_each()


def make(name: str, seed: int = 0) -> Detector:
    """The experiment's detector at its smoke budget, 32×32."""
    settings = config.load(name, ["budget=smoke", "data.patch_size=[32,32]", "seed=0"])
    torch.manual_seed(seed)
    detector: Detector = config.build(settings.detector)
    return detector


def images(detector: Detector, n: int = 11) -> Tensor:
    channels = detector.hparams.get("in_channels", 1)
    return torch.rand(n, channels, 32, 32, generator=torch.Generator().manual_seed(7)) * 2 - 1


@pytest.fixture(params=EXPERIMENTS)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def trained(name: str, fit: Fit) -> Detector:
    """Two iterations are enough to fill batch statistics."""
    detector = make(name)
    return fit(detector, images(detector), iterations=2)


def test_prediction_has_the_contracts_shapes(trained: Detector) -> None:
    image = images(trained)
    prediction = trained.score({"image": image})
    assert isinstance(prediction, Prediction)
    assert prediction.anomaly_score.shape == (len(image),)
    assert prediction.anomaly_score.dtype == torch.float32
    assert prediction.anomaly_score.isfinite().all()
    if prediction.anomaly_map is not None:
        assert prediction.anomaly_map.shape == (len(image), 1, 32, 32)
        assert prediction.anomaly_map.min() >= 0
    if prediction.reconstruction is not None:
        assert prediction.reconstruction.shape == image.shape


@pytest.mark.parametrize("batch_size", [1, 4, 8, 64])
def test_a_score_depends_on_no_other_image(trained: Detector, batch_size: int) -> None:
    image = images(trained)
    together = trained.score({"image": image}).anomaly_score
    order = torch.randperm(len(image), generator=torch.Generator().manual_seed(1))
    parts = [trained.score({"image": part}).anomaly_score for part in image[order].split(batch_size)]
    torch.testing.assert_close(torch.cat(parts), together[order], rtol=1e-5, atol=1e-6)


def test_scoring_changes_nothing(trained: Detector) -> None:
    before = copy.deepcopy(trained.state_dict())
    first = trained.score({"image": images(trained)}).anomaly_score
    second = trained.score({"image": images(trained)}).anomaly_score
    assert torch.equal(first, second)
    assert all(torch.equal(before[key], value) for key, value in trained.state_dict().items())


def test_same_seed_same_weights(name: str) -> None:
    one, two, other = make(name).state_dict(), make(name).state_dict(), make(name, seed=1).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    if any(True for _ in make(name).parameters()):  # a method that learns without gradients draws none
        assert any(not torch.equal(one[key], other[key]) for key in one)


def test_saved_and_loaded_it_scores_the_same(name: str, trained: Detector, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    fresh = make(name, seed=5)
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    batch = {"image": images(trained)}
    assert torch.equal(fresh.score(batch).anomaly_score, trained.score(batch).anomaly_score)
    assert fresh.iterations_done == trained.iterations_done


def test_each_phase_moves_its_networks_and_no_other(name: str, fit: Fit) -> None:
    """Weights and buffers alike, over one iteration of every phase."""
    detector, done = make(name), 0
    for phase in detector.schedule:
        detector.load_state_dict({**detector.state_dict(), "iteration": torch.tensor(done)})
        before = copy.deepcopy(detector.state_dict())
        fit(detector, images(detector), iterations=1)
        after = detector.state_dict()
        moved = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
        assert moved - {"iteration", "augmentation"} == set(phase.networks), phase.name
        done += phase.iterations


def test_hyper_parameters_are_plain(name: str) -> None:
    """Only then does a checkpoint load with weights_only=True."""
    plain = (int, float, str, bool, type(None), tuple, list)
    assert all(isinstance(value, plain) for value in make(name).hparams.values())
