"""What is particular to the WGAN whose critic is the detector."""

import torch
from toys import Fit, Toy

from anomaly_lab.detectors.wgan import WGAN

TOY = Toy(
    {"width": 8, "latent_dim": 16, "n_critic": 2, "gan_iterations": 200, "lr": 0.001},
    batch_size=32,
    at_least=0.7,
    why="AUROC .81 to 1.0 over five seeds",
)


def tiny(**changes: object) -> WGAN:
    torch.manual_seed(0)
    sizes = {"patch_size": (32, 32), "width": 2, "latent_dim": 8, "n_critic": 2, "gan_iterations": 2}
    return WGAN(**{**sizes, **changes})


def test_critic_loss_by_hand(pictures: torch.Tensor) -> None:
    """Plain without a weight; of stdWGAN a population's standard deviation of the real outputs more."""
    loss = {}
    for weight in (0.0, 2.0):
        detector = tiny(concentration_weight=weight, gp_weight=7.0).eval()
        torch.manual_seed(3)
        loss[weight] = detector.critic_loss(pictures)
    torch.manual_seed(3)
    fake = detector.generator(torch.randn(len(pictures), 8)).detach()
    between = torch.lerp(pictures, fake, torch.rand(len(pictures), 1, 1, 1)).requires_grad_(True)
    (slope,) = torch.autograd.grad(detector.critic(between).sum(), between)
    score = detector.critic(pictures)
    plain = detector.critic(fake).mean() - score.mean() + 7 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(loss[0.0], plain)
    torch.testing.assert_close(loss[2.0], plain + 2 * score.std(correction=0))


def test_the_score_is_minus_the_critics_opinion(pictures: torch.Tensor) -> None:
    detector = tiny().eval()
    torch.testing.assert_close(detector.predict(pictures).anomaly_score, -detector.critic(pictures))


def test_so_many_critic_steps_to_one_generator_step(fit: Fit, pictures: torch.Tensor) -> None:
    detector = fit(tiny(n_critic=5), pictures, iterations=2)
    steps = [next(iter(opt.state.values()))["step"].item() for opt in detector.optimizers()]
    assert steps == [2, 10]
