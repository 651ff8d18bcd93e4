"""EGBAD: a BiGAN whose encoder gives the code of an image in one pass; generator and discriminator make up the score.

Zenati, Foo, Lecouat, Manek, Chandrasekhar 2018, arXiv 1802.06222, based on the BiGAN of Donahue et al. 2017. G, E, z
and D as in the paper. The defaults are sizes and settings of the authors' code.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.gan import GenerativeDetector
from anomaly_lab.losses.cross_entropy import discriminator_loss, generator_loss
from anomaly_lab.losses.norms import difference_norm
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.networks.averages import Averages
from anomaly_lab.networks.bigan import BiGANDiscriminator, BiGANEncoder, bigan_generator
from anomaly_lab.types import Channels, CodeLength, Fraction, Iterations, Phase, Prediction, Range, Rate, Square


class EGBAD(GenerativeDetector):
    """One phase, `gan`: D is trained to separate pairs (x, E(x)) from pairs (G(z), z), E and G to make them alike.

    Scores and samples come from moving averages of all weights.

    Args:
        patch_size: height and width of the image, equal; a multiple of 4 below 64, a power of two from 64 on.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        gan_iterations: length of the training (100 passes over nine of MNIST's digits).
        lr: learning rate of all networks.
        average_decay: decay of the moving averages.
        discriminator_score: discriminator's part of the score: `fm`, the distance of its last features of image and
            reconstruction, or `cross_entropy`, the cross-entropy of the reconstruction as real.
        discriminator_weight: w, share of the discriminator's part in the score.
        augment_d: augmentation of all images D sees in training; E sees the images themselves.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.EGBAD(patch_size=(28, 28), width=4, latent_dim=8)
        >>> prediction = detector.score({"image": torch.zeros(2, 1, 28, 28)})
        >>> prediction.anomaly_score.shape, prediction.reconstruction.shape
        (torch.Size([2]), torch.Size([2, 1, 28, 28]))
    """

    networks = ("generator", "encoder", "discriminator")

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8, power_of_two=False)] = (32, 32),
        in_channels: Channels = 1,
        width: Annotated[int, Range("[2, 4096]")] = 64,
        latent_dim: CodeLength = 200,
        gan_iterations: Iterations = 50_000,
        lr: Rate = 1e-5,
        average_decay: Annotated[float, Range("[0, 1)")] = 0.999,
        discriminator_score: Literal["fm", "cross_entropy"] = "fm",
        discriminator_weight: Fraction = 0.1,
        augment_d: AugmentD = "none",
    ) -> None:
        super().__init__(augment_d)
        self.save_hyperparameters()
        self.generator = bigan_generator(latent_dim, in_channels, patch_size, width)
        self.encoder = BiGANEncoder(in_channels, latent_dim, patch_size, width)
        self.discriminator = BiGANDiscriminator(in_channels, latent_dim, patch_size, width)
        self.averages = Averages(self, self.networks, average_decay)

    def phases(self) -> tuple[Phase, ...]:
        trained = (*self.networks, "averages")
        return (Phase("gan", self.settings.gan_iterations, trained, minibatches=2),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        lr = self.settings.lr
        return tuple(Adam(self.get_submodule(name).parameters(), lr, betas=(0.5, 0.999)) for name in self.networks)

    def gan_step(self, batches: Tensor) -> None:
        """Take one step of D on the first of two mini-batches [2, B, C, H, W], and one of G and of E on the second."""
        first, second = batches
        self.step_optimizer("discriminator", self.discriminator_loss, first)
        self.step_optimizer("generator", self.generator_loss, second)
        self.step_optimizer("encoder", self.encoder_loss, second)
        self.averages.follow(self)

    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Return the cross-entropy of pairs (x, E(x)), labelled real, against as many pairs (G(z), z).

        Args:
            real: x, [B, C, H, W].
        """
        z = self.noise(len(real))
        with torch.no_grad():
            code, fake = self.encoder(real), self.generator(z)
        encoded = self.discriminator(self.augmented(real), code)
        # L_D = -mean log D(x, E(x)) - mean log(1 - D(G(z), z))
        loss = discriminator_loss(encoded, self.discriminator(self.augmented(fake), z))
        self.track_discriminator(encoded)
        self.track({"train/discriminator": loss})
        return loss

    def generator_loss(self, real: Tensor) -> Tensor:
        """Return the cross-entropy, as real, of as many pairs (G(z), z) as there are images in `real`, [B, C, H, W]."""
        z = self.noise(len(real))
        loss = generator_loss(self.discriminator(self.augmented(self.generator(z)), z))  # L_G = -mean log D(G(z), z)
        self.track({"train/generator": loss})
        return loss

    def encoder_loss(self, real: Tensor) -> Tensor:
        """Return the cross-entropy, as generated, of pairs (x, E(x)); real: [B, C, H, W]."""
        logit = self.discriminator(self.augmented(real), self.encoder(real))
        loss = generator_loss(-logit)  # L_E = -mean log(1 - D(x, E(x))), as log D of the negated logit
        self.track({"train/encoder": loss})
        return loss

    def drawn(self, z: Tensor) -> Tensor:
        image: Tensor = self.averages["generator"](z)
        return image

    def predict(self, image: Tensor) -> Prediction:
        """Score: (1 - w) · L_G + w · L_D, where norms are sums; map: |x - G(E(x))|, mean over channels."""
        p, discriminator = self.settings, self.averages["discriminator"]
        with torch.no_grad():
            z = self.averages["encoder"](image)
            reconstruction = self.averages["generator"](z)
            if p.discriminator_score == "fm":  # L_D = ‖f_D(x, E(x)) - f_D(G(E(x)), E(x))‖₁
                part = difference_norm(discriminator.features(image, z), discriminator.features(reconstruction, z))
            else:  # L_D = -log D(G(E(x)), E(x))
                part = F.softplus(-discriminator(reconstruction, z))
        # A(x) = (1 - w) ‖x - G(E(x))‖₁ + w L_D
        score = (1 - p.discriminator_weight) * difference_norm(image, reconstruction) + p.discriminator_weight * part
        return Prediction(score, (image - reconstruction).abs().mean(1, keepdim=True), reconstruction)
