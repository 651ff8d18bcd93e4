"""HQ-AnoGAN: StyleGAN2-ADA learns to draw normals, a pSp encoder inverts it, and the score is what differs then.

Sato, Sato, Tomiyama, Kido 2023, Int. J. CARS, doi 10.1007/s11548-023-03031-9. Only its abstract was available: it names
the two networks and says that the score is computed from intermediate latent codes. The rest follows StyleGAN2-ADA
(Karras, Aittala, Hellsten, Laine, Lehtinen, Aila 2020, NeurIPS) and pSp (Richardson et al. 2021, CVPR); the score is
ours. G, D, E, w and w̄ as in these papers.
"""

import copy
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torchvision.transforms.functional import gaussian_blur

from anomaly_lab.detectors.families.gan import GenerativeDetector
from anomaly_lab.detectors.families.optimizers import Ranger, lazy_adam, scale_rate
from anomaly_lab.losses.cross_entropy import discriminator_loss, generator_loss
from anomaly_lab.losses.perceptual import perceptual_distance, perceptual_map
from anomaly_lab.losses.reconstruction import mean_squared
from anomaly_lab.losses.stylegan2 import path_lengths, r1_penalty
from anomaly_lab.networks import stylegan2
from anomaly_lab.networks.augmentation import ADA, AugmentD
from anomaly_lab.networks.pretrained import Normalisation
from anomaly_lab.networks.psp import Backbone, BackboneName, StyleEncoder
from anomaly_lab.networks.styles import COMPONENTS, NormalStyles
from anomaly_lab.networks.teachers import PackagedTeacher, Teacher
from anomaly_lab.types import (
    Channels,
    CodeLength,
    Count,
    Fraction,
    Iterations,
    Phase,
    Prediction,
    Range,
    Rate,
    Square,
    Weight,
    Width,
)

R1_EVERY = 16  # iterations from one step on the R1 penalty to the next
PATH_EVERY = 4  # iterations from one step on the path length penalty to the next
PATH_DECAY = 0.01  # share of a batch in the running mean of path lengths
AVERAGE_RAMP = 0.05  # the average covers at most this share of the images seen
MEAN_SAMPLES = 100_000  # noise vectors from which the mean style w̄ is computed
COARSE_STYLES = 4  # those of the resolutions 4 and 8 (Karras, Laine, Aila 2019, figure 3), on a sheet of mixtures
SUMS = {"reconstruction": 2, "sum": len(COMPONENTS)}  # scores that add up as many of the first components
MAP_BLUR = 4 / 256  # standard deviation of the blur of a map, relative to its side


class Measured(NamedTuple):
    """What the score is made of.

    Attributes:
        codes: w - w̄, w = E(x), [B, L, W].
        distances: of the image, perceptual, of its features, and of each style after a round trip, [B, 3 + L].
        maps: anomaly maps, as chosen by `maps`, [B, 1, H, W].
        reconstruction: x̂ = G(w), [B, C, H, W], in [-1, 1].
    """

    codes: Tensor
    distances: Tensor
    maps: Tensor
    reconstruction: Tensor


