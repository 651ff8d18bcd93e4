"""GBAD: a multi-label classifier whose predictions are damped where a BiGAN and an SVM find an image harmless.

S-GBAD 2020 (GAN-based anomaly detection for multi-threat classification of X-ray bags). The paper names the parts and
gives no sizes; these are our proposals. Its printed objective has 1 - log D where log(1 - D) is meant.
"""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.supervised import (
    Frozen,
    ImageSize,
    Input,
    OptimizerName,
    Rates,
    SupervisedDetector,
    Task,
    refuse_one_class_an_image,
)
from anomaly_lab.losses.cross_entropy import discriminator_loss, generator_loss
from anomaly_lab.losses.norms import difference_norm
from anomaly_lab.networks.averages import Averages
from anomaly_lab.networks.backbones import ARCHITECTURES, BackboneName
from anomaly_lab.networks.feature_pyramid import CHANNELS, LEVELS, FeaturePyramid, LevelClassifiers
from anomaly_lab.networks.svm import Kernel, SupportVectorMachine
from anomaly_lab.networks.vector_bigan import Standardised, VectorDiscriminator, VectorEncoder, VectorGenerator
from anomaly_lab.types import (
    Channels,
    CodeLength,
    Count,
    Iterations,
    Phase,
    Prediction,
    Range,
    Rate,
    UserError,
    Weight,
)


