"""What is particular to GANomaly."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import Fit, Toy

from anomaly_lab.detectors.ganomaly import GANomaly

TOY = Toy({"width": 8, "latent_dim": 32, "gan_iterations": 200, "lr": 0.001})


def tiny(**changes: object) -> GANomaly:
    torch.manual_seed(0)
    arguments = {"patch_size": (32, 32), "width": 4, "latent_dim": 6, "gan_iterations": 4}
    return GANomaly(**{**arguments, **changes})


@pytest.mark.parametrize("variant", ["paper", "official", "anomalib"])
def test_losses_by_hand(pictures: Tensor, variant: str) -> None:
    detector = tiny(variant=variant, reconstruction_weight=7.0).eval()
    found = detector.reconstructor_loss(pictures)
    reconstruction, z_hat, z = detector.reconstructor(pictures)
    (real, f), (fake, f_hat) = detector.discriminator(pictures), detector.discriminator(reconstruction)
    if variant == "paper":
        latent, deceit = ((a - b).norm(dim=1).mean() / a.shape[1] ** 0.5 for a, b in ((z, z_hat), (f, f_hat)))
    elif variant == "official":
        latent, deceit = F.mse_loss(z_hat, z), F.mse_loss(f_hat, f)
    else:
        latent, deceit = F.smooth_l1_loss(z_hat, z), F.mse_loss(fake.sigmoid(), real.sigmoid())
    torch.testing.assert_close(found, deceit + 7 * F.l1_loss(reconstruction, pictures) + latent, atol=2e-6, rtol=1e-4)
    probability, ones = torch.cat([real, fake]).sigmoid(), torch.ones(len(pictures))
    expected = F.binary_cross_entropy(probability, torch.cat([ones, 0 * ones]))  # of both halves: half of each
    torch.testing.assert_close(detector.discriminator_loss(pictures), expected)


def test_the_discriminator_is_taught_the_reconstructions_of_before(fit: Fit, pictures: Tensor) -> None:
    """Its gradient is of the weights that both networks had when the iteration began."""
    detector, twin = tiny(), tiny().train()
    fit(detector, pictures, iterations=1)
    batch = pictures[torch.randint(len(pictures), (1, 4), generator=torch.Generator().manual_seed(0))][0]
    reconstruction = twin.reconstructor(batch)[0].detach()
    real, fake = twin.discriminator(batch)[0], twin.discriminator(reconstruction)[0]
    ones = torch.ones(4)
    loss = F.binary_cross_entropy_with_logits(torch.cat([real, fake]), torch.cat([ones, 0 * ones]))
    optimizer = twin.configure_optimizers()[1]
    loss.backward()
    optimizer.step()
    for found, expected in zip(detector.discriminator.parameters(), twin.discriminator.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("score_norm", ["l1", "l2"])
def test_score_and_map_by_hand(pictures: Tensor, score_norm: str) -> None:
    detector = tiny(score_norm=score_norm).eval()
    score, anomaly_map, reconstruction = detector.predict(pictures)[:3]
    x_hat, z_hat, z = detector.reconstructor(pictures)
    difference = z[3] - z_hat[3]
    torch.testing.assert_close(score[3], difference.square().mean() if score_norm == "l2" else difference.abs().mean())
    torch.testing.assert_close(anomaly_map, (pictures - x_hat).abs())
    torch.testing.assert_close(reconstruction, x_hat)


def test_colour_maps_have_one_channel() -> None:
    prediction = tiny(in_channels=3).eval().predict(torch.randn(2, 3, 32, 32).tanh())
    assert prediction.anomaly_map is not None
    assert prediction.anomaly_map.shape == (2, 1, 32, 32)


def test_channels_can_be_capped() -> None:
    assert tiny(width=8).reconstructor.encoder.last.in_channels == 32
    assert tiny(width=8, channel_cap=16).reconstructor.encoder.last.in_channels == 16


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        tiny(patch_size=(48, 48))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "anomalib"])
def test_every_variant_solves_the_toy_problem(tmp_path: Path, variant: str) -> None:
    """The contract asks the official one."""
    torch.manual_seed(0)
    assert TOY.auroc(GANomaly((32, 32), **TOY.settings, variant=variant), tmp_path) >= 0.7