class HQAnoGAN(GenerativeDetector):
    """Three phases: `gan` trains G and D, `encoder` trains E with both frozen, `gather` measures training normals.

    Scores, samples and E's training use G's moving average. The defaults are those of StyleGAN2-ADA at 256×256 and of
    pSp; see experiments/detectors/hq_anogan*.yaml for smaller ones.

    Args:
        patch_size: height and width of the image, equal, a power of two >= 32.
        in_channels: 1 or 3.
        width: channels of G and D at full resolution; None for StyleGAN2-ADA's. They double at each halving.
        channel_cap: maximum number of channels of G and D.
        latent_dim: length of z, drawn from N(0, 1), and of a style.
        mapping_layers: layers from z to w; 8 as in StyleGAN2, 2 as in StyleGAN2-ADA's automatic configuration.
        deviation_group: images whose deviation D sees.
        backbone: of E, pSp's `irse50` or the lighter `resnet18`.
        encoder_width: channels of E's first stage.
        augment_d: augmentation of all images D sees in training: `ada_bgc` is the paper's; `ada_medical` has neither
            quarter turns nor the luma flip.
        augment_p: probability of each transform of ADA; None lets it follow how sure D is, as ADA does.
        r1_weight: gamma, weight of the R1 penalty; None for .0002 · pixels / batch_size, StyleGAN2-ADA's rule.
        path_weight: weight of the path length penalty; 0 leaves it out.
        mixing: probability of style mixing.
        average_images: images over which G's average halves the weight of the past; None for 312.5 batches.
        gan_iterations: length of the first phase (25 million images).
        encoder_iterations: length of the second phase.
        lr_gan: learning rate of G and D.
        lr_generator: G's, if it is another one; see Heusel et al. 2017, GANs trained by a two time-scale update rule.
        lr_encoder: learning rate of E.
        anneal: share of `gan`, at its end, where the rate of G and D falls linearly to 0; 0 for none, as in the paper.
        pixel_weight: weight of the mean squared error in E's loss.
        perceptual_weight: weight of the perceptual distance in E's loss.
        feature_weight: weight of the distance of D's last 4×4 maps in E's loss.
        norm_weight: weight of the mean distance of the styles from w̄. A small one lets E copy a lesion, a large one
            draws its images towards the mean normal.
        teacher: network of the perceptual distance: D itself, a classifier of torchvision, or EfficientNet-Lite0, whose
            weights the extra `features` installs.
        teacher_weights: file of the classifier's weights, read when training starts; empty for those of the extra,
            `random` draws them, for a trial.
        teacher_input: normalisation that weights of torchvision's classifiers expect.
        truncation: psi, x̂ is drawn by w̄ + psi (w - w̄).
        score: a component, or a sum of components in standard deviations of training normals: `reconstruction`, of the
            first two, or `sum`, of all five. `image`, mean |x - x̂|; `perceptual`, the distance that E is trained on;
            `feature`, mean squared distance of D's last 4×4 maps; `round_trip`, squared distance of E(x) and E(x̂);
            `styles`, squared Mahalanobis distance of E(x) from the codes of training normals.
        maps: `residual`, |x - x̂|, or `perceptual`, the perceptual distance at each place; less the mean map of training
            normals, and blurred.
        axes: maximum number of principal axes of each style, for `styles`.
        samples: number of images to gather. If there are fewer normals, some are gathered repeatedly.
        batch_size: size of a mini-batch.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.HQAnoGAN((32, 32), width=2, latent_dim=8, backbone="resnet18", encoder_width=2)
        >>> for phase in detector.phases():
        ...     print(phase.name, phase.iterations, phase.networks)
        gan 390625 ('generator', 'discriminator', 'averages')
        encoder 100000 ('encoder',)
        gather 32 ('normality',)
    """

    networks = ("generator", "discriminator", "encoder", "normality")
    components = COMPONENTS
    uncompiled = ("generator", "discriminator")  # the penalties differentiate them twice
    generator: stylegan2.StyleGenerator
    discriminator: stylegan2.StyleDiscriminator
    encoder: StyleEncoder
    averages: stylegan2.StyleGenerator
    normality: NormalStyles
    teacher: Teacher | PackagedTeacher | None

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Square(32)] = (256, 256),
        in_channels: Channels = 1,
        width: Width | None = None,
        channel_cap: Width = 512,
        latent_dim: CodeLength = 512,
        mapping_layers: Annotated[int, Range("[1, 64]")] = 8,
        deviation_group: Annotated[int, Range("[1, 1024]")] = 8,
        backbone: BackboneName = "irse50",
        encoder_width: Width = 64,
        augment_d: AugmentD = "ada_medical",
        augment_p: Fraction | None = None,
        r1_weight: Weight | None = 1.0,
        path_weight: Weight = 2.0,
        mixing: Fraction = 0.9,
        average_images: Annotated[int, Range("[1, 1000000000]")] | None = 20_000,
        gan_iterations: Iterations = 390_625,
        encoder_iterations: Iterations = 100_000,
        lr_gan: Rate = 2.5e-3,
        lr_generator: Rate | None = None,
        lr_encoder: Rate = 1e-4,
        anneal: Fraction = 0.0,
        pixel_weight: Weight = 1.0,
        perceptual_weight: Weight = 0.8,
        feature_weight: Weight = 0.0,
        norm_weight: Weight = 0.005,
        teacher: Literal["discriminator", "squeezenet1_0", "vgg16", "resnet18", "efficientnet_lite0"] = "discriminator",
        teacher_weights: str = "",
        teacher_input: Normalisation = "imagenet",
        truncation: Fraction = 1.0,
        score: Literal[
            "reconstruction", "sum", "image", "perceptual", "feature", "round_trip", "styles"
        ] = "reconstruction",
        maps: Literal["residual", "perceptual"] = "residual",
        axes: Annotated[int, Range("[1, 512]")] = 64,
        samples: Count = 2_000,
        batch_size: Annotated[int, Range("[1, 65536]")] = 64,
    ) -> None:
        super().__init__(augment_d)
        self.save_hyperparameters()
        if augment_p is not None and isinstance(self.augmentation, ADA):  # a budget sets it, whatever `augment_d` is
            self.augmentation.fix(augment_p)
        side, channels = patch_size[0], stylegan2.channels_at(patch_size, width, channel_cap)
        self.generator = stylegan2.StyleGenerator(latent_dim, in_channels, channels, mapping_layers)
        self.discriminator = stylegan2.StyleDiscriminator(in_channels, channels, deviation_group)
        styles = self.generator.num_styles
        self.encoder = StyleEncoder(Backbone(backbone, in_channels, encoder_width), side, styles, latent_dim)
        self.averages = copy.deepcopy(self.generator).requires_grad_(False)
        self.normality = NormalStyles(samples, styles, latent_dim, axes, side)
        if teacher == "discriminator":
            self.teacher = None
        else:
            self.teacher = PackagedTeacher() if teacher == "efficientnet_lite0" else Teacher(teacher, teacher_input)

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        return (
            Phase("gan", p.gan_iterations, ("generator", "discriminator", "averages")),
            Phase("encoder", p.encoder_iterations, ("encoder",)),
            Phase("gather", -(-p.samples // p.batch_size), ("normality",)),
        )

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        p = self.settings
        lr_generator = p.lr_gan if p.lr_generator is None else p.lr_generator
        return (
            lazy_adam(self.generator.parameters(), lr_generator, PATH_EVERY if p.path_weight else 0),
            lazy_adam(self.discriminator.parameters(), p.lr_gan, R1_EVERY if self.r1_weight else 0),
            Ranger(self.encoder.parameters(), p.lr_encoder),
        )

    @property
    def r1_weight(self) -> float:
        """Weight gamma of the R1 penalty."""
        p = self.settings
        weight: float = 2e-4 * p.patch_size[0] ** 2 / p.batch_size if p.r1_weight is None else p.r1_weight
        return weight

    @property
    def ready(self) -> bool:
        """Whether the components of the score can be compared, which is so at the end of the last phase."""
        return self.finished

    @property
    def couples_batch(self) -> bool:
        """D sees how much the images of a mini-batch differ."""
        return True

    def load_pretrained(self) -> dict[str, Any]:
        """Read the weights of the perceptual distance's network.

        Returns:
            Name of the network, file and SHA-256 of the weights and whether they are random, for the record.

        Raises:
            UserError: the file is missing or contains something else.
        """
        p = self.settings
        if self.teacher is None:
            return {"name": "discriminator", "weights": "", "sha256": None, "random": False}
        is_random = p.teacher_weights == "random"
        digest = None if is_random else self.teacher.load(p.teacher_weights)
        weights = p.teacher_weights or "package"  # empty is refused above where no package has them
        return {"name": p.teacher, "weights": weights, "sha256": digest, "random": is_random}

    @property
    def caveats(self) -> tuple[str, ...]:
        caveat = f"the weights of the perceptual distance's network {self.settings.teacher} are random"
        return (caveat,) if self.teacher is not None and self.settings.teacher_weights == "random" else ()

    def drawn_rows(self, batch_size: int) -> set[int]:
        return super().drawn_rows(batch_size) | {max(1, batch_size // 2)}  # of the path length penalty

    # --- first phase: StyleGAN2-ADA ---------------------------------------------------------------------------------

    def gan_step(self, batches: Tensor) -> None:
        """Take a step of G and one of D on each mini-batch of [1, B, C, H, W]; now and then one on each penalty."""
        p, i = self.settings, self.iterations_done
        self.anneal_rates()
        for real in batches:
            self.step_optimizer("generator", self.generator_loss, real)
            if p.path_weight and i % PATH_EVERY == 0:
                self.step_optimizer("generator", self.path_penalty, real)
            self.step_optimizer("discriminator", self.discriminator_loss, real)
            if self.r1_weight and i % R1_EVERY == 0:
                self.step_optimizer("discriminator", self.slope_penalty, real)
            stylegan2.follow(self.averages, self.generator, self.average_decay((i + 1) * p.batch_size))

    def anneal_rates(self) -> None:
        """Let the rates of G and D fall linearly to 0 over the last `anneal` of the phase (≠ paper: constant rates).

        A short training needs a high rate, with which G turns round what it looks for; its average lies between.
        """
        span, share = self.schedule.span("gan"), self.settings.anneal
        if share:
            left = (span.stop - self.iterations_done) / len(span)
            for network in ("generator", "discriminator"):
                scale_rate(self._optimizer(network), min(1.0, left / share))

    def average_decay(self, images: int) -> float:
        """Return the weight of the past in G's average, after this many images."""
        p = self.settings
        half_life = 312.5 * p.batch_size if p.average_images is None else p.average_images
        decay: float = 0.5 ** (p.batch_size / min(half_life, AVERAGE_RAMP * images))
        return decay

    def drawn_styles(self, n: int) -> Tensor:
        """Draw styles [n, L, W], of which a share of `mixing` come from two vectors z."""
        w = self.generator.mapping(self.noise(n))
        styles = self.generator.styles(w)
        self.generator.mapping.follow(w.mean(0))
        if self.settings.mixing:
            other = self.generator.styles(self.generator.mapping(self.noise(n)))
            styles = stylegan2.mixed(styles, other, self.settings.mixing)
        return styles

    def generator_loss(self, real: Tensor) -> Tensor:
        """Return G's loss, mean softplus(-D(G(z))), on as many fakes as there are images [B, C, H, W] in `real`."""
        fake = self.generator.synthesis(self.drawn_styles(len(real)), "random")
        loss = generator_loss(self.discriminator(self.augmented(fake)))
        self.track({"train/generator": loss})
        return loss

    def path_penalty(self, real: Tensor) -> Tensor:
        """Return the path length penalty, 2 (J - a)² · 4, on half as many fakes as there are images in `real`."""
        with torch.autocast(real.device.type, enabled=False):
            styles = self.drawn_styles(len(real))[: max(1, len(real) // 2)]
            lengths = path_lengths(lambda w: self.generator.synthesis(w, "random"), styles)
            mean = self.generator.path_length.lerp(lengths.detach().mean(), PATH_DECAY)
            self.generator.path_length.copy_(mean)
            penalty = (lengths - mean).square().mean()
        self.track({"train/path_penalty": penalty, "train/path_length": mean})
        loss: Tensor = self.settings.path_weight * penalty * PATH_EVERY
        return loss  # as if it were in every iteration

    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Return D's loss, mean softplus(-D(x)) + mean softplus(D(G(z))), on images [B, C, H, W] and as many fakes."""
        with torch.no_grad():
            fake = self.generator.synthesis(self.drawn_styles(len(real)), "random")
        logit = self.discriminator(self.augmented(real))
        loss = discriminator_loss(logit, self.discriminator(self.augmented(fake)))
        self.track_discriminator(logit)
        self.track({"train/discriminator": loss})
        return loss

    def slope_penalty(self, real: Tensor) -> Tensor:
        """Return the R1 penalty, gamma / 2 · mean ‖∇D(x)‖² · 16, at augmented images [B, C, H, W].

        ≠ code, which differentiates with respect to the images before they are augmented.
        """
        penalty = r1_penalty(self.discriminator, self.augmented(real))
        self.track({"train/penalty": penalty})
        return self.r1_weight / 2 * penalty * R1_EVERY  # as if it were in every iteration

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """As for other detectors; each image has noise inputs of its own, as in training and as StyleGAN2 is measured.

        Counterparts and sheets share the inputs of the network, so that images differ by their styles alone.
        """
        styles = self.averages.styles(self.averages.mapping(self.noise(n, generator)))
        return self.synthesised(styles, generator or "random")

    def drawn(self, z: Tensor) -> Tensor:
        return self.synthesised(self.averages.styles(self.averages.mapping(z)))

    def synthesised(self, styles: Tensor, noise: stylegan2.Noise = "constant") -> Tensor:
        """Return the images [n, C, H, W] of styles [n, L, W], in [-1, 1]."""
        image: Tensor = self.averages.synthesis(styles, noise)
        return image.clamp(-1, 1)

    def between(self, z: Tensor, other: Tensor, steps: int) -> Tensor:
        """As for noise vectors, but along straight lines between their styles w, which bend the images less."""
        start, end = (self.averages.mapping(noise)[:, None] for noise in (z, other))
        w = torch.lerp(start, end, torch.linspace(0, 1, steps, device=z.device)[None, :, None])
        return self.synthesised(self.averages.styles(w.flatten(0, 1)))

    def style_mixtures(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self.mixtures(coarse, fine, COARSE_STYLES)

    def mixtures(self, coarse: Tensor, fine: Tensor, count: int) -> Tensor:
        """Draw images that have the first `count` styles of each of `coarse` and the other ones of each of `fine`.

        Args:
            coarse: noise vectors [m, latent_dim].
            fine: noise vectors [n, latent_dim].
            count: 0 for the images of `fine` themselves, L for those of `coarse`.

        Returns:
            [n · m, C, H, W].
        """
        of_coarse, of_fine = (self.averages.styles(self.averages.mapping(z)) for z in (coarse, fine))
        n, m = len(fine), len(coarse)
        taken = of_coarse[None, :, :count].expand(n, -1, -1, -1), of_fine[:, None, count:].expand(-1, m, -1, -1)
        return self.synthesised(torch.cat(taken, 2).flatten(0, 1))

    def discriminator_output(self, image: Tensor) -> Tensor:
        logit: Tensor = self.discriminator(image)
        return logit

    # --- second phase: pSp ------------------------------------------------------------------------------------------

    def encoder_step(self, batches: Tensor) -> None:
        """Take one step of E on each mini-batch of [1, B, C, H, W]."""
        if self.iterations_done == self.settings.gan_iterations:
            self.encoder.mean.copy_(self.mean_style())
        for image in batches:
            self.step_optimizer("encoder", self.encoder_loss, image)

    @torch.no_grad()
    def mean_style(self) -> Tensor:
        """Return w̄ of the averaged generator, [W]."""
        with torch.autocast(self.device.type, enabled=False):
            w = [self.averages.mapping(self.noise(1000)).mean(0) for _ in range(MEAN_SAMPLES // 1000)]
        return torch.stack(w).mean(0)

    def encoder_loss(self, image: Tensor) -> Tensor:
        """Return E's loss (pSp, eq. 5) on images [B, C, H, W], with terms of D's features."""
        p = self.settings
        deviations = self.encoder.deviations(image)
        reconstruction = self.averages.synthesis(self.encoder.mean + deviations)
        terms = {
            "pixel": (p.pixel_weight, mean_squared(image, reconstruction).mean()),  # L_2
            "norm": (p.norm_weight, deviations.float().norm(dim=2).mean()),  # L_reg: ‖w - w̄‖
        }
        if p.perceptual_weight:  # L_LPIPS
            distance = perceptual_distance(self.taps(image), self.taps(reconstruction)).mean()
            terms["perceptual"] = (p.perceptual_weight, distance)
        if p.feature_weight:  # as f-AnoGAN's izi_f
            features = (self.discriminator.features(x) for x in (image, reconstruction))
            terms["feature"] = (p.feature_weight, mean_squared(*features).mean())
        loss = torch.stack([weight * term for weight, term in terms.values()]).sum()
        self.track({f"train/encoder_{name}": term for name, (_, term) in terms.items()} | {"train/encoder": loss})
        return loss

    def taps(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps of images [B, C, H, W] that the perceptual distance compares."""
        if self.teacher is None:
            return self.discriminator.taps(image)
        taps: list[Tensor] = self.teacher(((image + 1) / 2).expand(-1, 3, -1, -1))
        return taps

    # --- last phase and score ---------------------------------------------------------------------------------------

    def gather_step(self, batches: Tensor) -> None:
        """Measure each mini-batch of [1, B, C, H, W] on all ranks; learn what is normal in the last iteration.

        Training normals give the deviations of the components, because validation normals set the threshold. `styles`
        is measured with the axes of other images than these.
        """
        for image in batches:
            image_of_all_ranks = torch.as_tensor(self.all_gather(image)).reshape(-1, *image.shape[1:])
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                found = self.measured(image_of_all_ranks.float())
                rows = None if self.batch_rows is None else torch.as_tensor(self.all_gather(self.batch_rows)).flatten()
                fold = halves(image_of_all_ranks, rows)
            start = (self.iterations_done - self.schedule.span("gather").start) * len(image_of_all_ranks)
            self.normality.gather(found.codes, found.distances, found.maps, fold, start)
        if self.iterations_done + 1 == self.schedule.iterations:
            self.normality.learn()

    def measured(self, image: Tensor) -> Measured:
        """Invert images [B, C, H, W] and return codes, distances, maps and reconstructions."""
        codes = self.encoder.deviations(image)  # w - w̄: with w̄, rounding errors would be larger than the differences
        reconstruction = self.averages.synthesis(self.encoder.mean + self.settings.truncation * codes)
        residual = (image - reconstruction).abs().mean(1, keepdim=True)
        feature = mean_squared(self.discriminator.features(image), self.discriminator.features(reconstruction))
        round_trip = (codes - self.encoder.deviations(reconstruction)).square().sum(2)
        taps = self.taps(image), self.taps(reconstruction)
        apart = torch.stack([residual.flatten(1).mean(1), perceptual_distance(*taps), feature], 1)
        distances = torch.cat([apart, round_trip], 1)
        if self.settings.maps == "perceptual":
            residual = perceptual_map(*taps, image.shape[2:])
        return Measured(codes, distances, residual, reconstruction.clamp(-1, 1))

    def predict(self, image: Tensor) -> Prediction:
        """Score: chosen by `score`; map: chosen by `maps`, above that of normals."""
        with torch.no_grad():
            found = self.measured(image)
            components = self.normality.components(found.codes, found.distances)
            name = self.settings.score
            if name in SUMS:
                score = self.normality.standardised(components)[:, : SUMS[name]].sum(1)
            else:
                score = components[:, COMPONENTS.index(name)]
        side = image.shape[-1]
        sigma = MAP_BLUR * side
        reach = min(round(4 * sigma), side - 1)
        excess = (found.maps - self.normality.map).clamp_min(0)
        anomaly_map = gaussian_blur(excess, [2 * reach + 1] * 2, [sigma] * 2)
        return Prediction(score, anomaly_map, found.reconstruction, components=components)


def halves(image: Tensor, rows: Tensor | None) -> Tensor:
    """Return the half, 0 or 1, of each image [B, C, H, W]: the same for all augmented copies of a picture.

    Args:
        image: by whose pixels, which tell a picture from its copies, it goes where no rows are known.
        rows: of the store, [B].

    Examples:
        >>> halves(torch.rand(3, 1, 8, 8), rows=torch.tensor([3, 8, 3])).tolist()
        [0, 1, 0]
    """
    if rows is None:
        return (image.double().flatten(1).sum(1) * 4096).floor().long() % 2
    return (rows * 0x9E3779B1 >> 15) % 2  # hashed, as every other row of a list may be anomalous
