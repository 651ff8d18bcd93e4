"""What is particular to auto-encoders, plain and variational."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor
from toys import Fit, Toy

from anomaly_lab.detectors.autoencoder import AutoencoderDetector

TOY = Toy({"width": 4, "latent_dim": 8, "reconstruction_iterations": 200}, batch_size=32)

BOTH = pytest.mark.parametrize("variational", [False, True])
MAPS = pytest.mark.parametrize("map_of", ["residual", "gradient"])


def tiny(**changes: object) -> AutoencoderDetector:
    torch.manual_seed(0)
    sizes = {"patch_size": (32, 32), "width": 4, "latent_dim": 8, "reconstruction_iterations": 2}
    return AutoencoderDetector(**{**sizes, **changes})


def test_loss_by_hand(pictures: Tensor) -> None:
    detector = tiny().eval()
    x_hat = detector.autoencoder.decoder(detector.autoencoder.encoder(pictures))
    torch.testing.assert_close(detector.autoencoder_loss(pictures), (pictures - x_hat).square().mean())


def test_variational_loss_by_hand(pictures: Tensor) -> None:
    detector = tiny(variational=True, divergence_weight=3.0)
    torch.manual_seed(3)
    loss = detector.autoencoder_loss(pictures)
    mean, log_variance = detector.autoencoder.encoder(pictures).chunk(2, 1)
    torch.manual_seed(3)
    z = mean + log_variance.exp().sqrt() * torch.randn_like(mean)
    error = (pictures - detector.autoencoder.decoder(z)).square().mean()
    of, normal = torch.distributions.Normal(mean, log_variance.exp().sqrt()), torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(loss, error + 3 * torch.distributions.kl_divergence(of, normal).mean())


def test_the_record_has_the_divergence_of_training_images_alone(pictures: Tensor) -> None:
    detector = tiny(variational=True)
    detector.score({"image": pictures})
    assert not detector.tracked
    detector.autoencoder_loss(pictures)
    assert set(detector.flush()) == {"train/autoencoder", "train/divergence"}


@BOTH
def test_residual_map_and_score_by_hand(pictures: Tensor, variational: bool) -> None:
    detector = tiny(variational=variational).eval()
    score, anomaly_map, reconstruction = detector.predict(pictures)[:3]
    code = detector.autoencoder.encoder(pictures)[:, :8]  # of a variational one the means stand first
    x_hat = detector.autoencoder.decoder(code)
    torch.testing.assert_close(anomaly_map, (pictures - x_hat).square())
    torch.testing.assert_close(score, (pictures - x_hat).square().mean((1, 2, 3)))
    torch.testing.assert_close(reconstruction, x_hat.clamp(-1, 1))


@BOTH
def test_gradient_map_is_how_the_loss_answers_to_a_pixel(pictures: Tensor, variational: bool) -> None:
    """Central differences in float64, at three pixels."""
    detector, eps = tiny(variational=variational, map_of="gradient").eval().double(), 1e-6
    image = pictures[:1].double()
    with torch.no_grad():  # as in judging
        score, anomaly_map, _ = detector.predict(image)[:3]
    assert anomaly_map is not None
    for row, column in ((0, 0), (9, 20), (31, 5)):
        ends = []
        for step in (eps, -eps):
            moved = image.clone()
            moved[0, 0, row, column] += step
            x_hat, mean, log_variance = detector.autoencoder(moved)
            loss = (moved - x_hat).square().mean()
            if variational:
                loss = loss + 0.005 * 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
            ends.append(loss.item())
        slope = abs(ends[0] - ends[1]) / (2 * eps)
        assert anomaly_map[0, 0, row, column].item() == pytest.approx(slope, rel=1e-3)
    torch.testing.assert_close(score, anomaly_map.mean((1, 2, 3)))


@BOTH
@MAPS
def test_a_score_depends_on_no_other_image(
    fit: Fit, pictures: Tensor, variational: bool, map_of: Literal["residual", "gradient"]
) -> None:
    detector = fit(tiny(variational=variational, map_of=map_of), pictures)
    together = detector.score({"image": pictures})
    alone = detector.score({"image": pictures[5:6]})
    torch.testing.assert_close(alone.anomaly_score[0], together.anomaly_score[5])
    assert torch.equal(together.anomaly_score, detector.score({"image": pictures}).anomaly_score)
    assert together.anomaly_map is not None
    assert together.anomaly_map.shape == (len(pictures), 1, 32, 32)
    assert together.anomaly_map.min() >= 0
    assert not together.anomaly_map.requires_grad


def test_colour_maps_have_one_channel() -> None:
    anomaly_map = tiny(in_channels=3).eval().predict(torch.rand(2, 3, 32, 32)).anomaly_map
    assert anomaly_map is not None
    assert anomaly_map.shape == (2, 1, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize(("variational", "map_of"), [(True, "residual"), (False, "gradient"), (True, "gradient")])
def test_every_kind_solves_the_toy_problem(tmp_path: Path, variational: bool, map_of: str) -> None:
    """The contract asks the plain one."""
    torch.manual_seed(0)
    detector = AutoencoderDetector((32, 32), **TOY.settings, variational=variational, map_of=map_of)
    assert TOY.auroc(detector, tmp_path) >= 0.8
