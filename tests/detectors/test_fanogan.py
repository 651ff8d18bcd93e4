"""What is particular to f-AnoGAN."""

import copy
from typing import Literal

import pytest
import torch
from torch import Tensor
from toys import Fit, Toy

from anomaly_lab.detectors.fanogan import FAnoGAN
from anomaly_lab.detectors.wgan import WGAN

TOY = Toy(
    {
        "width": 4,
        "latent_dim": 16,
        "n_critic": 1,
        "gan_iterations": 50,
        "encoder_iterations": 150,
        "lr_gan": 0.0005,
        "lr_encoder": 0.001,
    },
    at_least=0.75,
    why="AUROC .90 to 1.0 over five seeds",
)

SIZE = (32, 32)


def tiny(**changes: object) -> FAnoGAN:
    torch.manual_seed(0)
    arguments = {"patch_size": SIZE, "width": 4, "latent_dim": 8, "n_critic": 2, "gan_iterations": 2}
    return FAnoGAN(**{**arguments, "encoder_iterations": 3, **changes})


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Networks of which a weight or buffer changed."""
    return {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} - {"iteration"}


def test_each_phase_moves_its_own_networks(fit: Fit, pictures: Tensor) -> None:
    detector = tiny()
    start = copy.deepcopy(detector.state_dict())
    between = copy.deepcopy(fit(tiny(), pictures, iterations=2).state_dict())
    assert moved(start, between) == {"generator", "critic"}
    end = fit(tiny(), pictures).state_dict()
    # weights and buffers of generator and critic are bit-identical before and after the encoder phase
    assert moved(between, end) == {"encoder"}


@pytest.mark.parametrize("encoder_training", ["izi", "izif", "ziz"])
def test_every_encoder_training_moves_the_encoder_alone(
    fit: Fit, pictures: Tensor, encoder_training: Literal["izi", "izif", "ziz"]
) -> None:
    detector = tiny(encoder_training=encoder_training, gan_iterations=0)
    start = copy.deepcopy(detector.state_dict())
    assert moved(start, fit(detector, pictures).state_dict()) == {"encoder"}


def test_encoder_losses_by_hand(pictures: Tensor) -> None:
    detector = tiny(kappa=3.0).eval()
    x_hat = detector.generator(detector.encoder(pictures))
    pixel = torch.nn.functional.mse_loss(x_hat, pictures)
    feature = torch.nn.functional.mse_loss(detector.critic.features(x_hat), detector.critic.features(pictures))
    for training, expected in (("izi", pixel), ("izif", pixel + 3 * feature)):
        detector.hparams.encoder_training = training
        torch.testing.assert_close(detector.encoder_loss(pictures), expected)
    detector.hparams.encoder_training = "ziz"
    torch.manual_seed(5)
    loss = detector.encoder_loss(pictures)
    torch.manual_seed(5)
    z = torch.randn(len(pictures), 8)
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(detector.encoder(detector.generator(z)), z))


def test_critic_loss_by_hand(pictures: Tensor) -> None:
    detector = tiny(gp_weight=7.0).eval()
    torch.manual_seed(3)
    loss = detector.critic_loss(pictures)
    torch.manual_seed(3)
    fake = detector.generator(torch.randn(len(pictures), 8)).detach()
    t = torch.rand(len(pictures), 1, 1, 1)
    between = (pictures + t * (fake - pictures)).requires_grad_(True)
    (slope,) = torch.autograd.grad(detector.critic(between).sum(), between)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    expected = detector.critic(fake).mean() - detector.critic(pictures).mean() + 7 * penalty
    torch.testing.assert_close(loss, expected)


def test_generator_descends_minus_the_critics_opinion(pictures: Tensor) -> None:
    detector = tiny().eval()
    torch.manual_seed(3)
    loss = detector.generator_loss(pictures)
    torch.manual_seed(3)
    expected = -detector.critic(detector.generator(torch.randn(len(pictures), 8))).mean()
    torch.testing.assert_close(loss, expected)


def test_score_and_map_by_hand(pictures: Tensor) -> None:
    detector = tiny(kappa=2.0).eval()
    score, anomaly_map, reconstruction = detector.predict(pictures)[:3]
    x_hat = detector.generator(detector.encoder(pictures))
    one = pictures[3] - x_hat[3]
    features = detector.critic.features(pictures) - detector.critic.features(x_hat)
    torch.testing.assert_close(score[3], one.square().mean() + 2 * features[3].square().mean())
    assert anomaly_map is not None
    torch.testing.assert_close(anomaly_map[3], one.abs())
    torch.testing.assert_close(reconstruction, x_hat)


def test_colour_maps_have_one_channel() -> None:
    detector = tiny(in_channels=3).eval()
    prediction = detector.predict(torch.randn(2, 3, *SIZE).tanh())
    assert prediction.anomaly_map is not None
    assert prediction.anomaly_map.shape == (2, 1, *SIZE)


def test_five_critic_steps_to_one_generator_step(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(n_critic=5), pictures, iterations=2)
    steps = [next(iter(opt.state.values()))["step"].item() for opt in detector.optimizers()[:2]]
    assert steps == [2, 10]


def test_with_adgans_networks_it_starts_from_a_wgans(pictures: Tensor) -> None:
    """Same names and shapes, and the same scores as by hand."""
    sizes = {"patch_size": (32, 32), "width": 2, "latent_dim": 8}
    wgan, detector = WGAN(**sizes), FAnoGAN(**sizes, backbone="adgan")
    for name in ("generator", "critic"):
        detector.get_submodule(name).load_state_dict(wgan.get_submodule(name).state_dict())
    detector.eval()
    found = detector.predict(pictures)
    assert found.reconstruction is not None
    torch.testing.assert_close(found.reconstruction, detector.generator(detector.encoder(pictures)))
    assert detector.encoder(pictures).abs().max() <= 1
    pixel = (pictures - found.reconstruction).square().mean((1, 2, 3))
    feature = (detector.critic.features(pictures) - detector.critic.features(found.reconstruction)).square().mean(1)
    torch.testing.assert_close(found.anomaly_score, pixel + feature)
