"""What is particular to Skip-GANomaly."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import Toy

from anomaly_lab.detectors.skip_ganomaly import SkipGANomaly

TOY = Toy({"width": 8, "latent_dim": 6, "gan_iterations": 150, "lr": 0.001})


def tiny(**changes: object) -> SkipGANomaly:
    torch.manual_seed(0)
    arguments = {"patch_size": (32, 32), "width": 4, "latent_dim": 6, "gan_iterations": 4}
    return SkipGANomaly(**{**arguments, **changes})


@pytest.mark.parametrize("latent_in_d", [True, False])
def test_losses_by_hand(pictures: Tensor, latent_in_d: bool) -> None:
    detector = tiny(reconstruction_weight=7.0, latent_in_d=latent_in_d).eval()
    found = detector.reconstructor_loss(pictures)
    reconstruction = detector.reconstructor(pictures)
    (real, f), (fake, f_hat) = detector.discriminator(pictures), detector.discriminator(reconstruction)
    cross_entropy, ones, latent = F.binary_cross_entropy_with_logits, torch.ones(len(pictures)), F.mse_loss(f_hat, f)
    pixel = F.l1_loss(reconstruction, pictures)
    torch.testing.assert_close(found, cross_entropy(fake, ones) + 7 * pixel + latent)
    expected = cross_entropy(real, ones) + cross_entropy(fake, 0 * ones) + (latent if latent_in_d else 0)
    torch.testing.assert_close(detector.discriminator_loss(pictures), expected)


@pytest.mark.parametrize("latent_in_d", [True, False])
def test_the_latent_term_shrinks_the_discriminators_distance(pictures: Tensor, latent_in_d: bool) -> None:
    """Only with it does D's loss depend on where reconstructions lie among D's features, but through its answer."""
    detector = tiny(latent_in_d=latent_in_d).eval()
    detector.discriminator.last.weight.data.zero_()  # the answer says nothing
    detector.reconstructor_loss(pictures)
    detector.discriminator_loss(pictures).backward()
    grads = [p.grad for p in detector.discriminator.encoder.parameters()]
    assert any(grad is not None and grad.any() for grad in grads) == latent_in_d


@pytest.mark.parametrize("weight", [0.9, 0.0, 1.0])
def test_score_and_map_by_hand(pictures: Tensor, weight: float) -> None:
    detector = tiny(residual_weight=weight).eval()
    score, anomaly_map, reconstruction = detector.predict(pictures)[:3]
    x_hat = detector.reconstructor(pictures)
    pixel = (pictures[3] - x_hat[3]).square().mean()
    feature = (detector.discriminator(pictures)[1][3] - detector.discriminator(x_hat)[1][3]).square().mean()
    torch.testing.assert_close(score[3], weight * pixel + (1 - weight) * feature)
    torch.testing.assert_close(anomaly_map, (pictures - x_hat).abs())
    torch.testing.assert_close(reconstruction, x_hat)


def test_colour_maps_have_one_channel() -> None:
    prediction = tiny(in_channels=3).eval().predict(torch.randn(2, 3, 32, 32).tanh())
    assert prediction.anomaly_map is not None
    assert prediction.anomaly_map.shape == (2, 1, 32, 32)
