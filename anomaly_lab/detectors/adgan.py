"""adGAN: a Wasserstein GAN's samples of all its stages are counterfeit anomalies for a second critic.

Shen, Chen, Wang, Zhang 2020, IEEE Access 8. Their one critic, reset or kept between the phases, is two networks here:
`critic` teaches the generator, `judge` is the one that is trained against the pool and scores.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.fake_pool import Pool
from anomaly_lab.detectors.families.gan import WassersteinDetector
from anomaly_lab.losses.concentration import concentration
from anomaly_lab.networks.adgan import AdGANCritic, AdGANGenerator
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.types import (
    Channels,
    CodeLength,
    Fraction,
    Iterations,
    Phase,
    Prediction,
    Range,
    Rate,
    Square,
    UserError,
    Weight,
    Width,
)


class AdGAN(WassersteinDetector):
    """Two phases: `gan` trains generator and critic as a WGAN-GP, `critic` trains the judge against the fake pool.

    The callback `fakepool` fills the pool during `gan` and sets `pool`.

    Args:
        patch_size: side of the square image, a power of two >= 8, twice.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        n_critic: critic steps an iteration of `gan`, each on a fresh mini-batch.
        gp_weight: lambda of the gradient penalty, in both phases.
        critic_start: the judge begins with fresh weights (`scratch`, the paper's adGAN) or with the critic's (`carry`,
            its adGAN(c)); with a fresh optimiser either way.
        concentration_weight: alpha, of the spread of the judge's outputs over a mini-batch of real images.
        gan_iterations: length of the first phase.
        critic_iterations: length of the second phase.
        lr: learning rate of all networks.
        lr_judge: of the judge, if it is to differ.
        cooldown: fraction of the second phase at whose end the judge's learning rate falls to 0 in a straight line.
        augment_d: what is done to all images the critic or the judge sees, in training.
    """

    networks = ("generator", "critic", "judge")
    pool: Pool | None = None

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8)] = (32, 32),
        in_channels: Channels = 1,
        width: Width = 64,
        latent_dim: CodeLength = 128,
        n_critic: Annotated[int, Range("[1, 1000]")] = 5,
        gp_weight: Weight = 10.0,
        critic_start: Literal["scratch", "carry"] = "scratch",
        concentration_weight: Weight = 1.0,
        gan_iterations: Iterations = 200_000,
        critic_iterations: Iterations = 150_000,
        lr: Rate = 1e-4,
        lr_judge: Rate | None = None,
        cooldown: Fraction = 0.0,
        augment_d: AugmentD = "none",
    ) -> None:
        super().__init__(augment_d)
        self.save_hyperparameters()
        self.generator = AdGANGenerator(latent_dim, in_channels, patch_size, width)
        self.critic = AdGANCritic(in_channels, patch_size, width)
        self.judge = AdGANCritic(in_channels, patch_size, width)

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        return (
            Phase("gan", p.gan_iterations, ("generator", "critic"), minibatches=p.n_critic),
            Phase("critic", p.critic_iterations, ("judge",)),
        )

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        rates = {self.generator: self.settings.lr, self.critic: self.settings.lr, self.judge: self._lr_judge()}
        return tuple(Adam(network.parameters(), rate, betas=(0.0, 0.9)) for network, rate in rates.items())

    def gan_step(self, batches: Tensor) -> None:
        """The critic moves once on each mini-batch of [n_critic, B, C, H, W], then the generator once."""
        for real in batches:
            self.step_optimizer("critic", self.critic_loss, real)
        self.step_optimizer("generator", self.generator_loss, real)

    def critic_step(self, batches: Tensor) -> None:
        """The judge moves once on each mini-batch of [1, B, C, H, W]."""
        if self.settings.critic_start == "carry" and self.iterations_done == self.settings.gan_iterations:
            self.judge.load_state_dict(self.critic.state_dict())
        for group in self._optimizer("judge").param_groups:
            group["lr"] = self._lr_judge()
        for real in batches:
            self.step_optimizer("judge", self.judge_loss, real)

    def _lr_judge(self) -> float:
        """≠ paper, where it is the same throughout: on few iterations its noise would stay in the scores."""
        p = self.settings
        left = (p.gan_iterations + p.critic_iterations - self.iterations_done) / max(1, p.critic_iterations)
        rate: float = p.lr if p.lr_judge is None else p.lr_judge
        return rate * min(1.0, left / p.cooldown) if p.cooldown else rate

    def judge_loss(self, real: Tensor) -> Tensor:
        """The critic's loss against as many images of the pool, and alpha · spread over real [B, C, H, W] (eq. 2).

        Raises:
            UserError: there is no pool.
        """
        if self.pool is None:
            raise UserError("adGAN's phase critic needs a fake pool: give the experiment the callback fakepool")
        real, fake = self.augmented(real), self.augmented(self.pool.draw(len(real)).to(self.device))
        loss, score, distance, penalty = self.critic_losses(self.judge, real, fake)
        spread = concentration(score)
        terms = {"judge": distance, "judge_penalty": penalty, "concentration": spread}
        self.track({f"train/{name}": term for name, term in terms.items()})
        total: Tensor = loss + self.settings.concentration_weight * spread
        return total

    def discriminator_output(self, image: Tensor) -> Tensor:
        judged = self.iterations_done > self.settings.gan_iterations
        score: Tensor = self.judge(image) if judged else self.critic(image)
        return score

    def predict(self, image: Tensor) -> Prediction:
        """Score: minus the judge's opinion."""
        with torch.no_grad():
            return Prediction(-self.judge(image))
