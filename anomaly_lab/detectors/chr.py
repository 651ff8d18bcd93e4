"""CHR, class-balanced hierarchical refinement: a multi-label classifier with heads on three stages of a backbone.

Miao, Xie, Wan, Su, Liu, Jiao, Ye 2019, CVPR (SIXray). Layers, loss and settings are those of the authors' code.
"""

from typing import Annotated, Literal

from torch import Tensor

from anomaly_lab.detectors.families.supervised import (
    Cases,
    Frozen,
    ImageSize,
    Input,
    OptimizerName,
    Rates,
    SupervisedDetector,
    Task,
    refuse_one_class_an_image,
)
from anomaly_lab.losses.refinement import Balance, refinement_loss
from anomaly_lab.networks.backbones import ARCHITECTURES, BackboneName
from anomaly_lab.networks.chr import RefinedHeads, Refinement
from anomaly_lab.types import Channels, Iterations, Range, Rate


class CHR(SupervisedDetector):
    """One phase, `classifier`: backbone, refinement and the three heads are trained on the sum of the heads' losses.

    Args:
        patch_size: height and width of the image, pixels, at least 32 (75 for inception_v3).
        in_channels: 1 or 3; grey images are repeated to three channels.
        classes: names of the classes, those of the data; "normal" is none of them.
        task: `multilabel`; the method has no other.
        backbone: name of the network whose last three stages are refined (the paper: resnet101).
        weights: file of a state dict of the backbone, read when training starts; `package` for those of the installed
            package; `random` draws them.
        weights_input: normalisation that the weights expect, see Normalised; `default` is that of their usual source.
        balance: loss as in the authors' `code`, which drops negatives with a logit below -20, or our reading of the
            `paper`, which weights the two sides of each class.
        prediction: `head1`, that of the deepest stage, as in the code, or `mean`, the mean of the three logits.
        frozen: number of the backbone's first stages that are not trained.
        sampling: images that an epoch draws: `all`, or `balanced`, all anomalous ones and as many normal ones.
        classifier_iterations: length of the training.
        optimizer: `sgd` with momentum 0.9, or `adamw`.
        lr: learning rate at the beginning.
        lr_schedule: whether it falls to 0 along a cosine or stays; in the code it stays.
        weight_decay: of all weights.

    Examples:
        >>> import torch
        >>> from anomaly_lab import detectors
        >>> detector = detectors.CHR((64, 64), backbone="squeezenet1_0", classes=("gun", "knife"))
        >>> detector.score({"image": torch.zeros(2, 3, 64, 64)}).probabilities.shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        patch_size: ImageSize = (224, 224),
        in_channels: Channels = 3,
        classes: tuple[str, ...] = ("anomalous",),
        task: Task = "multilabel",
        backbone: BackboneName = "resnet101",
        weights: str = "random",
        weights_input: Input = "default",
        balance: Balance = "code",
        prediction: Literal["head1", "mean"] = "head1",
        frozen: Frozen = 0,
        sampling: Cases = "all",
        classifier_iterations: Iterations = 18_000,
        optimizer: OptimizerName = "sgd",
        lr: Rate = 0.01,
        lr_schedule: Rates = "constant",
        weight_decay: Annotated[float, Range("[0, 1]")] = 1e-4,
    ) -> None:
        refuse_one_class_an_image(task, "CHR")
        super().__init__(backbone, patch_size, classes, task, frozen)
        self.save_hyperparameters()
        widths = ARCHITECTURES[backbone].widths
        self.assemble(Refinement(widths), RefinedHeads(widths, len(classes)))

    @property
    def caveats(self) -> tuple[str, ...]:
        reading = "balance=paper is our reading of the paper's abstract, not the published loss"
        return super().caveats + ((reading,) if self.settings.balance == "paper" else ())

    def fused(self, logits: Tensor) -> Tensor:
        return logits[:, 0] if self.settings.prediction == "head1" else logits.mean(1)

    def classifier_loss(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the sum of the heads' balanced cross-entropies of images [B, C, H, W] with targets [B, K]."""
        loss = refinement_loss(self.logits(self.maps(image)), target, self.settings.balance)
        self.track({"train/classifier": loss})
        return loss
