"""Base class of supervised detectors: an image classifier that is trained on normal and anomalous images.

Backbone, heads and loss belong to each method; scores, probabilities and class activation maps are the same for all.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.losses.classification import multiclass_loss, multilabel_loss
from anomaly_lab.networks.backbones import ARCHITECTURES, FrozenStages, Stages, load
from anomaly_lab.networks.pretrained import Normalisation, Normalised
from anomaly_lab.types import Phase, Prediction, Range, UserError

Task = Literal["multiclass", "multilabel"]
Input = Literal["default"] | Normalisation
Cases = Literal["balanced", "all"]
OptimizerName = Literal["adamw", "sgd"]
Rates = Literal["cosine", "constant"]
Frozen = Annotated[int, Range("[0, 4]")]
ImageSize = Annotated[tuple[int, int], Range("[32, 2048]")]
NORMAL = "normal"  # the class whose probability is taken from 1


class ImageClassifier(nn.Module):
    """The trained part of a classifier.

    Args:
        stages: the stages of the backbone that are trained.
        neck: outputs of all stages -> the maps that are pooled.
        head: these maps -> logits [B, heads, K].
        auxiliary: map of the last stage but one -> logits [B, K], for training only; None for none.
    """

    def __init__(self, stages: Stages, neck: nn.Module, head: nn.Module, auxiliary: nn.Module | None = None) -> None:
        super().__init__()
        self.stages, self.neck, self.head, self.auxiliary = stages, neck, head, auxiliary


class SupervisedDetector(Detector):
    """A detector with a network `classifier`, trained in a phase of that name.

    A subclass calls `assemble` in its constructor. The score is 1 - P(normal) if each image has one class, of which the
    first stands for normal if none is called so; else it is the highest probability of a class.

    Settings:
        patch_size: height and width of the image, pixels, at least 32 (75 for inception_v3).
        in_channels: 1 or 3; grey images are repeated to three channels.
        classes: names of the classes, those of the data.
        task: `multiclass`, one class an image, or `multilabel`, any number of them.
        backbone: name of the network below the head.
        weights: file of a state dict of the backbone, read when training starts; `package` for those of the installed
            package; `random` draws them.
        weights_input: normalisation that the weights expect, see Normalised; `default` is that of their usual source.
        frozen: number of the backbone's first stages that are not trained.
        sampling: images that an epoch draws: `balanced`, all anomalous ones and as many normal ones, or `all`.
        classifier_iterations: length of the phase.
        optimizer: `adamw`, or `sgd` with momentum 0.9.
        lr: learning rate at the beginning.
        lr_schedule: whether it falls to 0 along a cosine or stays.
        weight_decay: of all weights.
    """

    supervised: ClassVar[bool] = True
    networks: tuple[str, ...] = ("classifier",)
    selected_phase: ClassVar[str] = "classifier"  # at its end the callback best_validation restores the best weights
    classifier: ImageClassifier
    class_weight: Tensor

    def __init__(
        self, backbone: str, patch_size: Sequence[int], classes: Sequence[str], task: str, frozen: int
    ) -> None:
        refuse(backbone, patch_size, classes, task, frozen)
        super().__init__()

    def assemble(self, neck: nn.Module, head: nn.Module, auxiliary: nn.Module | None = None) -> None:
        """Create the network from the parts above the backbone; see ImageClassifier."""
        p = self.settings
        normalisation = ARCHITECTURES[p.backbone].normalisation if p.weights_input == "default" else p.weights_input
        self.normalised = Normalised(normalisation)
        self.frozen = FrozenStages(p.backbone, p.frozen)
        self.classifier = ImageClassifier(Stages(p.backbone, p.frozen), neck, head, auxiliary)
        self.register_buffer("class_weight", torch.ones(len(p.classes)))

    @abstractmethod
    def fused(self, logits: Tensor) -> Tensor:
        """Return the logits of the prediction, [B, K], from those of all heads, [B, heads, K]."""

    @abstractmethod
    def classifier_loss(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the loss of images [B, C, H, W] with targets [B, K], a scalar."""

    def phases(self) -> tuple[Phase, ...]:
        p = self.settings
        return (Phase("classifier", p.classifier_iterations, ("classifier",), cases=p.sampling),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        p, weights = self.settings, self.classifier.parameters()
        if p.optimizer == "sgd":
            return (SGD(weights, p.lr, momentum=0.9, weight_decay=p.weight_decay),)
        return (AdamW(weights, p.lr, weight_decay=p.weight_decay),)

    def load_pretrained(self) -> dict[str, Any]:
        """Read the backbone's weights.

        Returns:
            Name of the backbone, file and SHA-256 of the weights and whether they are random, for the record.

        Raises:
            UserError: the file is missing or contains something else.
        """
        p = self.settings
        is_random = p.weights == "random"
        sha256 = None if is_random else load((self.frozen, self.classifier.stages), p.weights)
        return {"name": p.backbone, "weights": p.weights, "sha256": sha256, "random": is_random}

    @property
    def caveats(self) -> tuple[str, ...]:
        p = self.settings
        if p.weights != "random" or p.backbone == "simple":
            return ()
        return (f"the backbone {p.backbone} begins with random weights, not with those of ImageNet",)

    def classifier_step(self, batches: Tensor, targets: Tensor) -> None:
        """Take one step of the classifier on each mini-batch of [1, B, C, H, W] with targets [1, B, K]."""
        self.set_rate("classifier", self.settings.lr)
        for image, target in zip(batches, targets, strict=True):
            self.step_optimizer("classifier", self.classifier_loss, image, target)

    def set_rate(self, network: str, lr: float) -> None:
        """Set a network's learning rate for this iteration of its phase."""
        if self.settings.lr_schedule == "cosine":
            span = self.schedule.span(self.phase.name)
            lr *= (1 + math.cos(math.pi * (self.iterations_done - span.start) / len(span))) / 2
        for group in self._optimizer(network).param_groups:
            group["lr"] = lr

    def stages(self, image: Tensor) -> list[Tensor]:
        """Return the outputs of all stages of the backbone for images [B, C, H, W] in [-1, 1]."""
        colour = image.expand(-1, 3, -1, -1)
        taps: list[Tensor] = self.frozen(self.normalised((colour + 1) / 2))
        if self.settings.frozen < len(ARCHITECTURES[self.settings.backbone].ends):
            taps += self.classifier.stages(taps[-1] if taps else self.normalised((colour + 1) / 2))
        return taps

    def maps(self, image: Tensor) -> list[Tensor]:
        """Return the maps that the heads pool, for images [B, C, H, W]."""
        maps: list[Tensor] = self.classifier.neck(self.stages(image))
        return maps

    def logits(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the logits of all heads for the maps they pool, [B, heads, K], in float32 at any precision."""
        with torch.autocast(maps[-1].device.type, enabled=False):
            logits: Tensor = self.classifier.head(maps)
            return logits

    @property
    def couples_batch(self) -> bool:
        """The mean of a multi-label loss is over the targets that are known, of which each mini-batch has others."""
        return super().couples_batch or bool(self.settings.task == "multilabel")

    def entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of logits [B, K] and targets [B, K] as the task has it, with the class weights."""
        loss = multiclass_loss if self.settings.task == "multiclass" else multilabel_loss
        return loss(logits, target, self.class_weight)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class, [B, K]."""
        return logits.softmax(1) if self.settings.task == "multiclass" else logits.sigmoid()

    @property
    def normal_class(self) -> int | None:
        """Number of the class that stands for normal; None if any number of classes may be present."""
        if self.settings.task == "multilabel":
            return None
        return list(self.settings.classes).index(NORMAL) if NORMAL in self.settings.classes else 0

    @property
    def scores_probabilities(self) -> bool:
        return True

    def predict(self, image: Tensor) -> Prediction:
        """Score: 1 - P(normal) or the highest probability; map: class activation of the most probable anomaly."""
        with torch.no_grad():
            maps = self.maps(image)
            probabilities = self.probabilities(self.fused(self.logits(maps)))
        score = self.score_of(probabilities)
        return Prediction(score, self.activation_map(maps, probabilities, image.shape[2:]), None, probabilities)

    def score_of(self, probabilities: Tensor) -> Tensor:
        """Return the score [B] of images with these probabilities, [B, K]."""
        normal = self.normal_class
        if normal is None:
            return probabilities.amax(1)
        others = [i for i in range(probabilities.shape[1]) if i != normal]
        return probabilities[:, others].sum(1)  # 1 - P(normal), without the rounding of a P near 1

    def activation_map(self, maps: Sequence[Tensor], probabilities: Tensor, size: Sequence[int]) -> Tensor:
        """Return where the evidence for the most probable anomalous class is, [B, 1, H, W], at least 0.

        It is the product of each map with the gradient of the class's logit, summed over channels (Draelos, Carin
        2020). Below a linear head it is the class activation map of Zhou et al. 2016. If each image has one class, the
        logit is that of the class minus that of the normal one, since a common shift of all logits means nothing.

        Args:
            maps: the maps that the heads pool, each [B, C', H', W'].
            probabilities: [B, K].
            size: H and W.
        """
        normal, hidden = self.normal_class, probabilities.clone()
        if normal is not None:
            hidden[:, normal] = -1
        chosen = hidden.argmax(1, keepdim=True)
        with torch.enable_grad():
            maps = [part.detach().requires_grad_() for part in maps]
            logits = self.fused(self.logits(maps))
            evidence = logits.gather(1, chosen).sum() - (0 if normal is None else logits[:, normal].sum())
            slopes = torch.autograd.grad(evidence, maps, allow_unused=True)
        total = torch.zeros(probabilities.shape[0], 1, *size, device=probabilities.device)
        for part, slope in zip(maps, slopes, strict=True):
            if slope is not None:
                share = (part.detach() * slope).sum(1, keepdim=True) * slope[0, 0].numel()
                total += F.interpolate(share, size=tuple(size), mode="bilinear", align_corners=False)
        return total.clamp_min(0)


def refuse(backbone: str, patch_size: Sequence[int], classes: Sequence[str], task: str, frozen: int) -> None:
    """Check settings that do not go together.

    Raises:
        UserError: the image is too small for the backbone, it has fewer stages than are to be frozen, or there are too
            few classes or two of the same name.
    """
    architecture, stages = ARCHITECTURES[backbone], len(ARCHITECTURES[backbone].ends)
    if min(patch_size) < architecture.least:
        raise UserError(
            f"data.patch_size={list(patch_size)}: {backbone} needs at least {architecture.least} pixels a side"
        )
    if frozen > stages:
        raise UserError(f"detector.frozen={frozen}: {backbone} has {stages} stages")
    if len(set(classes)) < len(classes):
        raise UserError(f"data.classes={list(classes)}: a class is named twice")
    if len(classes) < (2 if task == "multiclass" else 1):
        raise UserError(
            f"data.classes={list(classes)}: data.target_type={task} needs {'two' if classes else 'one'} or more"
        )


def refuse_one_class_an_image(task: str, name: str) -> None:
    """Check that each class is a yes or no of its own.

    Raises:
        UserError: each image has exactly one class.
    """
    if task != "multilabel":
        raise UserError(
            f"data.target_type={task}: {name} decides on each class by itself; set data.target_type=multilabel and "
            "data.classes to the anomalous classes, or take the detector classifier"
        )
