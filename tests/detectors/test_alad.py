"""What is particular to ALAD."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import Fit, Toy

from anomaly_lab.detectors.alad import ALAD
from anomaly_lab.networks.augmentation import Augmentation

TOY = Toy({"width": 8, "latent_dim": 4, "gan_iterations": 300, "lr": 0.001, "average_decay": 0.98}, batch_size=8)


def tiny(**changes: object) -> ALAD:
    torch.manual_seed(0)
    sizes = {"patch_size": (32, 32), "width": 4, "latent_dim": 8, "gan_iterations": 2}
    return ALAD(**{**sizes, **changes})


def real(logit: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logit, torch.ones_like(logit))


def fake(logit: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logit, torch.zeros_like(logit))


class Negative(Augmentation):
    """Black for white."""

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return tuple(-image for image in images)


@pytest.mark.parametrize(("augmentation", "sign"), [(Augmentation(), 1), (Negative(), -1)])
def test_losses_by_hand(pictures: Tensor, augmentation: Augmentation, sign: int) -> None:
    """Three games; G and E play their side of the first one and both of the cycles. Only judges see negatives."""
    d = tiny().eval()
    d.augmentation = augmentation
    for loss in (d.discriminators_loss, d.generator_loss, d.encoder_loss):
        torch.manual_seed(3)
        found = loss(pictures)
        torch.manual_seed(3)
        z = torch.randn(len(pictures), 8)
        code, x = d.encoder(pictures), d.generator(z)
        x_hat, z_hat, judges = d.generator(code), d.encoder(x), d.discriminators
        encoded, generated = judges.pairs(sign * pictures, code), judges.pairs(sign * x, z)
        shown = sign * pictures
        same_x, other_x = judges.images(shown, shown), judges.images(shown, sign * x_hat)
        same_z, other_z = judges.codes(z, z), judges.codes(z, z_hat)
        cycles = real(other_x) + real(other_z)
        expected = {
            d.discriminators_loss: real(encoded)
            + fake(generated)
            + real(same_x)
            + fake(other_x)
            + real(same_z)
            + fake(other_z),
            d.generator_loss: real(generated) + cycles,
            d.encoder_loss: fake(encoded) + cycles,
        }[loss]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["generator", "encoder"])
def test_the_cycles_reach_generator_and_encoder(pictures: Tensor, name: str) -> None:
    """Both take part in G(E(x)) and E(G(z)), whoever of the two moves."""
    detector = tiny()
    getattr(detector, f"{name}_loss")(pictures).backward()
    for each in ("generator", "encoder"):
        assert all(weight.grad is not None for weight in detector.get_submodule(each).parameters())


def test_the_discriminators_teach_themselves_alone(pictures: Tensor) -> None:
    detector = tiny()
    detector.discriminators_loss(pictures).backward()
    assert all(weight.grad is not None for weight in detector.discriminators.parameters())
    for each in ("generator", "encoder"):
        assert all(weight.grad is None for weight in detector.get_submodule(each).parameters())


def test_one_step_each(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(), pictures)
    assert [next(iter(opt.state.values()))["step"].item() for opt in detector.optimizers()] == [2, 2, 2]


@pytest.mark.parametrize("pairing", ["channels", "height"])
def test_scores_by_hand(pictures: Tensor, pairing: str) -> None:
    detector = tiny(pairing=pairing).eval()
    x_hat = detector.generator(detector.encoder(pictures))  # before training the averages are the networks
    images, error = detector.discriminators.images, (pictures - x_hat).flatten(1)
    features = images.features(pictures, pictures) - images.features(pictures, x_hat)
    expected = {
        "fm": features.abs().sum(1),
        "logits": -images(pictures, x_hat),
        "l1": error.abs().sum(1),
        "l2": error.square().sum(1).sqrt(),
    }
    for kind, by_hand in expected.items():
        detector.hparams.score = kind
        score, anomaly_map, reconstruction = detector.predict(pictures)[:3]
        torch.testing.assert_close(score, by_hand, rtol=1e-5, atol=1e-5)  # sums of a thousand numbers
        torch.testing.assert_close(anomaly_map, (pictures - x_hat).abs())
        torch.testing.assert_close(reconstruction, x_hat)


def test_the_averages_judge(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(), pictures).eval()
    score = detector.predict(pictures).anomaly_score
    for name in detector.networks:
        for weight in detector.get_submodule(name).parameters():
            torch.nn.init.zeros_(weight)
    assert torch.equal(detector.predict(pictures).anomaly_score, score)


def test_trains_in_reduced_precision(fit: Fit, pictures: Tensor) -> None:
    """Spectral norm's power iteration included."""
    detector = fit(tiny(), pictures, precision="bf16-mixed")
    assert detector.score({"image": pictures}).anomaly_score.isfinite().all()


def test_without_spectral_norm(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(spectral=False), pictures)
    assert not any("parametrizations" in key for key in detector.state_dict())
    assert any("parametrizations" in key for key in tiny().state_dict())
