"""Plant a lesion on every image: of a random kind, at a random place in the foreground, of random size and contrast.

What is planted on an image follows from its pixels and the seed alone, so it is the same in any batch, and two
detectors that are compared see the same lesions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from anomaly_lab import catalogue
from anomaly_lab.lesions.lesion import Lesion, Site
from anomaly_lab.types import UserError

KINDS: tuple[Lesion, ...] = tuple(
    kind() for _, kind in sorted(catalogue.classes("anomaly_lab.lesions.kinds").items()) if issubclass(kind, Lesion)
)
TUNING = tuple(kind for kind in KINDS if not kind.held_back)
HELD_BACK = tuple(kind for kind in KINDS if kind.held_back)

DIAMETER = (0.04, 0.4)  # of a lesion, in shares of the image's shorter side
CONTRAST = (0.1, 1.0)  # in grey values of [-1, 1]: a twentieth of the range to half of it
ATTEMPTS = 30  # a lesion that would hardly change the image, such as a blur of something flat, is drawn anew
COVERED = 0.05  # share of the lesion in a pixel from which on it belongs to the mask
SEEN = 0.03  # mean difference in the mask, in grey values of [-1, 1], below which nothing has changed


class Planted(NamedTuple):
    """Images with a lesion each.

    Attributes:
        image: [B, C, *S] in [-1, 1]; equal to the normal image outside the mask.
        mask: the lesion, bool [B, 1, *S]; empty where the image is too flat for the kinds asked for, and unchanged.
        kind: name of the kind for each image; empty where the mask is.
    """

    image: Tensor
    mask: Tensor
    kind: tuple[str, ...]


def plant(image: Tensor, seed: int, kinds: Sequence[Lesion] = TUNING, donors: Tensor | None = None) -> Planted:
    """Plant a lesion on every image.

    Args:
        image: normal images, [B, C, *S] in [-1, 1], S of two or three axes.
        seed: another seed plants other lesions.
        kinds: the kinds to draw from, each as likely as the others.
        donors: normal images whose tissue may be pasted, [N, C, *S]; None pastes within an image.

    Raises:
        UserError: the images have neither two nor three spatial axes, are smaller than 8 pixels, or there is no kind.

    Examples:
        >>> normal = torch.linspace(-1, 1, 32).expand(2, 1, 32, 32)
        >>> planted = plant(normal, seed=0)
        >>> bool((planted.image == normal)[~planted.mask].all()), planted.mask.flatten(1).any(1).tolist()
        (True, [True, True])
        >>> planted.kind == plant(normal[:1], seed=0).kind * 2  # the same image and seed, the same lesion
        True
    """
    if image.ndim not in (4, 5) or min(image.shape[2:]) < 8:
        raise UserError(
            f"lesions are planted on images [B, C, *S] of two or three axes of at least 8 pixels, not of the shape "
            f"{list(image.shape)}"
        )
    if not kinds:
        raise UserError("lesions are to be planted of no kind; give at least one, such as those of TUNING")
    planted = [_planted(single, seed, kinds, donors) for single in image]
    if not planted:
        return Planted(image, torch.zeros_like(image[:, :1], dtype=torch.bool), ())
    images, masks, names = zip(*planted, strict=True)
    return Planted(torch.stack(images), torch.stack(masks), tuple(names))


def foreground(image: Tensor) -> Tensor:
    """Return where an image shows something.

    An image has a background if more than half of its border has nearly one grey; the background is all that has it.

    Args:
        image: [C, *S] in [-1, 1].

    Returns:
        bool [*S]; all of the image if it has no background, or is nothing else.

    Examples:
        >>> image = torch.full((1, 4, 4), -1.0)
        >>> image[0, 1:3, 1:3] = 0.5
        >>> foreground(image).int().tolist()
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    grey = image.mean(0)
    inner = torch.zeros_like(grey, dtype=torch.bool)
    inner[tuple(slice(1, -1) for _ in grey.shape)] = True
    border = grey[~inner]
    background = (grey - border.median()).abs() < 0.1
    if background[~inner].float().mean() <= 0.5 or background.all():
        return torch.ones_like(background)
    return ~background


def _planted(image: Tensor, seed: int, kinds: Sequence[Lesion], donors: Tensor | None) -> tuple[Tensor, Tensor, str]:
    """Plant a lesion on [C, *S]; returns image, mask [1, *S] and name of the kind."""
    random = _random(image, seed)
    places = foreground(image).nonzero().cpu().numpy()
    for _ in range(ATTEMPTS):
        kind = kinds[int(random.integers(len(kinds)))]
        lesion, covers = kind.draw(_site(image, places, donors, random))
        covers = covers.where(covers >= COVERED, 0)
        changed = torch.lerp(image, lesion.clamp(-1, 1).to(image), covers.to(image))
        mask = (covers > 0)[None]
        if mask.any() and float((changed - image).abs().amax(0)[mask[0]].mean()) >= SEEN:
            return torch.where(mask, changed, image), mask, kind.name
    return image, torch.zeros_like(image[:1], dtype=torch.bool), ""


def _site(image: Tensor, places: np.ndarray, donors: Tensor | None, random: np.random.Generator) -> Site:
    donor = image if donors is None else donors[int(random.integers(len(donors)))].to(image)
    sources = places if donors is None else foreground(donor).nonzero().cpu().numpy()
    return Site(
        image,
        donor,
        source=tuple(sources[random.integers(len(sources))].tolist()),
        centre=tuple(places[random.integers(len(places))].tolist()),
        diameter=max(2.0, _log_uniform(random, DIAMETER) * min(image.shape[1:])),
        contrast=_log_uniform(random, CONTRAST),
        random=random,
    )


def _random(image: Tensor, seed: int) -> np.random.Generator:
    """Return random numbers that depend on the seed and on the image to 8 bits, as any device computes it."""
    levels = image.detach().float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu().contiguous()
    digest = hashlib.sha256(repr(tuple(levels.shape)).encode() + levels.numpy().tobytes()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, np.uint32).tolist()])


def _log_uniform(random: np.random.Generator, interval: tuple[float, float]) -> float:
    low, high = interval
    return math.exp(random.uniform(math.log(low), math.log(high)))
