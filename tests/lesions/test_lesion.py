"""The shapes by hand, and the blur against PyTorch's own convolution in two axes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anomaly_lab.lesions.lesion import Site, smoothed


def site(shape: tuple[int, ...] = (21, 21), diameter: float = 10.0, contrast: float = 0.5) -> Site:
    image, centre = torch.zeros(1, *shape), tuple(side // 2 for side in shape)
    return Site(image, image, centre, centre, diameter, contrast, np.random.default_rng(0))


@pytest.mark.parametrize(("shape", "axes"), [((41, 41), (1.0, 0.5)), ((25, 25, 25), (1.0, 0.6, 0.6))])
def test_an_ellipsoid_has_its_volume(shape: tuple[int, ...], axes: tuple[float, ...]) -> None:
    radii = np.array(axes) * 10
    volume = np.pi * radii.prod() * (1 if len(axes) == 2 else 4 / 3)
    assert site(shape, 20.0).ellipsoid(axes).sum().item() == pytest.approx(volume, rel=0.1)


def test_a_ball_ends_at_the_rim() -> None:
    bump = site().ball()
    assert bump[10, 10] == 1
    assert bump[10, 15] == pytest.approx(0, abs=1e-6)
    assert bump[10, 4] == 0
    assert bump[10, 7] == pytest.approx(0.5 + 0.5 * np.cos(0.6 * np.pi), abs=1e-6)


def test_turning_keeps_distances() -> None:
    where = site((9, 9, 9))
    assert torch.allclose(where.rotated().norm(dim=0), where.offset.norm(dim=0), atol=1e-5)


def test_noise_is_white() -> None:
    noise = site((64, 64)).noise()
    assert noise.mean().abs() < 0.05
    assert noise.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("sigma", [0.7, 1.5, 4.0])
def test_a_blur_equals_a_convolution_in_two_axes(sigma: float) -> None:
    image = torch.rand(2, 16, 13, generator=torch.Generator().manual_seed(0))
    reach = int(np.ceil(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = torch.outer(line, line) / line.sum() ** 2
    if reach < 13:
        padded = F.pad(image[None], (reach,) * 4, mode="reflect")[0][:, None]
        assert torch.allclose(smoothed(image, sigma), F.conv2d(padded, kernel[None, None])[:, 0], atol=1e-5)
    assert torch.equal(smoothed(image, 0), image)
    assert smoothed(torch.ones(1, 4, 4, 4), sigma).allclose(torch.ones(1, 4, 4, 4))
