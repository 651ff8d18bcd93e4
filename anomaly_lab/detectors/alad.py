"""ALAD: a BiGAN with two more discriminators, which hold images and codes to their reconstructions.

Zenati, Romain, Foo, Lecouat, Chandrasekhar 2018, ICDM. G, E, z, D_xz, D_xx and D_zz as in the paper. Sizes and settings
of the defaults are those of the authors' code. ≠ code: a training has its full length; it does not stop by the feature
distance of held-out images.
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

    D_xz tells (x, E(x)) from (G(z), z), D_xx (x, x) from (x, G(E(x))), D_zz (z, z) from (z, E(G(z))). Moving averages
    of all weights judge, and draw the samples.

    Args:
        patch_size: side of the square image, a power of two >= 8, twice.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        spectral: whether encoder and discriminators are spectrally normalised.
        pairing: how D_xx sees two images: as channels, or one below the other (`height`, as in the authors' code).
        score: `fm`, how far apart D_xx's features of (x, x) and (x, G(E(x))) are; `logits`, how surely D_xx tells
            G(E(x)) from x; `l1` or `l2`, that norm of x - G(E(x)).
        gan_iterations: length of the training (100 passes over a class of CIFAR-10).
        lr: learning rate of all networks.
        average_decay: of the moving averages.
        augment_d: what is done to all images the discriminators see, in training; E sees them as they are.
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
        moving = (*self.networks, "averages")
        return (Phase("gan", self.settings.gan_iterations, moving, minibatches=2),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        lr = self.settings.lr
        return tuple(Adam(self.get_submodule(name).parameters(), lr, betas=(0.5, 0.999)) for name in self.networks)

    def gan_step(self, batches: Tensor) -> None:
        """Of two mini-batches [2, B, C, H, W] the discriminators move on the first, G and then E on the second.

        ≠ code: there G and E move at the same time, on the same z.
        """
        first, second = batches
        self.step_optimizer("discriminators", self.discriminators_loss, first)
        self.step_optimizer("generator", self.generator_loss, second)
        self.step_optimizer("encoder", self.encoder_loss, second)
        self.averages.follow(self)

    def discriminators_loss(self, real: Tensor) -> Tensor:
        """Sum of the three games' cross-entropies; real: [B, C, H, W]."""
        z, judges = self.noise(len(real)), self.discriminators
        with torch.no_grad():
            code, fake = self.encoder(real), self.generator(z)
            x_hat, z_hat = self.generator(code), self.encoder(fake)
        encoded = judges.pairs(self.augmented(real), code)
        games = {
            "pairs": discriminator_loss(encoded, judges.pairs(self.augmented(fake), z)),
            "images": discriminator_loss(self.sameness(real, real), self.sameness(real, x_hat)),
            "codes": discriminator_loss(judges.codes(z, z), judges.codes(z, z_hat)),
        }
        self.track_discriminator(encoded)
        self.track({f"train/{name}": game for name, game in games.items()})
        return sum(games.values(), torch.zeros((), device=real.device))

    def generator_loss(self, real: Tensor) -> Tensor:
        """Cross-entropy of pairs (G(z), z) taken for real, and both cycles; real: [B, C, H, W]."""
        z = self.noise(len(real))
        fake = self.generator(z)
        deceit = generator_loss(self.discriminators.pairs(self.augmented(fake), z))
        loss = deceit + self.cycles(real, self.encoder(real), z, fake)
        self.track({"train/generator": loss})
        return loss

    def encoder_loss(self, real: Tensor) -> Tensor:
        """Cross-entropy of pairs (x, E(x)) taken for generated, and both cycles; real: [B, C, H, W]."""
        z, code = self.noise(len(real)), self.encoder(real)
        logit = self.discriminators.pairs(self.augmented(real), code)
        loss = generator_loss(-logit) + self.cycles(real, code, z, self.generator(z))  # log(1 - D) is log D of -logit
        self.track({"train/encoder": loss})
        return loss

    def cycles(self, x: Tensor, code: Tensor, z: Tensor, fake: Tensor) -> Tensor:
        """Cross-entropy of (x, G(code)) taken for (x, x), and of (z, E(fake)) taken for (z, z)."""
        codes = self.discriminators.codes(z, self.encoder(fake))
        return generator_loss(self.sameness(x, self.generator(code))) + generator_loss(codes)

    def sameness(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D_xx's logits [B] of two images [B, C, H, W], augmented alike."""
        logit: Tensor = self.discriminators.images(*self.augmented_alike(x, x_hat))
        return logit

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        image: Tensor = self.averages["generator"](self.noise(n, generator))
        return image

    def predict(self, image: Tensor) -> Prediction:
        """Score: as `score` names it; map: |x - G(E(x))|, mean over channels."""
        with torch.no_grad():
            reconstruction = self.averages["generator"](self.averages["encoder"](image))
            score = self.distance(image, reconstruction)
        return Prediction(score, (image - reconstruction).abs().mean(1, keepdim=True), reconstruction)

    def distance(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """What the score takes for the distance of images [B, C, H, W] to their reconstructions, [B]."""
        images: alad.ImageDiscriminator = self.averages["discriminators"].images
        kind = self.settings.score
        if kind == "fm":
            return difference_norm(images.features(x, x), images.features(x, x_hat))
        if kind == "logits":
            logit: Tensor = images(x, x_hat)
            return -logit  # orders as the code's cross-entropy does, and never rounds to 0
        return difference_norm(x, x_hat, 1 if kind == "l1" else 2)
