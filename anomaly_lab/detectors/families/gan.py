"""What GAN detectors share: what a discriminator is shown and how it is watched, noise, the losses of a WGAN-GP.

The order of a step stays in each detector's file.
"""

import torch
from torch import Tensor, nn

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.losses.adversarial import wasserstein_critic_loss, wasserstein_generator_loss
from anomaly_lab.losses.gradient_penalty import gradient_penalty
from anomaly_lab.networks import augmentation
from anomaly_lab.networks.augmentation import ADA, AugmentD
from anomaly_lab.types import Batch

ADAPT_EVERY = 4  # iterations between two moves of an adaptive augmentation


class GANDetector(Detector):
    """A detector with a discriminator, which sees `augmented` images only, real and fake, in both networks' losses.

    Args:
        augment_d: what is done to them.
    """

    def __init__(self, augment_d: AugmentD = "none") -> None:
        super().__init__()
        self.augmentation = augmentation.make(augment_d)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        phase = self.phase
        super().training_step(batch, batch_idx)
        if self.iterations_done % ADAPT_EVERY == 0:
            self._adapt(ADAPT_EVERY / phase.iterations)

    def augmented(self, image: Tensor) -> Tensor:
        """Images [B, C, H, W] as the discriminator is to see them."""
        return self.augmented_alike(image)[0]

    def augmented_alike(self, *images: Tensor) -> tuple[Tensor, ...]:
        """The same of several, row i of each by the same draws: for a loss that compares an image with its copy."""
        changed: tuple[Tensor, ...] = self.augmentation(*images)
        return changed

    def track_discriminator(self, real: Tensor, fake: Tensor | None = None) -> None:
        """Note how sure the discriminator is of real images; an adaptive augmentation follows it.

        Args:
            real: its outputs [B] for augmented real images, as a loss of its own has them; logits.
            fake: of a Wasserstein critic, whose zero means nothing, its outputs for fakes as well: the middle between
                the two means stands for zero (≠ paper, whose discriminator gives logits).
        """
        with torch.no_grad():
            middle = 0.0 if fake is None else (real.float().mean() + fake.float().mean()) / 2
            signs = (real.float() - middle).sign()
            self.augmentation.track(signs)
        self.track({"train/sign_real": signs.mean()})

    def _adapt(self, share: float) -> None:
        """Let the augmentation follow what was watched on all ranks."""
        if isinstance(self.augmentation, ADA):
            if self.trainer.world_size > 1:
                self.augmentation.seen.copy_(self.trainer.strategy.reduce(self.augmentation.seen, reduce_op="sum"))
            self.augmentation.adapt(share)
            self.track({"train/augment_p": self.augmentation.p.clone()})


class GenerativeDetector(GANDetector):
    """One whose `generator` draws images of noise; it has the setting `latent_dim`."""

    generator: nn.Module

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Z ~ N(0, 1), [n, latent_dim]."""
        device = generator.device if generator else self.device
        return torch.randn(n, self.settings.latent_dim, generator=generator, device=device).to(self.device)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        image: Tensor = self.generator(self.noise(n, generator))
        return image


class WassersteinDetector(GenerativeDetector):
    """One with a `critic` and the losses of a WGAN-GP (Gulrajani et al. 2017); it has the setting `gp_weight`."""

    critic: nn.Module

    def critic_loss(self, real: Tensor) -> Tensor:
        """Wasserstein loss and gradient penalty against as many fresh fakes; real: [B, C, H, W]."""
        return self.critic_terms(real)[0]

    def critic_terms(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """The critic's loss on images [B, C, H, W], and what it says of them, [B]."""
        with torch.no_grad():
            fake = self.augmented(self.generator(self.noise(len(real))))
        loss, score, distance, penalty = self.critic_losses(self.critic, self.augmented(real), fake)
        self.track({"train/critic": distance, "train/wasserstein": -distance, "train/penalty": penalty})
        return loss, score

    def critic_losses(self, critic: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of a critic that is to tell images from fakes, [B, C, H, W] both, augmented.

        Returns:
            Its loss, distance + lambda · penalty; what it says of `real`, [B]; the distance; the penalty.
        """
        score, fake_score = critic(real), critic(fake)
        distance = wasserstein_critic_loss(score, fake_score)
        self.track_discriminator(score, fake_score)
        penalty = gradient_penalty(critic, real, fake)
        return distance + self.settings.gp_weight * penalty, score, distance, penalty

    def generator_loss(self, real: Tensor) -> Tensor:
        """Minus the critic's opinion of as many fakes as there are images in `real`, [B, C, H, W]."""
        loss = wasserstein_generator_loss(self.critic(self.augmented(self.generator(self.noise(len(real))))))
        self.track({"train/generator": loss})
        return loss

    def discriminator_output(self, image: Tensor) -> Tensor:
        score: Tensor = self.critic(image)
        return score
