"""What methods of places share: when they are ready, and their maps."""

import torch
from toys import Fit, smooth

from anomaly_lab.detectors.local_nn import LocalNN
from anomaly_lab.detectors.padim import PaDiM

SMALL = {"weights": "random", "side": 0, "samples": 8, "batch_size": 4}


def test_a_method_is_ready_when_all_is_gathered(fit: Fit) -> None:
    detector = LocalNN((32, 32), **SMALL)
    assert not detector.ready
    assert fit(detector, smooth(8, seed=0)).ready
    assert detector.places.bank.count == 8


def test_maps_are_blurred_and_scores_are_not(fit: Fit) -> None:
    torch.manual_seed(0)
    detector, image = fit(PaDiM((32, 32), **SMALL), smooth(8, seed=0)), smooth(2, seed=1)
    plain = detector.score({"image": image})
    detector.hparams.map_sigma = 3.0
    blurred = detector.score({"image": image})
    assert torch.equal(plain.anomaly_score, blurred.anomaly_score)
    assert blurred.anomaly_map.std() < plain.anomaly_map.std()


def test_the_record_says_where_the_weights_are_from() -> None:
    found = PaDiM((32, 32), **{**SMALL, "weights": "package"}).load_pretrained()
    assert (found["name"], found["random"], len(found["sha256"])) == ("efficientnet_lite0", False, 16)
    assert not PaDiM((32, 32), side=0, samples=1, batch_size=1).caveats