class GBAD(SupervisedDetector):
    """Three phases: `classifier`; `bigan`, on the classifier's features of normals; `svm`, on the BiGAN's two losses.

    Args:
        patch_size: height and width of the image, pixels, at least 32 (75 for inception_v3).
        in_channels: 1 or 3; grey images are repeated to three channels.
        classes: names of the classes, those of the data; "normal" is none of them.
        task: `multilabel`; the method has no other.
        backbone: name of the network below the feature pyramid.
        weights: file of a state dict of the backbone, read when training starts; `package` for those of the installed
            package; `random` draws them.
        weights_input: normalisation that the weights expect, see Normalised; `default` is that of their usual source.
        frozen: number of the backbone's first stages that are not trained.
        fuse: prediction of the classifier: `mean`, of the five logits, or `joint`, the fifth, which sees all levels.
        classifier_iterations: length of the phase `classifier`.
        optimizer: of the classifier; `sgd` with momentum 0.9, or `adamw`.
        lr: learning rate of the classifier at the beginning.
        lr_schedule: whether it falls to 0 along a cosine or stays.
        weight_decay: of the classifier.
        bigan_input: x, the pooled levels scaled to length 1, alone (`features`) or with the probabilities (`both`).
        latent_dim: length of z, drawn from N(0, 1).
        bigan_iterations: length of the phase `bigan`.
        bigan_minibatches: mini-batches that make up one batch of it.
        lr_bigan: learning rate of encoder, generator and discriminator.
        average_decay: decay of the moving averages of their weights, which make up the losses of the SVM.
        reconstruction_weight: weight of R in the generator's loss.
        reconstruction: R, the `mean` or `sum` over |x - G(E(x))|.
        reconstruction_moves: `generator`, as in the paper, or `both`: whether R reaches the encoder, too.
        normals: number of normals the SVM is fitted to. As many anomalous images are drawn meanwhile.
        anomalies: maximum number of these that it is fitted to; the first ones count.
        batch_size: size of a mini-batch, from which the length of the phase `svm` follows.
        kernel: of the SVM.
        cost: C of the SVM.
        held_out: share of the training patients that only the SVM sees, neither classifier nor BiGAN; 0, as in the
            paper, fits the SVM to features of images the classifier knows.
        damping: factor of the probabilities where the SVM finds an image harmless.
        soft: whether they are multiplied by the SVM's probability instead.
        score: `classes`, the highest damped probability; `svm`, its decision; `reconstruction` or `features`, R or FM.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.GBAD((64, 64), backbone="squeezenet1_0", classes=("gun", "knife"), normals=1_000)
        >>> for phase in detector.phases():
        ...     print(phase.name, phase.iterations, phase.cases)
        classifier 6000 balanced
        bigan 10000 normal
        svm 32 balanced
    """

    networks = ("classifier", "encoder", "generator", "discriminator", "standard", "machine")

    def __init__(
        self,
        patch_size: ImageSize = (224, 224),
        in_channels: Channels = 3,
        classes: tuple[str, ...] = ("anomalous",),
        task: Task = "multilabel",
        backbone: BackboneName = "resnet101",
        weights: str = "random",
        weights_input: Input = "default",
        frozen: Frozen = 0,
        fuse: Literal["mean", "joint"] = "mean",
        classifier_iterations: Iterations = 6_000,
        optimizer: OptimizerName = "sgd",
        lr: Rate = 0.01,
        lr_schedule: Rates = "cosine",
        weight_decay: Annotated[float, Range("[0, 1]")] = 1e-4,
        bigan_input: Literal["both", "features"] = "both",
        latent_dim: CodeLength = 64,
        bigan_iterations: Iterations = 10_000,
        bigan_minibatches: Annotated[int, Range("[1, 64]")] = 4,
        lr_bigan: Rate = 1e-4,
        average_decay: Annotated[float, Range("[0, 1)")] = 0.999,
        reconstruction_weight: Weight = 1.0,
        reconstruction: Literal["mean", "sum"] = "mean",
        reconstruction_moves: Literal["generator", "both"] = "generator",
        normals: Count = 50_000,
        anomalies: Count = 10_000,
        batch_size: Annotated[int, Range("[1, 65536]")] = 64,
        kernel: Kernel = "rbf",
        cost: Annotated[float, Range("(0, 1000000]")] = 1.0,
        held_out: Annotated[float, Range("[0, 0.9]")] = 0.0,
        damping: Annotated[float, Range("(0, 1]")] = 0.1,
        soft: bool = False,
        score: Literal["classes", "svm", "reconstruction", "features"] = "classes",
    ) -> None:
        refuse_one_class_an_image(task, "GBAD")
        super().__init__(backbone, patch_size, classes, task, frozen)
        self.save_hyperparameters()
        self.assemble(FeaturePyramid(ARCHITECTURES[backbone].widths), LevelClassifiers(len(classes)))
        length = LEVELS * CHANNELS + (len(classes) if bigan_input == "both" else 0)
        self.encoder, self.generator = VectorEncoder(length, latent_dim), VectorGenerator(length, latent_dim)
        self.discriminator, self.standard = VectorDiscriminator(length, latent_dim), Standardised(length)
        self.averages = Averages(self, ("encoder", "generator", "discriminator"), average_decay)
        self.machine = SupportVectorMachine(normals, anomalies, 2, kernel, cost)

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        bigan = ("encoder", "generator", "discriminator", "standard", "averages")
        gathered = math.ceil(2 * p.normals / p.batch_size)
        known, unseen = (0.0, 1 - p.held_out), (1 - p.held_out, 1.0) if p.held_out else (0.0, 1.0)
        return (
            Phase("classifier", p.classifier_iterations, ("classifier",), cases="balanced", share=known),
            Phase("bigan", p.bigan_iterations, bigan, p.bigan_minibatches, share=known),
            Phase("svm", gathered, ("machine",), cases="balanced", share=unseen),
        )

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        names, lr = ("encoder", "generator", "discriminator"), self.settings.lr_bigan
        bigan = (Adam(self.get_submodule(name).parameters(), lr, betas=(0.5, 0.999)) for name in names)
        return (*super().configure_optimizers(), *bigan)

    @property
    def ready(self) -> bool:
        """Whether the SVM is fitted, which is done at the end of the last phase."""
        return self.finished

    def fused(self, logits: Tensor) -> Tensor:
        return logits.mean(1) if self.settings.fuse == "mean" else logits[:, -1]

    def classifier_loss(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the binary cross-entropy of the prediction plus the mean of those of its five parts.

        Args:
            image: [B, C, H, W].
            target: [B, K].
        """
        logits = self.logits(self.maps(image))
        loss = self.entropy(self.fused(logits), target)
        parts = torch.stack([self.entropy(part, target) for part in logits.unbind(1)]).mean()
        self.track({"train/classifier": loss, "train/levels": parts})
        return loss + parts

    def drawn_rows(self, batch_size: int) -> set[int]:
        return super().drawn_rows(batch_size) | {batch_size * self.settings.bigan_minibatches}

    def bigan_step(self, batches: Tensor, targets: Tensor) -> None:
        """Take one step of D, of G and of E on the features of all mini-batches [minibatches, B, C, H, W]."""
        x = torch.cat([self.features(image) for image in batches])
        self.standard.follow(torch.as_tensor(self.all_gather(x)).reshape(-1, x.shape[1]))
        x = self.standard(x)
        self.step_optimizer("discriminator", self.discriminator_loss, x)
        self.step_optimizer("generator", self.generator_loss, x)
        self.step_optimizer("encoder", self.encoder_loss, x)
        self.averages.follow(self)

    def discriminator_loss(self, x: Tensor) -> Tensor:
        """Return the cross-entropy of pairs (x, E(x)), labelled real, against as many pairs (G(z), z); x: [B, F]."""
        z = self.noise(len(x))
        with torch.no_grad():
            code, fake = self.encoder(x), self.generator(z)
        # L_D = -mean log D(x, E(x)) - mean log(1 - D(G(z), z))
        loss = discriminator_loss(self.discriminator(x, code), self.discriminator(fake, z))
        self.track({"train/discriminator": loss})
        return loss

    def generator_loss(self, x: Tensor) -> Tensor:
        """Return the cross-entropy of pairs (G(z), z) as real, plus the weighted mean of R over x [B, F]."""
        z = self.noise(len(x))
        adversarial = generator_loss(self.discriminator(self.generator(z), z))
        with torch.no_grad():
            code = self.encoder(x)  # R is given to G alone
        distance = self.distance(x, self.generator(code)).mean()
        self.track({"train/generator": adversarial, "train/reconstruction": distance})
        loss: Tensor = adversarial + self.settings.reconstruction_weight * distance  # L_G = -mean log D(G(z), z) + w R
        return loss

    def encoder_loss(self, x: Tensor) -> Tensor:
        """Return the cross-entropy of pairs (x, E(x)) as generated, for x [B, F]; with `both`, plus w R."""
        code = self.encoder(x)
        loss = generator_loss(-self.discriminator(x, code))  # L_E = -mean log(1 - D(x, E(x)))
        self.track({"train/encoder": loss})
        if self.settings.reconstruction_moves == "both":  # ≠ paper: only G gets R
            loss = loss + self.settings.reconstruction_weight * self.distance(x, self.generator(code)).mean()
        return loss

    def svm_step(self, batches: Tensor, targets: Tensor) -> None:
        """Gather R and FM of the mini-batches [1, B, C, H, W] on all ranks; fit the SVM in the last iteration."""
        for image, target in zip(batches, targets, strict=True):
            # An image of which a class is unknown and none present is neither normal nor anomalous.
            label = torch.where((target == 1).any(1), 1, torch.where((target == 0).all(1), 0, -1))
            rows = torch.cat([self.losses(self.features(image)), label[:, None].float()], 1)
            rows = torch.as_tensor(self.all_gather(rows)).reshape(-1, 3)
            self.machine.gather(rows[:, :2], rows[:, 2].long())
        if self.iterations_done + 1 == self.schedule.iterations:
            self._fit_machine()

    def _fit_machine(self) -> None:
        if not self.machine.counts.all():
            raise UserError(
                f"GBAD's SVM was given {int(self.machine.counts[0])} normals and {int(self.machine.counts[1])} "
                "anomalous images: raise detector.normals, lower detector.held_out, or check the labels"
            )
        self.machine.learn()
        self.track({"train/support_vectors": self.machine.weights.count_nonzero().float()})

    @torch.no_grad()
    def features(self, image: Tensor) -> Tensor:
        """Return x [B, F] of images [B, C, H, W], not standardised, in float32."""
        with torch.autocast(image.device.type, enabled=False):
            levels = self.maps(image.float())
            return self.described(levels, self.probabilities(self.fused(self.logits(levels))))

    def described(self, levels: list[Tensor], probabilities: Tensor) -> Tensor:
        """Return x [B, F]: the pooled levels, scaled to length 1, beside the probabilities [B, K]."""
        pooled = torch.nn.functional.normalize(LevelClassifiers.pooled(levels), dim=1)
        return torch.cat([pooled, probabilities], 1) if self.settings.bigan_input == "both" else pooled

    def distance(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return R [B], the distance between x and its reconstruction, both [B, F]."""
        norm = difference_norm(x, x_hat)
        return norm / x.shape[1] if self.settings.reconstruction == "mean" else norm

    @torch.no_grad()
    def losses(self, x: Tensor) -> Tensor:
        """Return R = ‖x - G(E(x))‖₁ and FM = ‖f_D(x, E(x)) - f_D(G(E(x)), E(x))‖₂, [B, 2], for x [B, F] as it comes."""
        self.averages.eval()  # also in the phase `svm`, whose rows are to be what scoring computes
        encoder, generator, discriminator = (self.averages[name] for name in self.networks[1:4])
        with torch.autocast(x.device.type, enabled=False):
            x = self.standard(x)
            z = encoder(x)
            x_hat = generator(z)
            matching = difference_norm(discriminator.features(x, z), discriminator.features(x_hat, z), 2)
            return torch.stack([self.distance(x, x_hat), matching], 1)

    def noise(self, n: int) -> Tensor:
        """Draw z ~ N(0, 1), [n, latent_dim]."""
        return torch.randn(n, self.settings.latent_dim, device=self.device)

    def damped(self, probabilities: Tensor, decision: Tensor) -> Tensor:
        """Return probabilities [B, K] as the SVM's decisions [B] leave them; never higher than they were."""
        if not self.machine.fitted:
            return probabilities
        if self.settings.soft:
            factor = self.machine.probability(decision)
        else:
            factor = torch.where(decision > 0, 1.0, self.settings.damping)
        return probabilities * factor.to(probabilities)[:, None]

    @property
    def scores_probabilities(self) -> bool:
        return bool(self.settings.score == "classes")  # damped ones; the others have no upper end

    @torch.no_grad()
    def predict(self, image: Tensor) -> Prediction:
        """Score: the highest damped probability, or what `score` says; map: class activation of the levels."""
        levels = self.maps(image)
        probabilities = self.probabilities(self.fused(self.logits(levels)))
        losses = self.losses(self.described(levels, probabilities))
        decision = self.machine(losses)
        anomaly_map = self.activation_map(levels, probabilities, image.shape[2:])
        probabilities = self.damped(probabilities, decision)
        score = {
            "classes": self.score_of(probabilities),
            "svm": decision.float(),
            "reconstruction": losses[:, 0],
            "features": losses[:, 1],
        }[self.settings.score]
        return Prediction(score, anomaly_map, None, probabilities)
