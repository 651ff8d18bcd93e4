"""Differentiable augmentation of all that a discriminator sees, real and fake, lest it learn few images by heart.

DiffAugment: Zhao, Liu, Lin, Zhu, Han 2020, arXiv:2006.10738. ADA: Karras, Aittala, Hellsten, Laine, Lehtinen, Aila
2020, arXiv:2006.06676. Every transform is drawn for each image by torch's global generator, and gradients flow through
it; float32 under any precision, and the result may leave [-1, 1].
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AugmentD = Literal["none", "diffaugment", "ada"]
Draw = Callable[..., Tensor]  # torch.rand or torch.randn -> [B, 1, 1, 1]


class Augmentation(nn.Module):
    """images, each [B, C, H, W] -> the same, transformed alike: row i of each by the same draws. Here: untouched."""

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return images

    def track(self, signs: Tensor) -> None:
        """Note the signs [B] of the discriminator's outputs for real images."""


class _Drawn(Augmentation):
    """Transforms all images together, with draws that they share."""

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        n, times, device = len(images[0]), len(images), images[0].device
        image = torch.cat(images)

        def draw(kind: Callable[..., Tensor] = torch.rand) -> Tensor:
            return kind(n, 1, 1, 1, device=device).repeat(times, 1, 1, 1)

        with torch.autocast(device.type, enabled=False):
            changed = self.transform(image.to(torch.promote_types(image.dtype, torch.float32)), draw)
        return torch.split(changed, n)

    @abstractmethod
    def transform(self, image: Tensor, draw: Draw) -> Tensor:
        """Images [B, C, H, W] -> the same shape."""


