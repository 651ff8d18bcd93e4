"""adGAN: images generated in all stages of a Wasserstein GAN serve as counterfeit anomalies to train a second critic.

Shen, Chen, Wang, Zhang 2020, IEEE Access 8; equation and algorithm numbers are theirs. Their single critic, which is
reset or kept between the phases, is two networks here: `critic` trains the generator, `judge` is trained against the
fake pool and gives the score.
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
        patch_size: height and width of the image, equal, a power of two >= 8.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        n_critic: critic steps per iteration of `gan`, each on a fresh mini-batch.
        gp_weight: lambda, weight of the gradient penalty in both phases.
        critic_start: initial weights of the judge: random (`scratch`, the paper's adGAN) or the critic's (`carry`, its
            adGAN(c)). Its optimiser starts afresh either way.
        concentration_weight: alpha, weight of the spread of the judge's outputs over a mini-batch of real images.
        gan_iterations: N, length of the first phase.
        critic_iterations: M, length of the second phase.
        lr: learning rate of all networks.
        lr_judge: learning rate of the judge; None for `lr`.
        cooldown: final fraction of the second phase over which the judge's learning rate falls linearly to 0.
        augment_d: augmentation of all images the critic or the judge sees in training.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.AdGAN(patch_size=(32, 32), width=4, latent_dim=8)
        >>> for phase in detector.phases():
        ...     print(phase.name, phase.iterations, phase.networks)
        gan 200000 ('generator', 'critic')
        critic 150000 ('judge',)
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

    @property
    def couples_batch(self) -> bool:
        """The spread of the judge's outputs is that of a mini-batch (eq. 2)."""
        return super().couples_batch or self.settings.concentration_weight > 0

    def gan_step(self, batches: Tensor) -> None:
        """Take one critic step on each mini-batch of [n_critic, B, C, H, W], then one generator step."""
        for real in batches:  # algorithm 1, lines 2-6 with eq. 1
            self.step_optimizer("critic", self.critic_loss, real)
        self.step_optimizer("generator", self.generator_loss, real)  # lines 7-9; the callback `fakepool` does 10-12

    def critic_step(self, batches: Tensor) -> None:
        """Take one step of the judge on each mini-batch of [1, B, C, H, W]."""
        # Algorithm 1, line 15: reset or carry over the critic. ≠ paper: once, before the loop, as its text says.
        if self.settings.critic_start == "carry" and self.iterations_done == self.settings.gan_iterations:
            self.judge.load_state_dict(self.critic.state_dict())
        for group in self._optimizer("judge").param_groups:
            group["lr"] = self._lr_judge()
        for real in batches:  # algorithm 1, lines 16-18
            self.step_optimizer("judge", self.judge_loss, real)

    def _lr_judge(self) -> float:
        """Return the judge's current learning rate.

        ≠ paper, where it is constant: after few iterations, the noise of the last steps would remain in the scores.
        """
        p = self.settings
        remaining = (p.gan_iterations + p.critic_iterations - self.iterations_done) / max(1, p.critic_iterations)
        rate: float = p.lr if p.lr_judge is None else p.lr_judge
        return rate * min(1.0, remaining / p.cooldown) if p.cooldown else rate

    def judge_loss(self, real: Tensor) -> Tensor:
        """Return the judge's loss on real images [B, C, H, W] and as many images of the pool (eq. 2).

        Raises:
            UserError: there is no pool.
        """
        if self.pool is None:
            raise UserError("adGAN's phase critic needs a fake pool: give the experiment the callback fakepool")
        real, fake = self.augmented(real), self.augmented(self.pool.draw(len(real), self.device))
        loss, score, distance, penalty = self.critic_losses(self.judge, real, fake)  # eq. 1, x̃ from the pool
        spread = concentration(score)  # eq. 3
        terms = {"judge": distance, "judge_penalty": penalty, "concentration": spread}
        self.track({f"train/{name}": term for name, term in terms.items()})
        total: Tensor = loss + self.settings.concentration_weight * spread  # eq. 2
        return total

    def discriminator_output(self, image: Tensor) -> Tensor:
        in_second_phase = self.iterations_done > self.settings.gan_iterations
        score: Tensor = self.judge(image) if in_second_phase else self.critic(image)
        return score

    def predict(self, image: Tensor) -> Prediction:
        """Score: minus the judge's output."""
        with torch.no_grad():
            return Prediction(-self.judge(image))
