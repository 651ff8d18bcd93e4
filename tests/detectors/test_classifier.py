"""What is particular to the plain classifier."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from toys import Toy, ToyData, smooth, train

from anomaly_lab.detectors.classifier import Classifier

TOY = Toy({"backbone": "squeezenet1_0", "classifier_iterations": 100, "lr": 1e-3, "dropout": 0.2})


def test_published_sizes() -> None:
    """Torchvision's ResNet-50 with two outputs; the fundus study's flattening head at 256²."""
    with torch.device("meta"):
        plain, flat = Classifier(), Classifier((256, 256), head="flatten")
    trunk = 25_557_032 - (2048 * 1000 + 1000)
    assert sum(p.numel() for p in plain.classifier.parameters()) == trunk + 2048 * 2 + 2
    assert sum(p.numel() for p in flat.classifier.parameters()) == trunk + 2048 * 64 * 256 + 256 + 256 * 2 + 2


def test_loss_by_hand() -> None:
    torch.manual_seed(0)
    detector = Classifier((32, 32), backbone="squeezenet1_0", dropout=0.0, classes=("normal", "cyst", "tumour"))
    image, target = smooth(4, seed=1), torch.eye(3, dtype=torch.int8)[[0, 1, 2, 0]]
    last, layer = detector.stages(image)[-1], detector.classifier.head.layers[-1]
    expected = F.cross_entropy(last.mean((2, 3)) @ layer.weight.T + layer.bias, torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(detector.classifier_loss(image, target), expected)


def test_inceptions_auxiliary_classifier_helps_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its map is large enough: from 299 pixels on, not at 75. Its weight is 0.3."""
    detector = Classifier((75, 75), backbone="inception_v3", dropout=0.0)
    target = torch.eye(2, dtype=torch.int8)[[0, 1]]
    maps = [torch.zeros(2, 288, 35, 35), torch.rand(2, 768, 17, 17), torch.rand(2, 2048, 8, 8)]
    monkeypatch.setattr(detector, "maps", lambda image: maps)
    detector.eval()
    main, extra = detector.classifier.head(maps)[:, 0], detector.classifier.auxiliary(maps[1])
    expected = F.cross_entropy(main, target.argmax(1)) + 0.3 * F.cross_entropy(extra, target.argmax(1))
    torch.testing.assert_close(detector.classifier_loss(torch.zeros(2), target), expected)
    maps[1] = maps[1][:, :, :16]
    torch.testing.assert_close(
        detector.classifier_loss(torch.zeros(2), target), F.cross_entropy(main, target.argmax(1))
    )


def test_inception_trains_at_its_smallest_size(tmp_path: Path) -> None:
    detector = Classifier((75, 75), backbone="inception_v3", classifier_iterations=1)
    image = F.interpolate(smooth(4, seed=1), size=75)
    train(detector, ToyData(image), tmp_path)
    prediction = detector.score({"image": image})
    assert prediction.anomaly_map is not None
    assert prediction.anomaly_map.shape == (4, 1, 75, 75)
