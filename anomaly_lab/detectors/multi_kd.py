"""Multi-KD: a small cloner is trained to reproduce a pretrained teacher's features of normal images; anomalies differ.

Salehi, Sadjadi, Baselizadeh, Rohban, Rabiee 2021, CVPR. Loss, score and defaults are those of the authors' code. It
minimises L_dir + lambda L_val, while the paper prints L_val + lambda L_dir: the same up to a factor, with the inverse
lambda.
"""

import math
from contextlib import nullcontext
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torchvision.transforms.functional import gaussian_blur

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.losses.distillation import directions, values
from anomaly_lab.networks.cloner import Cloner, guided
from anomaly_lab.networks.pretrained import Normalisation
from anomaly_lab.networks.teachers import BACKBONES, Teacher
from anomaly_lab.types import Channels, Iterations, Phase, Prediction, Range, Rate, Weight

SCORED_TAPS = 3  # the last three of four taps make up the score; the first is trained only
NOISE_SD = 0.05  # standard deviation of SmoothGrad's noise on images in [0, 1]
CLIP_QUANTILE = 0.99  # quantile at which the values of a map are clipped


class MultiKD(Detector):
    """One phase, `distillation`: the cloner is trained to match four layers of the frozen teacher.

    The teacher is part of the checkpoint, so that a trained run is evaluated without the file of its weights.

    Args:
        patch_size: height and width of the image, pixels, at least 32.
        in_channels: 1 or 3; grey images are repeated to three channels.
        teacher: a network of torchvision; the cloner takes on sizes and channels of its taps.
        teacher_weights: file of its weights, read when training starts; `random` draws them, for a trial.
        teacher_input: normalisation that these weights expect, see Normalised; the cloner's input is always in [0, 1].
        cloner_width: channels within the cloner's blocks; 0 for the teacher's, a cloner of equal size.
        value_weight: lambda, weight of the distance of values in loss and score; 0 leaves the directions alone.
        equalise: ≠ paper: divide each tap by its root mean square on the first mini-batch. It is for weights that
            expect inputs in 0..255 and give values of several hundred, which a cloner initialised near 0 never reaches.
        distillation_iterations: length of the training (the code: 51 passes over 6 000 digits).
        lr: learning rate.
        maps: gradient shown by the anomaly map: `plain`, `smoothgrad` (its mean over noisy copies) or `guided`.
        copies: number of noisy copies of an image for `smoothgrad`.
        map_sigma: standard deviation of the Gaussian blur of a map, pixels.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.MultiKD((32, 32), teacher="squeezenet1_0", teacher_weights="random", cloner_width=4)
        >>> detector.caveats
        ('the weights of the teacher squeezenet1_0 are random, not trained on ImageNet',)
        >>> detector.score({"image": torch.zeros(2, 1, 32, 32)}).anomaly_map.shape
        torch.Size([2, 1, 32, 32])
    """

    networks = ("cloner",)
    map_tolerance = 1e-2  # a gradient through max-pooling: 3e-3 was seen in one of sixteen images

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Range("[32, 2048]")] = (128, 128),
        in_channels: Channels = 1,
        teacher: Literal["vgg16", "squeezenet1_0", "resnet18"] = "vgg16",
        teacher_weights: str = "",
        teacher_input: Normalisation = "unit",
        cloner_width: Annotated[int, Range("[0, 4096]")] = 16,
        value_weight: Weight = 0.01,
        equalise: bool = False,
        distillation_iterations: Iterations = 5_000,
        lr: Rate = 1e-3,
        maps: Literal["plain", "smoothgrad", "guided"] = "guided",
        copies: Annotated[int, Range("[1, 1000]")] = 50,
        map_sigma: Annotated[float, Range("(0, 100]")] = 4.0,
    ) -> None:
        if in_channels not in (1, 3) or min(patch_size) < 32:
            raise ValueError(
                f"patch_size={patch_size}, in_channels={in_channels}: a teacher needs grey or colour images of at "
                "least 32×32 pixels"
            )
        super().__init__()
        self.save_hyperparameters()
        self.teacher = Teacher(teacher, teacher_input)
        self.cloner = Cloner(BACKBONES[teacher], cloner_width)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("distillation", self.settings.distillation_iterations, self.networks),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return (Adam(self.cloner.parameters(), self.settings.lr),)

    def load_pretrained(self) -> dict[str, Any]:
        """Read the teacher's weights.

        Returns:
            Name of the teacher, file and SHA-256 of the weights and whether they are random, for the record.

        Raises:
            UserError: the file is missing or contains something else.
        """
        p = self.settings
        is_random = p.teacher_weights == "random"
        digest = None if is_random else self.teacher.load(p.teacher_weights)
        return {"name": p.teacher, "weights": p.teacher_weights, "sha256": digest, "random": is_random}

    @property
    def no_graph(self) -> str:
        """A graph has no room for noise that is drawn by torch's generator and always the same."""
        return "the noise of maps=smoothgrad is drawn anew for each image" if self.settings.maps == "smoothgrad" else ""

    @property
    def caveats(self) -> tuple[str, ...]:
        caveat = f"the weights of the teacher {self.settings.teacher} are random, not trained on ImageNet"
        return (caveat,) if self.settings.teacher_weights == "random" else ()

    def distillation_step(self, batches: Tensor) -> None:
        """Take one step of the cloner on each mini-batch of [1, B, C, H, W]."""
        for image in batches:
            if self.settings.equalise and not self.iterations_done:
                self.cloner.scale.copy_(self._magnitudes(image))
            self.step_optimizer("cloner", self.distillation_loss, image)

    def distillation_loss(self, image: Tensor) -> Tensor:
        """Return the loss over all four taps, averaged over the batch [B, C, H, W]."""
        student, teacher = self.taps(colour(image))
        # L_dir = Σ_layers 1 - cos(s, t); L_val = Σ_layers mean (s - t)²
        direction, value = directions(student, teacher).mean(), values(student, teacher).mean()
        self.track({"train/direction": direction, "train/value": value})
        loss: Tensor = direction + self.settings.value_weight * value  # ≠ paper: L_val + lambda L_dir
        return loss

    def taps(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the four feature maps of cloner and teacher for images [B, 3, H, W] in [0, 1]."""
        teacher = [tap / scale for tap, scale in zip(self.teacher(image), self.cloner.scale, strict=True)]
        return self.cloner(image), teacher

    @torch.no_grad()
    def _magnitudes(self, image: Tensor) -> Tensor:
        """Return the root mean square of each of the teacher's taps, [4], over the images of all ranks."""
        squares = torch.stack([tap.float().square().mean() for tap in self.teacher(colour(image))])
        if self.trainer.world_size > 1:
            squares = self.trainer.strategy.reduce(squares, reduce_op="mean")
        return squares.sqrt().clamp_min(1e-6)

    def disagreement(self, image: Tensor) -> Tensor:
        """Return the score [B] of images [B, 3, H, W] in [0, 1]: the loss of each image over the last three taps."""
        student, teacher = (taps[-SCORED_TAPS:] for taps in self.taps(image))
        score: Tensor = directions(student, teacher) + self.settings.value_weight * values(student, teacher)
        return score

    def sensitivity(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return score [B] of images [B, 3, H, W] in [0, 1] and its gradient with respect to them; weights get none."""
        guidance = guided(self.cloner) if self.settings.maps == "guided" else nullcontext()
        with torch.enable_grad(), guidance:
            image = image.detach().clone().requires_grad_(True)
            score = self.disagreement(image)
            (slope,) = torch.autograd.grad(score.sum(), image)  # scores are independent: the gradient of each image
        return score.detach(), slope

    def predict(self, image: Tensor) -> Prediction:
        """Score: `disagreement`; map: its blurred gradient, see `anomaly_map`."""
        image = colour(image)
        score, slope = self.sensitivity(image)
        if self.settings.maps == "smoothgrad":
            slope = torch.stack([self.sensitivity(image + noise)[1] for noise in self._noise(image)]).mean(0)
        return Prediction(score, self.anomaly_map(slope))

    def _noise(self, image: Tensor) -> Tensor:
        """Return SmoothGrad's noise, [copies, 3, H, W], always the same, so that no image depends on earlier ones.

        ≠ code: there the standard deviation is (0.05 / range)², and each copy's map is rescaled before the mean.
        """
        shape = (self.settings.copies, *image.shape[1:])
        return NOISE_SD * torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(image.device)

    def anomaly_map(self, slope: Tensor) -> Tensor:
        """Convert gradients [B, 3, H, W] to anomaly maps [B, 1, H, W].

        A map is the absolute gradient, summed over channels, clipped at its 99th percentile and blurred.

        ≠ code: not rescaled to 0..1 per image, which would give a normal image a peak as high as a lesion's; no opening
        with an ellipse at every threshold.
        """
        size = slope.abs().sum(1, keepdim=True)
        flat = size.flatten(1)
        ceiling = flat.kthvalue(math.ceil(CLIP_QUANTILE * flat.shape[1]), dim=1).values
        reach = min(math.ceil(4 * self.settings.map_sigma), min(slope.shape[2:]) - 1)  # limited by the mirrored border
        blurred: Tensor = gaussian_blur(
            size.minimum(ceiling[:, None, None, None]), [2 * reach + 1] * 2, [self.settings.map_sigma] * 2
        )
        return blurred


def colour(image: Tensor) -> Tensor:
    """Convert images [B, C, H, W] in [-1, 1] to [B, 3, H, W] in [0, 1].

    Examples:
        >>> colour(torch.tensor([[[[-1.0, 1.0]]]])).tolist()
        [[[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]]]]
    """
    return ((image + 1) / 2).expand(-1, 3, -1, -1)
