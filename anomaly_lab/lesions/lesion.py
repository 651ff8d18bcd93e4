"""What kinds of lesions share: the site at which one is planted, and the shapes that can be drawn there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Site:
    """Where, how large and how strong a lesion is to be.

    Attributes:
        image: the normal image, [C, *S] in [-1, 1].
        donor: a normal image that gives tissue, [C, *S]; the image itself where there is no other.
        source: a place in the foreground of the donor, pixels, D numbers.
        centre: the lesion's centre in pixels, D numbers.
        diameter: extent of the lesion in pixels.
        contrast: difference in grey that it makes, in (0, 2]; 2 is from black to white.
        random: whatever else a kind draws comes from here.

    Examples:
        >>> site = Site(torch.zeros(1, 5, 5), torch.zeros(1, 5, 5), (0, 0), (2, 2), 4.0, 1.0, np.random.default_rng(0))
        >>> site.ellipsoid((1.0, 1.0))[2].tolist()  # half a pixel of the rim is half covered
        [0.5, 1.0, 1.0, 1.0, 0.5]
    """

    image: Tensor
    donor: Tensor
    source: tuple[int, ...]
    centre: tuple[int, ...]
    diameter: float
    contrast: float
    random: np.random.Generator

    @cached_property
    def offset(self) -> Tensor:
        """Distance of every pixel from the centre along each axis, [D, *S] in pixels."""
        axes = [
            torch.arange(side, device=self.image.device) - at
            for side, at in zip(self.image.shape[1:], self.centre, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij")).float()

    def signed_contrast(self) -> float:
        """Draw whether the lesion is brighter or darker than what it lies on."""
        return self.contrast * (1 if self.random.random() < 0.5 else -1)

    def rotated(self) -> Tensor:
        """Return `offset` in axes of a random direction, [D, *S]."""
        dims = len(self.offset)
        turn, triangle = np.linalg.qr(self.random.standard_normal((dims, dims)))
        turn = turn * np.sign(np.diag(triangle))  # without the signs the directions would not be uniform
        return torch.einsum("ij,j...->i...", torch.from_numpy(turn).to(self.offset), self.offset)

    def ellipsoid(self, axes: tuple[float, ...]) -> Tensor:
        """Return how much of every pixel an ellipsoid covers, [*S] in [0, 1]; its rim is one pixel wide.

        Args:
            axes: its diameters in shares of `diameter`, D numbers; its direction is random if they differ.
        """
        offset = self.offset if len(set(axes)) == 1 else self.rotated()
        radii = offset.new_tensor(axes).mul(self.diameter / 2).view(-1, *[1] * (offset.ndim - 1))
        distance = (offset / radii).square().sum(0).sqrt()
        return ((1 - distance) * radii.amin() + 0.5).clamp(0, 1)

    def ball(self) -> Tensor:
        """Return a bump that falls smoothly from 1 at the centre to 0 at the rim, [*S]."""
        distance = self.offset.square().sum(0).sqrt() * 2 / self.diameter
        return (0.5 + 0.5 * torch.cos(torch.pi * distance.clamp(max=1))).clamp(min=0)

    def noise(self) -> Tensor:
        """Return white noise of mean 0 and variance 1, [C, *S]."""
        return torch.from_numpy(self.random.standard_normal(self.image.shape, np.float32)).to(self.image)


class Lesion(ABC):
    """A kind of lesion.

    Attributes:
        held_back: whether the kind is kept for the final check, and never used for a choice.

    Examples:
        >>> class Void(Lesion):
        ...     def draw(self, site):
        ...         return torch.full_like(site.image, -1), site.ellipsoid((1.0, 1.0))
        >>> Void().name
        'void'
    """

    held_back: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name by which results call it."""
        return type(self).__name__.lower()

    @abstractmethod
    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        """Return what the image would be if it were diseased everywhere, and how much of each pixel is.

        Args:
            site: where the lesion is, how large and how strong.

        Returns:
            Diseased image, [C, *S], which may leave [-1, 1]; share of the lesion in every pixel, [*S] in [0, 1].
        """


def smoothed(image: Tensor, sigma: float) -> Tensor:
    """Blur the axes after the first by a Gaussian, with mirrored borders.

    Args:
        image: [N, *S], S of any number of axes.
        sigma: standard deviation in pixels; 0 changes nothing.

    Examples:
        >>> smoothed(torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]), 0.6).mul(100).round().tolist()
        [[1.0, 17.0, 66.0, 17.0, 1.0]]
    """
    for axis in range(1, image.ndim):
        reach = min(int(np.ceil(3 * sigma)), image.shape[axis] - 1)
        if reach == 0:
            continue
        steps = torch.arange(-reach, reach + 1, device=image.device)
        weights = torch.exp(-0.5 * (steps / sigma) ** 2).to(image.dtype)
        lines = image.movedim(axis, -1)
        flat = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="reflect")
        blurred = F.conv1d(flat, (weights / weights.sum()).view(1, 1, -1))
        image = blurred.view(lines.shape).movedim(-1, axis)
    return image
