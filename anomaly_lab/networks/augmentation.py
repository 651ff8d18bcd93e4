"""Differentiable augmentation of all images a discriminator sees, so that it does not memorise a small data set.

DiffAugment: Zhao, Liu, Lin, Zhu, Han 2020, arXiv:2006.10738. ADA: Karras, Aittala, Hellsten, Laine, Lehtinen, Aila
2020, arXiv:2006.06676. Every transform is drawn per image from torch's global generator, and gradients flow through it.
Computed in float32 at any precision; the result may leave [-1, 1].
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_lab.devices import rounding
from anomaly_lab.networks.wavelet import smoothly_warped

AugmentD = Literal["none", "diffaugment", "ada", "ada_bgc", "ada_medical"]
Draw = Callable[..., Tensor]  # torch.rand or torch.randn -> [B, 1, 1, 1]


class Augmentation(nn.Module):
    """Base class of augmentations, by itself the identity: images [B, C, H, W] -> the transformed images.

    Row i of all arguments is transformed with the same random draws.

    Examples:
        >>> x = torch.zeros(2, 1, 8, 8)
        >>> Augmentation()(x)[0] is x
        True
    """

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return images

    def track(self, signs: Tensor) -> None:
        """Record the signs [B] of the discriminator's outputs for real images; only ADA uses them."""


class _Drawn(Augmentation):
    """Base class that transforms all images with shared random draws."""

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        n, times, device = len(images[0]), len(images), images[0].device
        image = torch.cat(images)

        def draw(distribution: Callable[..., Tensor] = torch.rand) -> Tensor:
            return distribution(n, 1, 1, 1, device=device).repeat(times, 1, 1, 1)

        with torch.autocast(device.type, enabled=False), rounding(device, strict=True):
            transformed = self.transform(image.to(torch.promote_types(image.dtype, torch.float32)), draw)
        return torch.split(transformed, n)

    @abstractmethod
    def transform(self, image: Tensor, draw: Draw) -> Tensor:
        """Transform images [B, C, H, W]; the shape stays the same."""


