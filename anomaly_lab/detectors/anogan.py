"""AnoGAN: a GAN learns normal images; a query is scored by how near the search for its latent code can get to it.

Schlegl, Seeböck, Waldstein, Schmidt-Erfurth, Langs 2017, IPMI. Its sums over pixels and features, and lambda. With
`restarts=5` AnoGAN-mean (Shen et al. 2020, adGAN): the mean over five searches from different codes.
"""

import hashlib
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.gan import GenerativeDetector
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

GROUP = 16  # rows searched together; always as many, for what a row adds up to depends on how many there are
DECAY = ((0.4, 1.0), (0.6, 0.1), (1.0, 0.05))  # until this fraction of the search: this fraction of its learning rate


class Search(NamedTuple):
    """What a search found: the least loss [B], its code [B, latent_dim] and the loss at every step [B, steps + 1]."""

    loss: Tensor
    z: Tensor
    trace: Tensor


class AnoGAN(GenerativeDetector):
    """One phase, `gan`, trains generator and discriminator as a DCGAN; scoring searches, with both frozen.

    Args:
        patch_size: side of the square image, a power of two >= 8, twice.
        in_channels: 1 or 3.
        width: channels at full resolution.
        latent_dim: length of z, drawn from N(0, 1).
        gan_iterations: length of the training (the paper: 20 passes over about a million patches).
        lr_gan: learning rate of generator and discriminator.
        search_steps: of a search; about 200 in Shen et al. 2020, 500 in the paper.
        lr_search: first learning rate of a search, lowered tenfold and twentyfold as in EGBAD's code.
        feature_weight: lambda, share of the feature residual in the loss of a search; fraction.
        restarts: searches for an image, each from a code of its own.
        search_precision: of the descent; the score of the code it finds is float32 in any case.
        augment_d: what is done to all images the discriminator sees, in training.
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
            raise ValueError("search_steps and restarts start at 1")
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
        """Only once the training is over: searches are too dear to watch it by."""
        return self.finished

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        return self.score(batch) if self.ready else Prediction(torch.full((len(batch["image"]),), torch.nan))

    def gan_step(self, batches: Tensor) -> None:
        """The discriminator moves once on each mini-batch of [1, B, C, H, W], then the generator."""
        for real in batches:
            self.step_optimizer("discriminator", self.discriminator_loss, real)
            self.step_optimizer("generator", self.generator_loss, real)

    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Cross-entropy against as many fresh fakes; real: [B, C, H, W]."""
        with torch.no_grad():
            fake = self.augmented(self.generator(self.noise(len(real))))
        logit = self.discriminator(self.augmented(real))
        loss = discriminator_loss(logit, self.discriminator(fake))
        self.track_discriminator(logit)
        self.track({"train/discriminator": loss})
        return loss

    def generator_loss(self, real: Tensor) -> Tensor:
        """Cross-entropy of as many fakes taken for real as there are images in `real`, [B, C, H, W]."""
        loss = generator_loss(self.discriminator(self.augmented(self.generator(self.noise(len(real))))))
        self.track({"train/generator": loss})
        return loss

    def starts(self, image: Tensor) -> Tensor:
        """Codes where the searches begin, [restarts, B, latent_dim]: an image's depend on its grey values alone."""
        grey = image.add(1).mul(127.5).round().byte().flatten(1).cpu().numpy()
        seeds = (int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "big") for row in grey)
        drawn = [self._codes(torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn, 1).to(image.device)

    def _codes(self, generator: torch.Generator) -> Tensor:
        """[restarts, latent_dim], one by one: the first is the same whatever the number of restarts."""
        p = self.settings
        return torch.stack([torch.randn(p.latent_dim, generator=generator) for _ in range(p.restarts)])

    def search(self, image: Tensor, start: Tensor) -> Search:
        """Descend the loss of every row by itself; ≠ paper: keep the best code met, not the last.

        Rounding grows over a search: rows in groups of different sizes would end up to a thousandth apart. The last
        group is therefore filled up, and no row's result depends on the others.

        Args:
            image: [B, C, H, W].
            start: [B, latent_dim].
        """
        index = torch.arange(-(-len(image) // GROUP) * GROUP, device=image.device).clamp(max=len(image) - 1)
        found = [self.descend_together(image[rows], start[rows]) for rows in torch.split(index, GROUP)]
        return Search(*(torch.cat(parts)[: len(image)] for parts in zip(*found, strict=True)))

    def descend_together(self, image: Tensor, start: Tensor) -> Search:
        """The search of one group, of whatever size; arguments as `search`'s."""
        p = self.settings
        bf16 = torch.autocast(image.device.type, torch.bfloat16, enabled=p.search_precision == "bf16")
        with torch.no_grad(), bf16:
            wanted = self.discriminator.features(image)
        z, best = start.clone().requires_grad_(True), start
        least, trace = torch.full((len(image),), torch.inf, device=image.device), []
        optimizer = Adam([z])
        for step in range(p.search_steps + 1):
            with torch.enable_grad():
                with bf16:
                    loss = self.distance(image, wanted, z)
                # The sum's gradient is each row's own: no query moves another's code, and no weight gets any.
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
        """(1 - lambda) · Σ|x - G(z)| + lambda · Σ|f(x) - f(G(z))|, [B]; features: f(x), [B, F]."""
        share = self.settings.feature_weight
        fake = self.generator(z)
        pixel = (image - fake.float()).abs().flatten(1).sum(1)
        feature = (features.float() - self.discriminator.features(fake).float()).abs().sum(1)
        loss: Tensor = (1 - share) * pixel + share * feature
        return loss

    def discriminator_output(self, image: Tensor) -> Tensor:
        logit: Tensor = self.discriminator(image)
        return logit

    def predict(self, image: Tensor) -> Prediction:
        """Score: least loss of a search; map: |x - G(z)|, mean over channels; both means over the restarts.

        The reconstruction is that of the best search.
        """
        restarts = self.settings.restarts
        found = self.search(image.repeat(restarts, 1, 1, 1), self.starts(image).flatten(0, 1))
        with torch.no_grad():
            fakes = self.generator(found.z).reshape(restarts, *image.shape)
        losses = found.loss.reshape(restarts, -1)
        anomaly_map = (image - fakes).abs().mean((0, 2))[:, None]
        return Prediction(losses.mean(0), anomaly_map, fakes[losses.argmin(0), torch.arange(len(image))])


def _decay(done: float) -> float:
    """Share of the learning rate that is left at this fraction of the search."""
    return next(share for until, share in DECAY if done <= until)
