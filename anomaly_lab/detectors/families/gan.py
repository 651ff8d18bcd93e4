"""Base classes of GAN detectors: augmentation and tracking of the discriminator, noise, the losses of a WGAN-GP.

The order of the optimiser steps stays in each detector's file.
"""

import math

import torch
from torch import Tensor, nn

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.losses.adversarial import wasserstein_critic_loss, wasserstein_generator_loss
from anomaly_lab.losses.gradient_penalty import HasSlope, gradient_penalty
from anomaly_lab.networks import augmentation
from anomaly_lab.networks.augmentation import ADA, AugmentD
from anomaly_lab.types import Batch

ADAPT_EVERY = 4  # iterations between two updates of an adaptive augmentation


class GANDetector(Detector):
    """A detector with a discriminator that sees only `augmented` images, real and fake, in the losses of both networks.

    Args:
        augment_d: augmentation of these images.
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
        """Return images [B, C, H, W] as the discriminator sees them."""
        return self.augmented_alike(image)[0]

    def augmented_alike(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Augment several batches, row i of each with the same draws: for losses that compare images with copies."""
        changed: tuple[Tensor, ...] = self.augmentation(*images)
        return changed

    def track_discriminator(self, real: Tensor, fake: Tensor | None = None) -> None:
        """Record how sure the discriminator is of real images, which an adaptive augmentation follows.

        Args:
            real: outputs [B] for augmented real images, as computed in the discriminator's loss; logits if `fake` is
                None.
            fake: outputs for fakes, if the discriminator is a Wasserstein critic. Its zero has no meaning; the midpoint
                of the two means takes its place (≠ paper, whose discriminator outputs logits).
        """
        with torch.no_grad():
            midpoint = 0.0 if fake is None else (real.float().mean() + fake.float().mean()) / 2
            signs = (real.float() - midpoint).sign()
            self.augmentation.track(signs)
        self.track({"train/sign_real": signs.mean()})

    def _adapt(self, share: float) -> None:
        """Update an adaptive augmentation from the signs tracked on all ranks."""
        if isinstance(self.augmentation, ADA):
            if self.trainer.world_size > 1:
                self.augmentation.seen.copy_(self.trainer.strategy.reduce(self.augmentation.seen, reduce_op="sum"))
            self.augmentation.adapt(share)
            self.track({"train/augment_p": self.augmentation.p.clone()})


class GenerativeDetector(GANDetector):
    """A GAN detector whose `generator` maps noise to images; it has the setting `latent_dim`."""

    generator: nn.Module

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw z ~ N(0, 1), [n, latent_dim]."""
        device = generator.device if generator else self.device
        return torch.randn(n, self.settings.latent_dim, generator=generator, device=device).to(self.device)

    def drawn(self, z: Tensor) -> Tensor:
        """Return the images [n, C, H, W] of noise vectors z [n, latent_dim], as samples show them."""
        image: Tensor = self.generator(z)
        return image

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.drawn(self.noise(n, generator))

    def between(self, z: Tensor, other: Tensor, steps: int) -> Tensor:
        """Draw the images on the way from each z to its other, both included: [n, latent_dim] -> [n · steps, C, H, W].

        The way is an arc, z cos φ + other sin φ, because every point of it is N(0, 1) as both ends are; the middle of a
        straight line is shorter than any vector that the generator has been trained on.
        """
        angle = torch.linspace(0, math.pi / 2, steps, dtype=torch.float64)  # so that cos π/2 vanishes in float32
        start, end = (weight.to(z)[None, :, None] for weight in (angle.cos(), angle.sin()))
        return self.drawn((start * z[:, None] + end * other[:, None]).flatten(0, 1))

    def style_mixtures(self, coarse: Tensor, fine: Tensor) -> Tensor | None:
        """Mix the styles of noise vectors, if the generator has styles; else None.

        Args:
            coarse: [m, latent_dim], of which the coarse styles are taken.
            fine: [n, latent_dim], of which all other styles are taken.

        Returns:
            [n · m, C, H, W]; image i · m + j is that of fine[i] and coarse[j].
        """
        return None


class WassersteinDetector(GenerativeDetector):
    """A detector with a `critic` and a WGAN-GP's losses (Gulrajani et al. 2017); it has the setting `gp_weight`."""

    critic: nn.Module

    @property
    def couples_batch(self) -> bool:
        """An adaptive augmentation follows the midpoint of the critic's means over a mini-batch."""
        return super().couples_batch or isinstance(self.augmentation, ADA)

    @property
    def uncompiled(self) -> tuple[str, ...]:  # type: ignore[override]  # an attribute elsewhere
        """The critic whose gradient comes from autograd, since the penalty differentiates that again."""
        return () if isinstance(self.critic, HasSlope) else ("critic",)

    def critic_loss(self, real: Tensor) -> Tensor:
        """Return the critic's loss on images [B, C, H, W] and as many fresh fakes (Gulrajani et al. 2017, eq. 3)."""
        return self.critic_terms(real)[0]

    def critic_terms(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the critic's loss on images [B, C, H, W] and as many fresh fakes, and the outputs [B] on images."""
        with torch.no_grad():
            fake = self.augmented(self.generator(self.noise(len(real))))
        loss, score, distance, penalty = self.critic_losses(self.critic, self.augmented(real), fake)
        self.track({"train/critic": distance, "train/wasserstein": -distance, "train/penalty": penalty})
        return loss, score

    def critic_losses(self, critic: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the loss of a critic on augmented real and fake images (Gulrajani et al. 2017, eq. 3).

        Args:
            critic: image [B, C, H, W] -> output [B].
            real: real images, [B, C, H, W].
            fake: fake images, [B, C, H, W].

        Returns:
            The loss, distance + lambda · penalty; the outputs for `real`, [B]; the distance; the penalty.
        """
        score, fake_score = critic(real), critic(fake)
        distance = wasserstein_critic_loss(score, fake_score)  # mean D(x̃) - mean D(x)
        self.track_discriminator(score, fake_score)
        penalty = gradient_penalty(critic, real, fake)  # mean (‖∇D(u)‖₂ - 1)², u between x and x̃
        return distance + self.settings.gp_weight * penalty, score, distance, penalty

    def generator_loss(self, real: Tensor) -> Tensor:
        """Return the generator's loss, -mean D(G(z)), on as many fakes as there are images [B, C, H, W] in `real`."""
        loss = wasserstein_generator_loss(self.critic(self.augmented(self.generator(self.noise(len(real))))))
        self.track({"train/generator": loss})
        return loss

    def discriminator_output(self, image: Tensor) -> Tensor:
        score: Tensor = self.critic(image)
        return score
