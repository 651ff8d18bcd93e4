"""What is particular to EGBAD."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import Fit, Toy

from anomaly_lab.detectors.egbad import EGBAD
from anomaly_lab.networks.augmentation import Augmentation

TOY = Toy(
    {"width": 8, "latent_dim": 4, "gan_iterations": 400, "lr": 0.001, "average_decay": 0.98},
    batch_size=32,
    at_least=0.75,
    why="AUROC .89 to .99 over five seeds",
)


def tiny(**changes: object) -> EGBAD:
    torch.manual_seed(0)
    sizes = {"patch_size": (32, 32), "width": 4, "latent_dim": 8, "gan_iterations": 2}
    return EGBAD(**{**sizes, **changes})


class Negative(Augmentation):
    """Black for white."""

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return tuple(-image for image in images)


@pytest.mark.parametrize(("augmentation", "sign"), [(Augmentation(), 1), (Negative(), -1)])
def test_losses_by_hand(pictures: Tensor, augmentation: Augmentation, sign: int) -> None:
    """Pairs (x, E(x)) are D's ones, pairs (G(z), z) its noughts; G and E want the reverse. D alone sees negatives."""
    d = tiny().eval()
    d.augmentation = augmentation
    cross_entropy, ones = F.binary_cross_entropy_with_logits, torch.ones(len(pictures))
    for loss in (d.discriminator_loss, d.generator_loss, d.encoder_loss):
        torch.manual_seed(3)
        found = loss(pictures)
        torch.manual_seed(3)
        z = torch.randn(len(pictures), 8)
        encoded = d.discriminator(sign * pictures, d.encoder(pictures))
        generated = d.discriminator(sign * d.generator(z), z)
        expected = {
            d.discriminator_loss: cross_entropy(encoded, ones) + cross_entropy(generated, 0 * ones),
            d.generator_loss: cross_entropy(generated, ones),
            d.encoder_loss: cross_entropy(encoded, 0 * ones),
        }[loss]
        torch.testing.assert_close(found, expected)


def test_each_loss_reaches_its_own_network(pictures: Tensor) -> None:
    for name, others in (("generator", "encoder"), ("encoder", "generator")):
        detector = tiny()
        getattr(detector, f"{name}_loss")(pictures).backward()
        assert all(weight.grad is not None for weight in detector.get_submodule(name).parameters())
        assert all(weight.grad is None for weight in detector.get_submodule(others).parameters())


def test_an_iteration_by_hand(fit: Fit, pictures: Tensor) -> None:
    """One step of each network; D's on the first mini-batch, the others' on the second."""
    seen: dict[str, Tensor] = {}

    class Watched(EGBAD):
        def step_optimizer(self, network: str, loss: object, batch: Tensor) -> None:
            seen[network] = batch
            super().step_optimizer(network, loss, batch)

    detector = fit(Watched(patch_size=(32, 32), width=4, latent_dim=8, gan_iterations=2), pictures)
    assert list(seen) == ["discriminator", "generator", "encoder"]
    assert seen["generator"] is seen["encoder"]
    assert not torch.equal(seen["discriminator"], seen["generator"])
    assert [next(iter(opt.state.values()))["step"].item() for opt in detector.optimizers()] == [2, 2, 2]


def test_scores_by_hand(pictures: Tensor) -> None:
    detector = tiny(discriminator_weight=0.3).eval()
    z = detector.encoder(pictures)  # before training the averages are the networks
    x_hat = detector.generator(z)
    error, d = (pictures - x_hat).abs().sum((1, 2, 3)), detector.discriminator
    features = (d.features(pictures, z) - d.features(x_hat, z)).abs().sum(1)
    falseness = F.binary_cross_entropy_with_logits(d(x_hat, z), torch.ones(len(z)), reduction="none")
    for kind, judged in (("fm", features), ("cross_entropy", falseness)):
        detector.hparams.discriminator_score = kind
        score, anomaly_map, reconstruction = detector.predict(pictures)[:3]
        torch.testing.assert_close(
            score, 0.7 * error + 0.3 * judged, rtol=1e-5, atol=1e-4
        )  # sums of a thousand numbers
        torch.testing.assert_close(anomaly_map, (pictures - x_hat).abs())
        torch.testing.assert_close(reconstruction, x_hat)


def test_the_averages_judge_and_draw(fit: Fit, pictures: Tensor) -> None:
    """Spoiling a trained network changes neither scores nor samples; spoiling its average does."""
    detector = fit(tiny(), pictures).eval()
    score = detector.predict(pictures).anomaly_score
    fake = detector.sample(4, torch.Generator().manual_seed(1))
    for weight in detector.get_submodule("generator").parameters():
        torch.nn.init.normal_(weight)
    assert torch.equal(detector.predict(pictures).anomaly_score, score)
    assert torch.equal(detector.sample(4, torch.Generator().manual_seed(1)), fake)
    for weight in detector.averages["generator"].parameters():
        torch.nn.init.normal_(weight)
    assert not torch.equal(detector.predict(pictures).anomaly_score, score)


def test_the_averages_lag_by_their_decay(fit: Fit, pictures: Tensor) -> None:
    """After two iterations: decay · the weights after the first + (1 - decay) · those after the second."""
    first = copy.deepcopy(fit(tiny(average_decay=0.75), pictures, iterations=1).encoder.last.weight)
    detector = fit(tiny(average_decay=0.75), pictures)
    expected = 0.75 * first + 0.25 * detector.encoder.last.weight
    torch.testing.assert_close(detector.averages["encoder"].last.weight, expected)