class DiffAugment(_Drawn):
    """Colour jitter, translation by up to an eighth, and a cut-out of half the side, always applied, as in the code.

    Examples:
        >>> x = torch.rand(2, 1, 8, 8)
        >>> first, second = DiffAugment()(x, x)  # the same draws for both arguments
        >>> first.shape, bool((first == second).all())
        (torch.Size([2, 1, 8, 8]), True)
    """

    def transform(self, image: Tensor, draw: Draw) -> Tensor:
        image = saturated(image + draw() - 0.5, 2 * draw())
        image = contrasted(image, draw() + 0.5)
        sides = image.shape[2:]
        reach = [(side + 4) // 8 for side in sides]
        image = translated(image, *(whole(draw(), 2 * limit + 1) - limit for limit in reach))
        return cut_out(image, *(whole(draw(), side + 1 - half(side) % 2) for side in sides))


class ADA(_Drawn):
    """Adaptive augmentation: each transform is applied to an image with probability p, which follows overfitting.

    Flip, quarter turns, translation by whole pixels up to an eighth, isotropic scale 2^N(0, .2) and rotation by any
    angle are combined into one warp of square images; brightness N(0, .2) and contrast 2^N(0, .5) follow. ≠ paper:
    bilinear interpolation without an anti-aliasing filter; no anisotropic scale, fractional translation, luma flip, hue
    or saturation. `FullADA` has them.

    Each call of `adapt` moves p by the sign of r - `TARGET`, where r is the mean sign of the discriminator's outputs
    for real images: p rises if r is above the target, because a discriminator that is sure of real images has memorised
    them.

    Examples:
        >>> ada = ADA()
        >>> ada.track(torch.ones(64))  # the discriminator is sure of every real image
        >>> ada.adapt(share=0.01)
        >>> ada.p > 0
        tensor(True)
    """

    TARGET = 0.6
    SPEED = 500_000  # number of real images in which p can rise from 0 to 1
    LEAST_SHARE = 0.2  # ≠ paper: p can rise that far in this share of the training; ours may be 100 times shorter

    p: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2))  # sum and number of signs since p was last adapted
        self.is_fixed = False

    def track(self, signs: Tensor) -> None:
        if self.is_fixed:
            return
        self.seen += torch.stack([signs.sum(), signs.new_full((), len(signs))])

    def fix(self, p: float) -> None:
        """Set p, and let it follow nothing: the published code's fixed augmentation.

        Examples:
            >>> ada = ADA()
            >>> ada.fix(0.25)
            >>> ada.track(torch.ones(64))
            >>> ada.adapt(share=0.5)
            >>> ada.p
            tensor(0.2500)
        """
        self.p.fill_(p)
        self.is_fixed = True

    def adapt(self, share: float) -> None:
        """Move p by the signs recorded since the last call; `share` is the fraction of the training that they cover."""
        if self.is_fixed:
            return
        total, count = self.seen
        step = (count / self.SPEED).clamp_min(share / self.LEAST_SHARE) * count.sign()
        self.p += step * (total / count.clamp_min(1) - self.TARGET).sign()
        self.p.clamp_(0, 1)  # ≠ code: without an upper limit, p would take long to come back
        self.seen.zero_()

    def transform(self, image: Tensor, draw: Draw) -> Tensor:
        matrix, is_warped = self.matrix(draw, image.shape[-1])
        image = torch.where(is_warped, warped(image, matrix), image)  # other images stay bit-identical
        image = image + self.maybe(draw, 0.2 * draw(torch.randn), 0.0)
        return image * self.maybe(draw, torch.exp2(0.5 * draw(torch.randn)), 1.0)

    def maybe(self, draw: Draw, value: Tensor, otherwise: float, p: Tensor | None = None) -> Tensor:
        """Return `value` with probability p, `otherwise` with probability 1 - p, drawn per image."""
        return torch.where(draw() < (self.p if p is None else p), value, otherwise)

    def matrix(self, draw: Draw, side: int) -> tuple[Tensor, Tensor]:
        """Draw source coordinates as affine matrices [B, 2, 3], and return whether they move a pixel, [B, 1, 1, 1]."""
        mirror = self.maybe(draw, 1.0 - 2.0 * whole(draw(), 2), 1.0)
        turn = self.maybe(draw, math.pi / 2 * whole(draw(), 4), 0.0)
        is_moved = self.maybe(draw, torch.ones_like(turn), 0.0)  # one decision for both axes
        right, down = (is_moved * torch.round(0.125 * side * (2 * draw() - 1)) * 2 / side for _ in range(2))
        scale = self.maybe(draw, torch.exp2(0.2 * draw(torch.randn)), 1.0)
        angle = self.maybe(draw, math.pi * (2 * draw() - 1), 0.0)
        upright = rotation(turn) * torch.stack([mirror, torch.ones_like(mirror)], 1).view(-1, 2, 1)
        linear = upright @ rotation(angle) * scale.view(-1, 1, 1)
        offset = upright @ torch.stack([right, down], 1).view(-1, 2, 1)
        identity = (mirror == 1) & (turn == 0) & (right == 0) & (down == 0) & (scale == 1) & (angle == 0)
        return torch.cat([linear, offset], 2), ~identity


