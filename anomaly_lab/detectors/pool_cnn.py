"""Two-class CNN between normals and the fake pool: the ablation of adGAN that trains its critic with cross-entropy.

Shen, Chen, Wang, Zhang 2020, IEEE Access 8, table 5. The paper does not state optimiser and length; here length and
learning rate are adGAN's, and Adam has its usual β.
"""

from typing import Annotated

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.fake_pool import Pool
from anomaly_lab.detectors.families.gan import WassersteinDetector
from anomaly_lab.losses.cross_entropy import discriminator_loss
from anomaly_lab.networks.adgan import AdGANCritic, AdGANGenerator
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.types import (
    Channels,
    CodeLength,
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


class PoolCNN(WassersteinDetector):
    """Two phases: `gan`, the first phase of adGAN, fills the pool; `classifier` trains on normals against the pool.

    The callback `fakepool` fills the pool during `gan` and sets `pool`.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 8.
        in_channels: 1 or 3.
        width: channels of all networks at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        n_critic: critic steps per iteration of `gan`, each on a fresh mini-batch.
        gp_weight: lambda, weight of the gradient penalty.
        gan_iterations: length of the phase `gan`.
        classifier_iterations: length of the phase `classifier`.
        lr: learning rate of generator and critic.
        lr_classifier: learning rate of the classifier.
        augment_d: augmentation of all images the critic sees in training.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.PoolCNN(patch_size=(32, 32), width=4, latent_dim=8)
        >>> detector.score({"image": torch.zeros(2, 1, 32, 32)}).anomaly_score.shape
        torch.Size([2])
    """

    networks = ("generator", "critic", "classifier")
    pool: Pool | None = None

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8)] = (32, 32),
        in_channels: Channels = 1,
        width: Width = 64,
        latent_dim: CodeLength = 128,
        n_critic: Annotated[int, Range("[1, 1000]")] = 5,
        gp_weight: Weight = 10.0,
        gan_iterations: Iterations = 200_000,
        classifier_iterations: Iterations = 150_000,
        lr: Rate = 1e-4,
        lr_classifier: Rate = 1e-4,
        augment_d: AugmentD = "none",
    ) -> None:
        super().__init__(augment_d)
        self.save_hyperparameters()
        self.generator = AdGANGenerator(latent_dim, in_channels, patch_size, width)
        self.critic = AdGANCritic(in_channels, patch_size, width)
        self.classifier = AdGANCritic(in_channels, patch_size, width)

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        return (
            Phase("gan", p.gan_iterations, ("generator", "critic"), minibatches=p.n_critic),
            Phase("classifier", p.classifier_iterations, ("classifier",)),
        )

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        p = self.settings
        return (
            Adam(self.generator.parameters(), p.lr, betas=(0.0, 0.9)),
            Adam(self.critic.parameters(), p.lr, betas=(0.0, 0.9)),
            Adam(self.classifier.parameters(), p.lr_classifier),
        )

    def gan_step(self, batches: Tensor) -> None:
        """Take one critic step on each mini-batch of [n_critic, B, C, H, W], then one generator step."""
        for real in batches:  # algorithm 1 of adGAN, lines 2-6 with eq. 1
            self.step_optimizer("critic", self.critic_loss, real)
        self.step_optimizer("generator", self.generator_loss, real)  # lines 7-9; the callback `fakepool` does 10-12

    def classifier_step(self, batches: Tensor) -> None:
        """Take one step of the classifier on each mini-batch of [1, B, C, H, W]."""
        for real in batches:
            self.step_optimizer("classifier", self.classifier_loss, real)

    def classifier_loss(self, real: Tensor) -> Tensor:
        """Return the cross-entropy of real images [B, C, H, W] against as many images of the pool, a sum of two means.

        Raises:
            UserError: there is no pool.
        """
        if self.pool is None:
            raise UserError("pool CNN's phase classifier needs a fake pool: give the experiment the callback fakepool")
        fake = self.pool.draw(len(real), self.device)
        # -mean log C(x) - mean log(1 - C(x̃)), x̃ from the pool
        loss = discriminator_loss(self.classifier(real), self.classifier(fake))
        self.track({"train/classifier": loss})
        return loss

    def predict(self, image: Tensor) -> Prediction:
        """Score: minus the logit of "real"."""
        with torch.no_grad():
            return Prediction(-self.classifier(image))
