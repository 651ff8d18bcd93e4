"""Classifier: a convolutional network that is trained on images of all classes, the supervised baseline of two papers.

Backbones and heads as in the comparison of GBAD (2020; plain networks on SIXray, Miao et al. 2019) and in the study on
fundus photographs (2020). These do not state optimiser, learning rate and length; the defaults are ours.
"""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from anomaly_lab.detectors.families.supervised import (
    Cases,
    Frozen,
    ImageSize,
    Input,
    OptimizerName,
    Rates,
    SupervisedDetector,
    Task,
)
from anomaly_lab.losses.classification import class_weights
from anomaly_lab.networks.backbones import ARCHITECTURES, AUXILIARY_SIDE, BackboneName, auxiliary_head, output_size
from anomaly_lab.networks.heads import Head, HeadName
from anomaly_lab.types import Channels, Fraction, Iterations, Range, Rate

AUXILIARY_WEIGHT = 0.3  # Szegedy et al. 2015, section 5


class Classifier(SupervisedDetector):
    """One phase, `classifier`: all layers, or those above the first few stages, are trained with cross-entropy.

    Args:
        patch_size: height and width of the image, pixels, at least 32 (75 for inception_v3).
        in_channels: 1 or 3; grey images are repeated to three channels.
        classes: names of the classes, those of the data.
        task: `multiclass`, one class an image, or `multilabel`, any number of them.
        backbone: name of the network below the head.
        weights: file of a state dict of the backbone, read when training starts; `package` for those of the installed
            package; `random` draws them.
        weights_input: normalisation that the weights expect, see Normalised; `default` is that of their usual source.
        head: `linear`, one layer on the mean of each channel; `dense`, two with 256 units between; `flatten`, the same
            two on all values of the last map, as in the study on fundus photographs.
        dropout: probability of dropping an input of the last layer.
        frozen: number of the backbone's first stages that are not trained.
        sampling: images that an epoch draws: `balanced`, all anomalous ones and as many normal ones, or `all`.
        weigh_classes: whether rare classes weigh more in the loss, by the numbers of training images.
        classifier_iterations: length of the training.
        optimizer: `adamw`, or `sgd` with momentum 0.9.
        lr: learning rate at the beginning.
        lr_schedule: whether it falls to 0 along a cosine or stays.
        weight_decay: of all weights.

    Examples:
        >>> import torch
        >>> from anomaly_lab import detectors
        >>> detector = detectors.Classifier((64, 64), backbone="squeezenet1_0", classes=("normal", "cyst", "tumour"))
        >>> prediction = detector.score({"image": torch.zeros(2, 3, 64, 64)})
        >>> prediction.anomaly_score.shape, prediction.probabilities.shape, prediction.anomaly_map.shape
        (torch.Size([2]), torch.Size([2, 3]), torch.Size([2, 1, 64, 64]))
    """

    def __init__(
        self,
        patch_size: ImageSize = (224, 224),
        in_channels: Channels = 3,
        classes: tuple[str, ...] = ("normal", "anomalous"),
        task: Task = "multiclass",
        backbone: BackboneName = "resnet50",
        weights: str = "random",
        weights_input: Input = "default",
        head: HeadName = "linear",
        dropout: Fraction = 0.5,
        frozen: Frozen = 0,
        sampling: Cases = "all",
        weigh_classes: bool = False,
        classifier_iterations: Iterations = 6_000,
        optimizer: OptimizerName = "adamw",
        lr: Rate = 1e-4,
        lr_schedule: Rates = "cosine",
        weight_decay: Annotated[float, Range("[0, 1]")] = 0.01,
    ) -> None:
        super().__init__(backbone, patch_size, classes, task, frozen)
        self.save_hyperparameters()
        width = ARCHITECTURES[backbone].widths[-1]
        side = output_size(backbone, patch_size) if head == "flatten" else (1, 1)
        auxiliary = auxiliary_head(len(classes)) if backbone == "inception_v3" else None
        self.assemble(nn.Identity(), Head((width, *side), len(classes), head, dropout), auxiliary)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.settings.weigh_classes and not self.iterations_done:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            self.class_weight.copy_(class_weights(torch.as_tensor(data.class_counts()), self.settings.task))

    @property
    def couples_batch(self) -> bool:
        """The mean of a weighted loss is divided by the weights in the mini-batch."""
        return super().couples_batch or bool(self.settings.weigh_classes)

    def fused(self, logits: Tensor) -> Tensor:
        return logits[:, 0]

    def classifier_loss(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of images [B, C, H, W] with targets [B, K].

        Inception v3 adds 0.3 times that of its auxiliary classifier, if the image is large enough for it.
        """
        maps = self.maps(image)
        loss = self.entropy(self.fused(self.logits(maps)), target)
        self.track({"train/classifier": loss})
        auxiliary = self.classifier.auxiliary
        if auxiliary is not None and min(maps[-2].shape[2:]) >= AUXILIARY_SIDE:
            extra = self.entropy(auxiliary(maps[-2]), target)
            self.track({"train/auxiliary": extra})
            loss = loss + AUXILIARY_WEIGHT * extra
        return loss