class FullADA(ADA):
    """The paper's whole pipeline `bgc`: pixel blitting, geometry and colour, resampled once without aliasing.

    Flip, quarter turns, translation by whole pixels up to an eighth; isotropic scale 2^N(0, .2), rotation by any angle,
    anisotropic scale 2^N(0, .2), another rotation, translation N(0, .125); brightness N(0, .2), contrast 2^N(0, .5),
    luma flip, and for colour images hue by any angle and saturation 2^N(0, 1).

    Args:
        medical: leave out quarter turns and the luma flip: which way is up, and that bone is bright, carries meaning in
            a medical image (≠ paper).

    Examples:
        >>> image = torch.rand(2, 3, 32, 32)
        >>> torch.equal(FullADA()(image)[0], image)  # ADA starts with p = 0
        True
    """

    def __init__(self, medical: bool = False) -> None:
        super().__init__()
        self.medical = medical

    def transform(self, image: Tensor, draw: Draw) -> Tensor:
        matrix, is_warped = self.matrix(draw, image.shape[-1])
        image = torch.where(is_warped, smoothly_warped(image, matrix), image)  # other images stay bit-identical
        image = image + self.maybe(draw, 0.2 * draw(torch.randn), 0.0)
        image = image * self.maybe(draw, torch.exp2(0.5 * draw(torch.randn)), 1.0)
        if not self.medical:  # a reflection of the axis of greys: the channels' mean changes its sign
            is_flipped = self.maybe(draw, 1.0 * whole(draw(), 2), 0.0)
            image = image - 2 * is_flipped * image.mean(1, keepdim=True)
        if image.shape[1] > 1:
            image = hue_rotated(image, self.maybe(draw, math.pi * (2 * draw() - 1), 0.0))
            more = self.maybe(draw, torch.exp2(draw(torch.randn)) - 1, 0.0)  # like `saturated`, but exact without it
            image = image + more * (image - image.mean(1, keepdim=True))
        return image

    def matrix(self, draw: Draw, side: int) -> tuple[Tensor, Tensor]:
        """Draw source coordinates as affine matrices [B, 2, 3], and return whether they move a pixel, [B, 1, 1, 1]."""
        mirror = self.maybe(draw, 1.0 - 2.0 * whole(draw(), 2), 1.0)
        turn = torch.zeros_like(mirror) if self.medical else self.maybe(draw, math.pi / 2 * whole(draw(), 4), 0.0)
        whole_step = self.maybe(draw, torch.ones_like(turn), 0.0)  # one decision for both axes
        steps = [whole_step * torch.round(0.125 * side * (2 * draw() - 1)) * 2 / side for _ in range(2)]
        scale = self.maybe(draw, torch.exp2(0.2 * draw(torch.randn)), 1.0)
        p = 1 - (1 - self.p).sqrt()  # that one of two rotations is applied has probability p
        before = self.maybe(draw, math.pi * (2 * draw() - 1), 0.0, p)
        stretch = self.maybe(draw, torch.exp2(0.2 * draw(torch.randn)), 1.0)
        after = self.maybe(draw, math.pi * (2 * draw() - 1), 0.0, p)
        fraction = self.maybe(draw, torch.ones_like(turn), 0.0)
        fractions = [fraction * 0.125 * draw(torch.randn) * 2 for _ in range(2)]
        upright = rotation(turn) * torch.stack([mirror, torch.ones_like(mirror)], 1).view(-1, 2, 1)
        turned = rotation(before) * torch.stack([stretch, 1 / stretch], 1).view(-1, 1, 2)
        linear = upright @ turned @ rotation(after) * scale.view(-1, 1, 1)
        offset = upright @ torch.stack(steps, 1).view(-1, 2, 1) + linear @ torch.stack(fractions, 1).view(-1, 2, 1)
        angles = (turn == 0) & (before == 0) & (after == 0)
        shifts = (steps[0] == 0) & (steps[1] == 0) & (fraction == 0)
        identity = angles & shifts & (mirror == 1) & (scale == 1) & (stretch == 1)
        return torch.cat([linear, offset], 2), ~identity


def make(name: AugmentD) -> Augmentation:
    """Return the augmentation called `name`.

    Examples:
        >>> make("ada").p.item()  # ADA starts with p = 0
        0.0
    """
    made: dict[str, Callable[[], Augmentation]] = {
        "none": Augmentation,
        "diffaugment": DiffAugment,
        "ada": ADA,
        "ada_bgc": FullADA,
        "ada_medical": partial(FullADA, medical=True),
    }
    return made[name]()


def whole(u: Tensor, n: int) -> Tensor:
    """Map uniform numbers in [0, 1) to the integers 0, …, n - 1 with equal probability.

    The clamp is needed because the largest float below 1 times n may round to n.

    Examples:
        >>> whole(torch.tensor([0.0, 0.3, 0.99]), 4).tolist()
        [0, 1, 3]
    """
    return (u * n).floor().clamp(max=n - 1).long()


