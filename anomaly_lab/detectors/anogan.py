"""AnoGAN: a GAN is trained on normal images; an image is scored by how closely the generator can reproduce it.

Schlegl, Seeböck, Waldstein, Schmidt-Erfurth, Langs 2017, IPMI. The sums over pixels and features, and lambda, are the
paper's. `restarts=5` gives AnoGAN-mean (Shen et al. 2020, adGAN): the mean over five searches from different codes.
"""

import hashlib
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.gan import GenerativeDetector
from anomaly_lab.devices import emulates_bfloat16
from anomaly_lab.losses.cross_entropy import discriminator_loss, generator_loss
from anomaly_lab.networks.augmentation import AugmentD
from anomaly_lab.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from anomaly_lab.types import (
    Batch,
    Channels,
    CodeLength,
    Fraction,
    Iterations,
    Phase,
    Prediction,
    Range,
    Rate,
    Square,
    Width,
)

GROUP = 16  # number of rows searched together; constant, because rounding depends on the batch size
DECAY = ((0.4, 1.0), (0.6, 0.1), (1.0, 0.05))  # (fraction of the search, factor of the learning rate until then)


class Search(NamedTuple):
    """Result of a search: lowest loss [B], its code [B, latent_dim] and the loss at every step [B, steps + 1]."""

    loss: Tensor
    z: Tensor
    trace: Tensor


