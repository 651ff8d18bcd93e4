"""Features in which images are compared: those of torchvision's own pass, fixed, and never trained."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import squeezenet1_0
from toys import smooth

from anomaly_lab.networks.classifier_features import ClassifierFeatures
from anomaly_lab.types import UserError


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    torch.save(squeezenet1_0().state_dict(), tmp_path / "squeezenet1_0.pth")
    return tmp_path / "squeezenet1_0.pth"


def test_they_are_torchvisions(weights: Path) -> None:
    network = squeezenet1_0()
    network.load_state_dict(torch.load(weights, weights_only=True))
    image = smooth(2, seed=1)
    rgb = F.interpolate((image.expand(-1, 3, -1, -1) + 1) / 2, size=(224, 224), mode="bilinear", antialias=True)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network.eval().features((rgb - mean.view(3, 1, 1)) / deviation.view(3, 1, 1))
    found = ClassifierFeatures("squeezenet1_0", str(weights)).eval()
    taps = found(image)
    torch.testing.assert_close(taps[-1], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.pooled(taps), expected.mean((2, 3)), atol=1e-4, rtol=1e-4)
    assert found.digest is not None
    assert len(found.digest) == 16


def test_random_ones_are_always_the_same_and_move_no_random_stream() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = ClassifierFeatures("squeezenet1_0", "random")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    other = ClassifierFeatures("squeezenet1_0", "random")
    image = smooth(1, seed=1)
    assert torch.equal(one(image)[-1], other(image)[-1])
    assert one.digest is None


def test_nothing_of_them_is_trained(weights: Path) -> None:
    found = ClassifierFeatures("squeezenet1_0", str(weights)).train()
    assert not any(value.requires_grad for value in found.parameters())


def test_a_file_of_another_network_is_refused_and_nothing_of_a_detector_is_said(weights: Path) -> None:
    with pytest.raises(UserError, match=r"not the weights of torchvision.s resnet18") as said:
        ClassifierFeatures("resnet18", str(weights))
    assert "detector." not in str(said.value)
