"""ALAD: a BiGAN with two additional discriminators that enforce cycle consistency of images and of codes.

Zenati, Romain, Foo, Lecouat, Chandrasekhar 2018, ICDM. G, E, z, D_xz, D_xx and D_zz as in the paper. The defaults are
sizes and settings of the authors' code. ≠ code: training runs its full length; it is not stopped by the feature
distance of validation images.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.gan import GenerativeDetector
from anomaly_lab.losses.cross_entropy import discriminator_loss, generator_loss
from anomaly_lab.losses.norms import difference_norm
from anomaly_lab.networks import alad
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.networks.averages import Averages
from anomaly_lab.types import Channels, CodeLength, Iterations, Phase, Prediction, Range, Rate, Square


class ALAD(GenerativeDetector):
    """One phase, `gan`: three discriminators against generator and encoder.

    D_xz separates (x, E(x)) from (G(z), z), D_xx separates (x, x) from (x, G(E(x))), D_zz separates (z, z) from (z,
    E(G(z))). Scores and samples come from moving averages of all weights.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 8.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        spectral: whether encoder and discriminators have spectral norm.
        pairing: how D_xx's two images are concatenated: along `channels`, or along `height` as in the authors' code.
        score: `fm`, distance of D_xx's features of (x, x) and (x, G(E(x))); `logits`, minus D_xx's logit of (x,
            G(E(x))); `l1` or `l2`, that norm of x - G(E(x)).
        gan_iterations: length of the training (100 passes over a class of CIFAR-10).
        lr: learning rate of all networks.
        average_decay: decay of the moving averages.
        augment_d: augmentation of all images the discriminators see in training; E sees the images themselves.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.ALAD(patch_size=(32, 32), width=4, latent_dim=8)
        >>> prediction = detector.score({"image": torch.zeros(2, 1, 32, 32)})
        >>> prediction.anomaly_score.shape, prediction.reconstruction.shape
        (torch.Size([2]), torch.Size([2, 1, 32, 32]))
    """

    networks = ("generator", "encoder", "discriminators")

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8)] = (32, 32),
        in_channels: Channels = 1,
        width: Annotated[int, Range("[4, 4096]")] = 128,
        latent_dim: CodeLength = 100,
        spectral: bool = True,
        pairing: Literal["channels", "height"] = "channels",
        score: Literal["fm", "logits", "l1", "l2"] = "fm",
        gan_iterations: Iterations = 11_200,
        lr: Rate = 2e-4,
        average_decay: Annotated[float, Range("[0, 1)")] = 0.999,
        augment_d: AugmentD = "none",
    ) -> None:
        super().__init__(augment_d)
        self.save_hyperparameters()
        self.generator = alad.ALADGenerator(latent_dim, in_channels, patch_size, width)
        self.encoder = alad.ALADEncoder(in_channels, latent_dim, patch_size, width, spectral)
        self.discriminators = alad.ALADDiscriminators(
            alad.PairDiscriminator(in_channels, latent_dim, patch_size, width, spectral),
            alad.ImageDiscriminator(in_channels, patch_size, width, spectral, pairing),
            alad.CodeDiscriminator(latent_dim, width, spectral),
        )
        self.averages = Averages(self, self.networks, average_decay)

    def phases(self) -> tuple[Phase, ...]:
        trained = (*self.networks, "averages")
        return (Phase("gan", self.settings.gan_iterations, trained, minibatches=2),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        lr = self.settings.lr
        return tuple(Adam(self.get_submodule(name).parameters(), lr, betas=(0.5, 0.999)) for name in self.networks)

    def gan_step(self, batches: Tensor) -> None:
        """Take one step of the discriminators on the first mini-batch of [2, B, C, H, W], of G, then E, on the second.

        ≠ code: there G and E are updated simultaneously, with the same z.
        """
        first, second = batches
        self.step_optimizer("discriminators", self.discriminators_loss, first)
        self.step_optimizer("generator", self.generator_loss, second)
        self.step_optimizer("encoder", self.encoder_loss, second)
        self.averages.follow(self)

    def discriminators_loss(self, real: Tensor) -> Tensor:
        """Return the sum of the three discriminators' cross-entropies on images [B, C, H, W]."""
        z, discriminators = self.noise(len(real)), self.discriminators
        with torch.no_grad():
            code, fake = self.encoder(real), self.generator(z)
            x_hat, z_hat = self.generator(code), self.encoder(fake)
        encoded = discriminators.pairs(self.augmented(real), code)
        losses = {
            # V(D_xz, E, G): (x, E(x)) against (G(z), z)
            "pairs": discriminator_loss(encoded, discriminators.pairs(self.augmented(fake), z)),
            # V(D_xx, E, G): (x, x) against (x, G(E(x)))
            "images": discriminator_loss(self.sameness(real, real), self.sameness(real, x_hat)),
            # V(D_zz, E, G): (z, z) against (z, E(G(z)))
            "codes": discriminator_loss(discriminators.codes(z, z), discriminators.codes(z, z_hat)),
        }
        self.track_discriminator(encoded)
        self.track({f"train/{name}": loss for name, loss in losses.items()})
        return sum(losses.values(), torch.zeros((), device=real.device))

    def generator_loss(self, real: Tensor) -> Tensor:
        """Return the generator's loss: cross-entropy of (G(z), z) as real, plus both cycles; real: [B, C, H, W]."""
        z = self.noise(len(real))
        fake = self.generator(z)
        adversarial = generator_loss(self.discriminators.pairs(self.augmented(fake), z))  # -mean log D_xz(G(z), z)
        loss = adversarial + self.cycles(real, self.encoder(real), z, fake)
        self.track({"train/generator": loss})
        return loss

    def encoder_loss(self, real: Tensor) -> Tensor:
        """Return the encoder's loss: cross-entropy of (x, E(x)) as generated, plus both cycles; real: [B, C, H, W]."""
        z, code = self.noise(len(real)), self.encoder(real)
        logit = self.discriminators.pairs(self.augmented(real), code)
        # -mean log(1 - D_xz(x, E(x))), computed as log D of the negated logit
        loss = generator_loss(-logit) + self.cycles(real, code, z, self.generator(z))
        self.track({"train/encoder": loss})
        return loss

    def cycles(self, x: Tensor, code: Tensor, z: Tensor, fake: Tensor) -> Tensor:
        """Return the cross-entropies of (x, G(code)) as (x, x) and of (z, E(fake)) as (z, z)."""
        codes = self.discriminators.codes(z, self.encoder(fake))
        return generator_loss(self.sameness(x, self.generator(code))) + generator_loss(codes)

    def sameness(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return D_xx's logits [B] for two batches of images [B, C, H, W], augmented alike."""
        logit: Tensor = self.discriminators.images(*self.augmented_alike(x, x_hat))
        return logit

    def drawn(self, z: Tensor) -> Tensor:
        image: Tensor = self.averages["generator"](z)
        return image

    def predict(self, image: Tensor) -> Prediction:
        """Score: chosen by `score`; map: |x - G(E(x))|, mean over channels."""
        with torch.no_grad():
            reconstruction = self.averages["generator"](self.averages["encoder"](image))
            score = self.distance(image, reconstruction)
        return Prediction(score, (image - reconstruction).abs().mean(1, keepdim=True), reconstruction)

    def distance(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the anomaly score [B] of images [B, C, H, W] with their reconstructions."""
        images: alad.ImageDiscriminator = self.averages["discriminators"].images
        score_name = self.settings.score
        if score_name == "fm":  # A(x) = ‖f_xx(x, x) - f_xx(x, G(E(x)))‖₁
            return difference_norm(images.features(x, x), images.features(x, x_hat))
        if score_name == "logits":
            logit: Tensor = images(x, x_hat)
            return -logit  # the same order as the code's cross-entropy, without rounding to 0
        return difference_norm(x, x_hat, 1 if score_name == "l1" else 2)