class AnoGAN(GenerativeDetector):
    """One phase, `gan`, trains generator and discriminator as a DCGAN; scoring searches latent codes with both frozen.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 8.
        in_channels: 1 or 3.
        width: channels at half the resolution.
        latent_dim: length of z, drawn from N(0, 1).
        gan_iterations: length of the training (the paper: 20 passes over about a million patches).
        lr_gan: learning rate of generator and discriminator.
        search_steps: steps of a search; about 200 in Shen et al. 2020, 500 in the paper.
        lr_search: initial learning rate of a search, lowered to a tenth after 40 % and to a twentieth after 60 % of the
            steps, as in EGBAD's code.
        feature_weight: lambda, share of the feature residual in the loss of a search; fraction.
        restarts: number of searches per image, each from a different code.
        search_precision: precision of the search, bf16 only where the hardware has it; the score of the code it finds
            is float32 in any case.
        augment_d: augmentation of all images the discriminator sees in training.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.AnoGAN(patch_size=(32, 32), width=4, latent_dim=8, search_steps=2).eval()
        >>> prediction = detector.predict(torch.zeros(1, 1, 32, 32))
        >>> prediction.anomaly_score.shape, prediction.anomaly_map.shape
        (torch.Size([1]), torch.Size([1, 1, 32, 32]))
    """

    networks = ("generator", "discriminator")

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(8)] = (64, 64),
        in_channels: Channels = 1,
        width: Width = 64,
        latent_dim: CodeLength = 100,
        gan_iterations: Iterations = 20_000,
        lr_gan: Rate = 2e-4,
        search_steps: Annotated[int, Range("[1, 100000]")] = 200,
        lr_search: Rate = 1e-2,
        feature_weight: Fraction = 0.1,
        restarts: Annotated[int, Range("[1, 1000]")] = 1,
        search_precision: Literal["fp32", "bf16"] = "fp32",
        augment_d: AugmentD = "none",
    ) -> None:
        if min(search_steps, restarts) < 1:
            raise ValueError(f"search_steps={search_steps}, restarts={restarts}: both start at 1")
        super().__init__(augment_d)
        self.save_hyperparameters()
        self.generator = DCGANGenerator(latent_dim, in_channels, patch_size, width)
        self.discriminator = DCGANDiscriminator(in_channels, patch_size, width)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("gan", self.settings.gan_iterations, self.networks),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        lr = self.settings.lr_gan
        return tuple(Adam(self.get_submodule(name).parameters(), lr, betas=(0.5, 0.999)) for name in self.networks)

    @property
    def ready(self) -> bool:
        """Whether training is over: searches are too slow to score during training."""
        return self.finished

    @property
    def no_graph(self) -> str:
        """A search takes gradients step by step, from a code that a hash of the image chooses."""
        return "its score is a search for a latent code by gradient descent"

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        return self.score(batch) if self.ready else Prediction(torch.full((len(batch["image"]),), torch.nan))

    def gan_step(self, batches: Tensor) -> None:
        """Take one step of the discriminator, then one of the generator, on each mini-batch of [1, B, C, H, W]."""
        for real in batches:
            self.step_optimizer("discriminator", self.discriminator_loss, real)
            self.step_optimizer("generator", self.generator_loss, real)

    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Return the cross-entropy of real images [B, C, H, W] against as many fresh fakes."""
        with torch.no_grad():
            fake = self.augmented(self.generator(self.noise(len(real))))
        logit = self.discriminator(self.augmented(real))
        # L_D = -mean log D(x) - mean log(1 - D(G(z)))
        loss = discriminator_loss(logit, self.discriminator(fake))
        self.track_discriminator(logit)
        self.track({"train/discriminator": loss})
        return loss

    def generator_loss(self, real: Tensor) -> Tensor:
        """Return the non-saturating loss on as many fakes as there are images in `real`, [B, C, H, W]."""
        # L_G = -mean log D(G(z))
        loss = generator_loss(self.discriminator(self.augmented(self.generator(self.noise(len(real))))))
        self.track({"train/generator": loss})
        return loss

    def starts(self, image: Tensor) -> Tensor:
        """Return the initial codes of the searches, [restarts, B, latent_dim], derived from the images' grey values."""
        grey = image.add(1).mul(127.5).round().byte().flatten(1).cpu().numpy()
        seeds = (int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "big") for row in grey)
        drawn = [self._codes(torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn, 1).to(image.device)

    def _codes(self, generator: torch.Generator) -> Tensor:
        """Draw [restarts, latent_dim] code by code: the first does not depend on the number of restarts."""
        p = self.settings
        return torch.stack([torch.randn(p.latent_dim, generator=generator) for _ in range(p.restarts)])

    def search(self, image: Tensor, start: Tensor) -> Search:
        """Minimise the loss of every row by gradient descent in z; ≠ paper: keep the best code met, not the last.

        Rounding errors grow during a search: in groups of different sizes, results of a row would differ by up to a
        thousandth. The last group is therefore padded, and the result of a row does not depend on the others.

        Args:
            image: [B, C, H, W].
            start: initial codes, [B, latent_dim].
        """
        index = torch.arange(-(-len(image) // GROUP) * GROUP, device=image.device).clamp(max=len(image) - 1)
        groups = [self.descend_together(image[rows], start[rows]) for rows in torch.split(index, GROUP)]
        return Search(*(torch.cat(parts)[: len(image)] for parts in zip(*groups, strict=True)))

    def descend_together(self, image: Tensor, start: Tensor) -> Search:
        """Search the codes of one group of any size; arguments as in `search`."""
        p = self.settings
        low = p.search_precision == "bf16" and not emulates_bfloat16(image.device)
        bf16 = torch.autocast(image.device.type, torch.bfloat16, enabled=low)
        with torch.no_grad(), bf16:
            target = self.discriminator.features(image)
        z, best = start.clone().requires_grad_(True), start
        least, trace = torch.full((len(image),), torch.inf, device=image.device), []
        optimizer = Adam([z], fused=z.is_cuda or None)
        for step in range(p.search_steps + 1):
            with torch.enable_grad():
                with bf16:
                    loss = self.distance(image, target, z)
                # Rows are independent, so the gradient of the sum holds that of each row. Weights get no gradient.
                (z.grad,) = torch.autograd.grad(loss.sum(), z)
            trace.append(loss.detach())
            best = torch.where((trace[-1] < least)[:, None], z.detach(), best)
            least = torch.minimum(least, trace[-1])
            optimizer.param_groups[0]["lr"] = p.lr_search * _decay(step / p.search_steps)
            optimizer.step()
        with torch.no_grad():
            least = self.distance(image, self.discriminator.features(image), best)
        return Search(least, best, torch.stack(trace, 1))

    def distance(self, image: Tensor, features: Tensor, z: Tensor) -> Tensor:
        """Return the loss of a search, (1 - lambda) · L_R + lambda · L_D, [B].

        Args:
            image: x, [B, C, H, W].
            features: f(x), [B, F].
            z: [B, latent_dim].
        """
        share = self.settings.feature_weight
        fake = self.generator(z)
        pixel = (image - fake.float()).abs().flatten(1).sum(1)  # residual loss L_R = Σ|x - G(z)|
        feature = (features.float() - self.discriminator.features(fake).float()).abs().sum(1)  # L_D = Σ|f(x) - f(G(z))|
        loss: Tensor = (1 - share) * pixel + share * feature
        return loss

    def discriminator_output(self, image: Tensor) -> Tensor:
        logit: Tensor = self.discriminator(image)
        return logit

    def predict(self, image: Tensor) -> Prediction:
        """Score: lowest loss of a search; map: |x - G(z)|, mean over channels; both are means over the restarts.

        The reconstruction is that of the best search.
        """
        restarts = self.settings.restarts
        result = self.search(image.repeat(restarts, 1, 1, 1), self.starts(image).flatten(0, 1))
        with torch.no_grad():
            fakes = self.generator(result.z).reshape(restarts, *image.shape)
        losses = result.loss.reshape(restarts, -1)  # A(x), one for each restart
        anomaly_map = (image - fakes).abs().mean((0, 2))[:, None]
        each = torch.arange(len(image), device=image.device)
        return Prediction(losses.mean(0), anomaly_map, fakes[losses.argmin(0), each])


def _decay(done: float) -> float:
    """Return the factor of the learning rate at fraction `done` of the search."""
    return next(share for until, share in DECAY if done <= until)
