"""Multi-KD: a small cloner learns to see normal images as a pretrained teacher does; where they disagree is anomalous.

Salehi, Sadjadi, Baselizadeh, Rohban, Rabiee 2021, CVPR. Loss, score and defaults are those of the authors' code, whose
loss is the paper's over its lambda: the directions count once, the values lambda times.
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

SCORED = 3  # of the four taps, the last ones; the first is learnt but not judged by
NOISE = 0.05  # standard deviation of SmoothGrad's noise on images in [0, 1]
CLIP = 0.99  # quantile of a map's values, its ceiling


class MultiKD(Detector):
    """One phase, `distillation`: the cloner descends towards four layers of the frozen teacher.

    The teacher is part of the checkpoint: a trained run is judged without the file its weights came from.

    Args:
        patch_size: sides of the image, pixels, at least 32.
        in_channels: 1 or 3; grey images become colour ones of three equal channels.
        teacher: a torchvision network; the cloner takes its taps' sizes and channels.
        teacher_weights: its file, read when the training begins; `random` draws them, to try things out.
        teacher_input: what these weights expect, see Teacher; the cloner sees the image in [0, 1] in any case.
        cloner_width: channels within the cloner's blocks; 0 for the teacher's, a cloner of equal size.
        value_weight: lambda of the values' distance, in loss and score; 0 leaves the directions alone.
        equalise: ≠ paper: divide each tap by its root mean square on the first normals. For weights that are used to
            0..255 and give values of hundreds, which a cloner that starts near 0 never reaches.
        distillation_iterations: length of the training (the code: 51 passes over 6 000 digits).
        lr: learning rate.
        maps: gradient that the anomaly map shows: `plain`, `smoothgrad` its mean over noisy copies, `guided`.
        copies: of an image, for `smoothgrad`.
        map_sigma: of the Gaussian that blurs a map, pixels.
    """

    networks = ("cloner",)

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
            raise ValueError("a teacher sees grey or colour images of at least 32×32 pixels")
        super().__init__()
        self.save_hyperparameters()
        self.teacher = Teacher(teacher, teacher_input)
        self.cloner = Cloner(BACKBONES[teacher], cloner_width)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("distillation", self.settings.distillation_iterations, self.networks),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return (Adam(self.cloner.parameters(), self.settings.lr),)

    def load_pretrained(self) -> dict[str, Any]:
        """Read the teacher's weights; returns what the record should say of them.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        p = self.settings
        asked_random = p.teacher_weights == "random"
        digest = None if asked_random else self.teacher.load(p.teacher_weights)
        return {"name": p.teacher, "weights": p.teacher_weights, "sha256": digest, "random": asked_random}

    @property
    def caveats(self) -> tuple[str, ...]:
        random = f"the weights of the teacher {self.settings.teacher} are random, not learnt on ImageNet"
        return (random,) if self.settings.teacher_weights == "random" else ()

    def distillation_step(self, batches: Tensor) -> None:
        """The cloner moves once on each mini-batch of [1, B, C, H, W]."""
        for image in batches:
            if self.settings.equalise and not self.iterations_done:
                self.cloner.scale.copy_(self._magnitudes(image))
            self.step_optimizer("cloner", self.distillation_loss, image)

    def distillation_loss(self, image: Tensor) -> Tensor:
        """Directions and lambda times values over all four taps, mean over the batch [B, C, H, W]."""
        student, teacher = self.taps(colour(image))
        direction, value = directions(student, teacher).mean(), values(student, teacher).mean()
        self.track({"train/direction": direction, "train/value": value})
        loss: Tensor = direction + self.settings.value_weight * value
        return loss

    def taps(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The cloner's and the teacher's four maps of images [B, 3, H, W] in [0, 1]."""
        teacher = [tap / scale for tap, scale in zip(self.teacher(image), self.cloner.scale, strict=True)]
        return self.cloner(image), teacher

    @torch.no_grad()
    def _magnitudes(self, image: Tensor) -> Tensor:
        """Root mean square of each of the teacher's taps, [4], over all ranks' images."""
        found = torch.stack([tap.float().square().mean().sqrt() for tap in self.teacher(colour(image))])
        if self.trainer.world_size > 1:
            found = self.trainer.strategy.reduce(found, reduce_op="mean")
        return found.clamp_min(1e-6)

    def disagreement(self, image: Tensor) -> Tensor:
        """The score [B] of images [B, 3, H, W] in [0, 1]: directions and lambda times values over the last taps."""
        student, teacher = (taps[-SCORED:] for taps in self.taps(image))
        score: Tensor = directions(student, teacher) + self.settings.value_weight * values(student, teacher)
        return score

    def sensitivity(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Score [B] of images [B, 3, H, W] in [0, 1] and its gradient towards them; no weight gets any."""
        guidance = guided(self.cloner) if self.settings.maps == "guided" else nullcontext()
        with torch.enable_grad(), guidance:
            image = image.detach().clone().requires_grad_(True)
            score = self.disagreement(image)
            (slope,) = torch.autograd.grad(score.sum(), image)  # of a sum: no image's score moves another's pixels
        return score.detach(), slope

    def predict(self, image: Tensor) -> Prediction:
        """Score: `disagreement`; map: its blurred gradient, see `anomaly_map`."""
        image = colour(image)
        score, slope = self.sensitivity(image)
        if self.settings.maps == "smoothgrad":
            slope = torch.stack([self.sensitivity(image + noise)[1] for noise in self._noise(image)]).mean(0)
        return Prediction(score, self.anomaly_map(slope))

    def _noise(self, image: Tensor) -> Tensor:
        """SmoothGrad's noise, [copies, 3, H, W]: always the same, for no image may depend on what came before it.

        ≠ code: its deviation there is (0.05 / range)², and each copy's map is stretched before the mean.
        """
        shape = (self.settings.copies, *image.shape[1:])
        return NOISE * torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(image.device)

    def anomaly_map(self, slope: Tensor) -> Tensor:
        """Gradients [B, 3, H, W] as maps [B, 1, H, W]: size over channels, the highest hundredth cut off, blurred.

        ≠ code: not stretched to 0..1 image by image, which would give a normal one a peak as high as a lesion's; nor
        opened by an ellipse at every threshold.
        """
        size = slope.abs().sum(1, keepdim=True)
        flat = size.flatten(1)
        ceiling = flat.kthvalue(math.ceil(CLIP * flat.shape[1]), dim=1).values
        reach = min(math.ceil(4 * self.settings.map_sigma), min(slope.shape[2:]) - 1)  # the blur mirrors at the border
        blurred: Tensor = gaussian_blur(
            size.minimum(ceiling[:, None, None, None]), [2 * reach + 1] * 2, [self.settings.map_sigma] * 2
        )
        return blurred


def colour(image: Tensor) -> Tensor:
    """Images [B, C, H, W] in [-1, 1] as [B, 3, H, W] in [0, 1]."""
    return ((image + 1) / 2).expand(-1, 3, -1, -1)