def saturated(image: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance of each pixel's channels from their mean by `factor`; a grey image stays as it is.

    Examples:
        >>> saturated(torch.tensor([[[[0.0]], [[1.0]]]]), torch.tensor(2.0)).flatten().tolist()
        [-0.5, 1.5]
    """
    mean = image.mean(1, keepdim=True)
    return (image - mean) * factor + mean


def hue_rotated(image: Tensor, angle: Tensor) -> Tensor:
    """Rotate the colours of images [B, 3, H, W] about the axis of greys by `angle` [B, 1, 1, 1] in radians.

    Examples:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        >>> hue_rotated(red, torch.full((1, 1, 1, 1), 2 * math.pi / 3)).flatten().round().abs().tolist()  # green
        [0.0, 1.0, 0.0]
    """
    # Rodrigues: x cos a + (v × x) sin a + v (v · x) (1 - cos a), with v = (1, 1, 1) / √3
    across = (image.roll(1, 1) - image.roll(2, 1)) / math.sqrt(3)
    return image * angle.cos() + across * angle.sin() + image.mean(1, keepdim=True) * (1 - angle.cos())


def contrasted(image: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance of each pixel from the image's mean by `factor`.

    Examples:
        >>> contrasted(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor(2.0)).flatten().tolist()
        [-0.5, 1.5]
    """
    mean = image.mean((1, 2, 3), keepdim=True)
    return (image - mean) * factor + mean


def translated(image: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Translate each image by whole pixels `down` and `right` [B, 1, 1, 1]; new pixels are 0, a middle grey.

    Examples:
        >>> one = torch.ones(1, 1, 1, 1, dtype=torch.long)
        >>> translated(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), down=0 * one, right=one)[0, 0].tolist()
        [[0.0, 1.0], [0.0, 3.0]]
    """
    height, width = image.shape[2:]
    row = torch.arange(height, device=image.device).view(1, 1, -1, 1) - down
    column = torch.arange(width, device=image.device).view(1, 1, 1, -1) - right
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    moved = torch.take_along_dim(image, row.clamp(0, height - 1), 2)
    return torch.take_along_dim(moved, column.clamp(0, width - 1), 3) * inside


def cut_out(image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Set a square of half the side, centred on pixel (row, column) [B, 1, 1, 1], to 0; it may reach over the border.

    Examples:
        >>> centre = torch.full((1, 1, 1, 1), 2)
        >>> cut_out(torch.ones(1, 1, 4, 4), row=centre, column=centre)[0, 0, 1].tolist()
        [1.0, 0.0, 0.0, 1.0]
    """
    height, width = image.shape[2:]
    rows = torch.arange(height, device=image.device).view(1, 1, -1, 1) - row + half(height) // 2
    columns = torch.arange(width, device=image.device).view(1, 1, 1, -1) - column + half(width) // 2
    hidden = (rows >= 0) & (rows < half(height)) & (columns >= 0) & (columns < half(width))
    return image * ~hidden


def half(side: int) -> int:
    """Return half the side, rounded up.

    Examples:
        >>> half(5)
        3
    """
    return (side + 1) // 2


def rotation(angle: Tensor) -> Tensor:
    """Return rotation matrices [B, 2, 2] of angles [B, 1, 1, 1] in radians.

    Examples:
        >>> rotation(torch.full((1, 1, 1, 1), math.pi / 2)).round()[0].int().tolist()
        [[0, -1], [1, 0]]
    """
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)


def warped(image: Tensor, matrix: Tensor) -> Tensor:
    """Resample images at the coordinates given by affine matrices, mirrored at the border.

    Args:
        image: [B, C, H, W].
        matrix: maps output to input coordinates (x, y) in [-1, 1], [B, 2, 3].

    Examples:
        >>> flip = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
        >>> warped(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), flip)[0, 0].tolist()
        [[2.0, 1.0], [4.0, 3.0]]
    """
    grid = F.affine_grid(matrix.to(image), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
