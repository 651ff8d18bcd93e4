"""What is particular to the DCGAN whose discriminator is the detector."""

import torch
import torch.nn.functional as F
from toys import Fit, Toy

from anomaly_lab.detectors.dcgan import DCGAN

TOY = Toy({"width": 8, "latent_dim": 16, "gan_iterations": 300, "lr": 0.001})


def tiny() -> DCGAN:
    torch.manual_seed(0)
    return DCGAN(patch_size=(32, 32), width=2, latent_dim=8, gan_iterations=3)


def test_losses_by_hand(pictures: torch.Tensor) -> None:
    detector, n = tiny().eval(), len(pictures)
    losses = []
    for loss in (detector.discriminator_loss, detector.generator_loss):
        torch.manual_seed(3)
        losses.append(loss(pictures))
    torch.manual_seed(3)
    real, fake = detector.discriminator(pictures), detector.discriminator(detector.sample(n))
    cross_entropy = F.binary_cross_entropy_with_logits
    expected = cross_entropy(real, torch.ones(n)) + cross_entropy(fake, torch.zeros(n))
    torch.testing.assert_close(losses[0], expected)
    torch.testing.assert_close(losses[1], cross_entropy(fake, torch.ones(n)))


def test_the_score_is_minus_the_logit_of_real(pictures: torch.Tensor) -> None:
    detector = tiny().eval()
    torch.testing.assert_close(detector.predict(pictures).anomaly_score, -detector.discriminator(pictures))


def test_both_networks_move_once_an_iteration(fit: Fit, pictures: torch.Tensor) -> None:
    detector = fit(tiny(), pictures)
    assert [next(iter(opt.state.values()))["step"].item() for opt in detector.optimizers()] == [3, 3]
