"""Denoising autoencoder with coarse noise: a U-Net learns to remove blotches from normals and takes lesions for such.

Kascenas, Pugeault, O'Neil 2022, MIDL, PMLR 172, 653-664. Networks, noise and optimiser as in the authors' code. Fine
noise would be removed by its looks; blotches of the size of lesions can only be told by what belongs at their place.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.networks.denoising_unet import DenoisingUNet
from anomaly_lab.types import Channels, Iterations, Phase, Prediction, Range, Rate, Width

LEVELS = 4  # of the U-Net
BACKGROUND = 0.01  # sum over the channels in [0, 1] up to which a pixel is background
WINDOW = 5  # pixels: side of the windows that erode the foreground and filter the map


class DenoisingAE(Detector):
    """One phase, `denoising`: the U-Net is trained to restore normals to which coarse noise was added.

    Args:
        patch_size: height and width of the image, multiples of 8, at least 16.
        in_channels: 1 or 3.
        width: channels at full resolution.
        noise: standard deviation of the noise, for pixels in [0, 1].
        cells: number of independent values of the noise along each side; between them it is interpolated.
        denoising_iterations: length of the training.
        lr: learning rate at the beginning; it falls to 0 along a cosine.
        weight_decay: of all weights.

    Examples:
        >>> from anomaly_lab import detectors
        >>> detector = detectors.DenoisingAE(patch_size=(32, 32), width=8, cells=4)
        >>> prediction = detector.score({"image": torch.zeros(2, 1, 32, 32)})
        >>> torch.allclose(prediction.anomaly_score, prediction.anomaly_map.mean((1, 2, 3)))
        True
    """

    networks = ("unet",)

    def __init__(
        self,
        patch_size: Annotated[tuple[int, int], Range("[16, 2048]")] = (128, 128),
        in_channels: Channels = 1,
        width: Width = 64,
        noise: Annotated[float, Range("(0, 10]")] = 0.2,
        cells: Annotated[int, Range("[2, 1024]")] = 16,
        denoising_iterations: Iterations = 67_200,
        lr: Rate = 1e-4,
        weight_decay: Annotated[float, Range("[0, 1]")] = 1e-5,
    ) -> None:
        if any(side < 16 or side % 2 ** (LEVELS - 1) for side in patch_size):
            raise ValueError(f"patch_size={tuple(patch_size)}: takes multiples of {2 ** (LEVELS - 1)} from 16")
        super().__init__()
        self.save_hyperparameters()
        self.unet = DenoisingUNet(in_channels, width, LEVELS)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("denoising", self.settings.denoising_iterations, self.networks),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        p = self.settings
        return (Adam(self.unet.parameters(), p.lr, weight_decay=p.weight_decay, amsgrad=True),)

    def denoising_step(self, batches: Tensor) -> None:
        """Take one step of the U-Net on each mini-batch of [1, B, C, H, W]."""
        p = self.settings
        # ≠ code: there the cosine has a half period of 3 200 iterations, so that the rate rises again and again
        lr = p.lr * (1 + math.cos(math.pi * self.iterations_done / p.denoising_iterations)) / 2
        for group in self._optimizer("unet").param_groups:
            group["lr"] = lr
        for image in batches:
            self.step_optimizer("unet", self.denoising_loss, image)

    def denoising_loss(self, image: Tensor) -> Tensor:
        """Return the mean squared error of the restored foreground of images [B, C, H, W] with noise."""
        seen = foreground(image)
        noise = coarse_noise(image, self.settings.cells) * (2 * self.settings.noise)  # for pixels in [-1, 1]
        error = (self.unet(image + noise * seen).float() - image) * seen
        loss: Tensor = error.square().mean()
        self.track({"train/denoising": loss})
        return loss

    @torch.no_grad()
    def predict(self, image: Tensor) -> Prediction:
        """Map: absolute residual within the eroded foreground, median-filtered; score: mean of the map.

        ≠ paper: it has no score of an image.
        """
        restored = self.unet(image)
        seen = foreground(image).to(image.dtype)
        inner = F.avg_pool2d(seen, WINDOW, 1, WINDOW // 2, count_include_pad=False) > 0.95
        residual = ((image - restored).abs() * inner).mean(1, keepdim=True)
        anomaly_map = median_filtered(residual)
        return Prediction(anomaly_map.flatten(1).mean(1), anomaly_map, restored.clamp(-1, 1))


def coarse_noise(image: Tensor, cells: int) -> Tensor:
    """Draw noise like `image` [B, C, H, W]: Gaussian on a grid of cells², enlarged and moved round by a random shift.

    ≠ code: the shift is drawn for each image, not for each mini-batch.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> coarse_noise(torch.zeros(2, 1, 16, 16), cells=4).shape
        torch.Size([2, 1, 16, 16])
    """
    n, channels, *sides = image.shape
    grid = torch.randn(n, channels, cells, cells, device=image.device)
    noise = F.interpolate(grid, size=tuple(sides), mode="bilinear", align_corners=True)
    for axis, side in enumerate(sides, 2):
        shift = torch.randint(side, (n, 1), device=image.device)
        place = (torch.arange(side, device=image.device) + shift) % side
        shape = [n, 1, 1, 1]
        shape[axis] = side
        noise = noise.gather(axis, place.view(shape).expand_as(noise))
    return noise


def foreground(image: Tensor) -> Tensor:
    """Return where images [B, C, H, W] in [-1, 1] are not black, bool [B, 1, H, W].

    Examples:
        >>> foreground(torch.tensor([[[[-1.0, -0.5]]]])).tolist()
        [[[[False, True]]]]
    """
    return ((image.float() + 1) / 2).sum(1, keepdim=True) > BACKGROUND


def median_filtered(maps: Tensor) -> Tensor:
    """Return the medians of maps [B, 1, H, W] in windows of 5×5 pixels, mirrored at the border.

    Examples:
        >>> spike = torch.zeros(1, 1, 8, 8)
        >>> spike[0, 0, 4, 4] = 1
        >>> median_filtered(spike).max().item()  # a single pixel is no lesion
        0.0
    """
    reach = WINDOW // 2
    padded = F.pad(maps, (reach,) * 4, mode="reflect")
    windows = padded.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)
    return windows.flatten(4).median(4).values