class DiffAugment(_Drawn):
    """Colour, translation by up to an eighth and a cut-out of half the side, always, as in the authors' code."""

    def transform(self, image: Tensor, draw: Draw) -> Tensor:
        image = saturated(image + draw() - 0.5, 2 * draw())
        image = contrasted(image, draw() + 0.5)
        sides = image.shape[2:]
        image = translated(image, *(whole(draw(), 2 * far + 1) - far for far in ((side + 4) // 8 for side in sides)))
        return cut_out(image, *(whole(draw(), side + 1 - half(side) % 2) for side in sides))


class ADA(_Drawn):
    """Each transform strikes an image with probability p, which follows the discriminator's overfitting.

    Flip, quarter turns, translation by whole pixels up to an eighth, isotropic scale 2^N(0, .2), rotation by any angle
    as one warp of square images, then brightness N(0, .2) and contrast 2^N(0, .5).
    ≠ paper: bilinear and without the filter against aliasing; no anisotropic scale, fractional translation, luma flip,
    hue nor saturation.

    Every time it adapts, p moves towards r = `TARGET`, r being the mean sign of the discriminator's outputs for real
    images: up if r is above, for a discriminator sure of its reals has learnt them by heart.
    """

    TARGET = 0.6
    SPEED = 500_000  # images for p to go from 0 to 1
    LEAST_SHARE = 0.2  # ≠ paper: or this share of the training, if that is faster: ours may be a hundredth of theirs

    p: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2))  # sum of signs and their number since p last moved

    def track(self, signs: Tensor) -> None:
        self.seen += torch.stack([signs.sum(), signs.new_tensor(len(signs))])

    def adapt(self, share: float) -> None:
        """Move p by what was watched since it last moved; `share`: fraction of the training that was."""
        total, count = self.seen
        step = (count / self.SPEED).clamp_min(share / self.LEAST_SHARE) * count.sign()
        self.p += step * (total / count.clamp_min(1) - self.TARGET).sign()
        self.p.clamp_(0, 1)  # ≠ code: it has no upper end, where p would take long to come back
        self.seen.zero_()

    def transform(self, image: Tensor, draw: Draw) -> Tensor:
        matrix, struck = self.matrix(draw, image.shape[-1])
        image = torch.where(struck, warped(image, matrix), image)  # the others keep their bits
        image = image + self.maybe(draw, 0.2 * draw(torch.randn), 0.0)
        return image * self.maybe(draw, torch.exp2(0.5 * draw(torch.randn)), 1.0)

    def maybe(self, draw: Draw, value: Tensor, otherwise: float) -> Tensor:
        """The value with probability p."""
        return torch.where(draw() < self.p, value, otherwise)

    def matrix(self, draw: Draw, side: int) -> tuple[Tensor, Tensor]:
        """Where each pixel comes from, [B, 2, 3], and whether that is elsewhere, [B, 1, 1, 1]."""
        mirror = self.maybe(draw, 1.0 - 2.0 * whole(draw(), 2), 1.0)
        turn = self.maybe(draw, math.pi / 2 * whole(draw(), 4), 0.0)
        far = self.maybe(draw, torch.ones_like(turn), 0.0)  # one decision for both axes
        right, down = (far * torch.round(0.125 * side * (2 * draw() - 1)) * 2 / side for _ in range(2))
        scale = self.maybe(draw, torch.exp2(0.2 * draw(torch.randn)), 1.0)
        angle = self.maybe(draw, math.pi * (2 * draw() - 1), 0.0)
        upright = rotation(turn) * torch.stack([mirror, torch.ones_like(mirror)], 1).view(-1, 2, 1)
        linear = upright @ rotation(angle) * scale.view(-1, 1, 1)
        offset = upright @ torch.stack([right, down], 1).view(-1, 2, 1)
        idle = (mirror == 1) & (turn == 0) & (right == 0) & (down == 0) & (scale == 1) & (angle == 0)
        return torch.cat([linear, offset], 2), ~idle


def make(name: AugmentD) -> Augmentation:
    """The augmentation of that name."""
    kinds: dict[str, type[Augmentation]] = {"none": Augmentation, "diffaugment": DiffAugment, "ada": ADA}
    return kinds[name]()


def whole(u: Tensor, n: int) -> Tensor:
    """0, …, n - 1, equally likely, of uniform numbers in [0, 1); n times the largest of these may round to n."""
    return (u * n).floor().clamp(max=n - 1).long()


def saturated(image: Tensor, factor: Tensor) -> Tensor:
    """Distance of each pixel's channels from their mean, multiplied; one channel stays as it is."""
    mean = image.mean(1, keepdim=True)
    return (image - mean) * factor + mean


def contrasted(image: Tensor, factor: Tensor) -> Tensor:
    """Distance from the image's mean, multiplied."""
    mean = image.mean((1, 2, 3), keepdim=True)
    return (image - mean) * factor + mean


def translated(image: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Moved by whole pixels [B, 1, 1, 1]; what comes in is 0, a middle grey."""
    height, width = image.shape[2:]
    row = torch.arange(height, device=image.device).view(1, 1, -1, 1) - down
    column = torch.arange(width, device=image.device).view(1, 1, 1, -1) - right
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    moved = torch.take_along_dim(image, row.clamp(0, height - 1), 2)
    return torch.take_along_dim(moved, column.clamp(0, width - 1), 3) * inside


def cut_out(image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """A square of half the side, about a pixel [B, 1, 1, 1], becomes 0; what of it is outside the image is lost."""
    height, width = image.shape[2:]
    rows = torch.arange(height, device=image.device).view(1, 1, -1, 1) - row + half(height) // 2
    columns = torch.arange(width, device=image.device).view(1, 1, 1, -1) - column + half(width) // 2
    hidden = (rows >= 0) & (rows < half(height)) & (columns >= 0) & (columns < half(width))
    return image * ~hidden


def half(side: int) -> int:
    """Rounded up."""
    return (side + 1) // 2


def rotation(angle: Tensor) -> Tensor:
    """[B, 1, 1, 1] -> [B, 2, 2]."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)


def warped(image: Tensor, matrix: Tensor) -> Tensor:
    """Each pixel from where `matrix` [B, 2, 3] says, in coordinates (x, y) of [-1, 1]; mirrored at the border."""
    grid = F.affine_grid(matrix.to(image), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
