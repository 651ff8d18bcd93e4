"""What is particular to CHR."""

import pytest
import torch
from torch.nn import functional as F
from toys import Toy, smooth

from anomaly_lab.detectors.chr import CHR

TOY = Toy({"backbone": "squeezenet1_0", "classifier_iterations": 150, "optimizer": "adamw", "lr": 3e-4})


def test_published_sizes_and_settings() -> None:
    with torch.device("meta"):
        detector = CHR(classes=tuple("abcde"))
    trunk = 44_549_160 - (2048 * 1000 + 1000)
    added = 2048 * 2048 + 2048 + 2 * (1024 + 512) + 1024**2 + 512**2 + 3072 * 1024 + 1536 * 512
    heads = 5 * (2048 + 1024 + 512) + 15
    assert sum(p.numel() for p in detector.classifier.parameters()) == trunk + added + heads
    (optimizer,) = detector.configure_optimizers()
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.9, 1e-4)


@pytest.mark.parametrize("prediction", ["head1", "mean"])
def test_loss_and_prediction_by_hand(prediction: str) -> None:
    torch.manual_seed(0)
    detector = CHR((32, 32), classes=("gun", "knife"), backbone="squeezenet1_0", prediction=prediction).eval()
    image, target = smooth(3, seed=1), torch.tensor([[1, 0], [0, 0], [1, 1]])
    logits = detector.classifier.head(detector.maps(image))
    expected = sum(F.binary_cross_entropy_with_logits(logits[:, i], target.float()) for i in range(3))
    torch.testing.assert_close(detector.classifier_loss(image, target), expected, rtol=1e-4, atol=1e-5)
    wanted = logits[:, 0] if prediction == "head1" else logits.mean(1)
    torch.testing.assert_close(detector.predict(image).probabilities, wanted.sigmoid())


def test_our_reading_of_the_paper_is_said_to_be_one() -> None:
    assert any("our reading" in caveat for caveat in CHR((32, 32), backbone="simple", balance="paper").caveats)
    assert CHR((32, 32), backbone="simple").caveats == ()
