"""The noise, the loss and the map of the denoising autoencoder."""

import pytest
import torch
from scipy.ndimage import median_filter
from torch import Tensor
from toys import Fit, Toy, smooth

from anomaly_lab.detectors.denoising_ae import DenoisingAE, coarse_noise, foreground, median_filtered

TOY = Toy(
    {"width": 8, "cells": 4, "denoising_iterations": 300, "lr": 1e-3, "noise": 0.5},
    at_least=0.75,
    why="AUROC .80 .88 .91 .91 .93 over five seeds; more iterations, other noise and other rates gave .65 to .87",
)


def tiny(**changes: object) -> DenoisingAE:
    torch.manual_seed(0)
    return DenoisingAE(**{"patch_size": (32, 32), "width": 4, "cells": 4, "denoising_iterations": 2, **changes})


def test_noise_is_coarse_and_shifted_image_by_image() -> None:
    torch.manual_seed(0)
    noise = coarse_noise(torch.zeros(400, 2, 32, 32), cells=4)
    assert noise.mean().abs() < 0.05
    beside, far = (torch.corrcoef(torch.stack([noise[..., 5, 5].flatten(), noise[..., 5, 5 + gap].flatten()]))[0, 1]
                   for gap in (1, 16))  # fmt: skip
    assert beside > 0.8
    assert far.abs() < 0.2
    jumps = (noise[0, 0, :, 1:] - noise[0, 0, :, :-1]).abs().amax(0)  # the seam of the shift
    assert len({int((noise[i, 0, :, 1:] - noise[i, 0, :, :-1]).abs().amax(0).argmax()) for i in range(20)}) > 3
    assert jumps.max() > 2 * jumps.median()


def test_loss_by_hand(pictures: Tensor) -> None:
    detector = tiny(noise=0.3)
    pictures = torch.where(pictures < -0.5, -1.0, pictures)  # some background
    torch.manual_seed(3)
    loss = detector.denoising_loss(pictures)
    torch.manual_seed(3)
    seen = ((pictures + 1) / 2 > 0.01).float()
    assert 0 < seen.mean() < 1
    restored = detector.unet(pictures + 2 * 0.3 * coarse_noise(pictures, 4) * seen)
    torch.testing.assert_close(loss, ((restored - pictures) * seen).square().mean())


def test_the_map_is_scipys_median_of_the_residual(fit: Fit) -> None:
    detector = fit(tiny(), smooth(12, seed=0))
    image = smooth(3, seed=1)
    prediction = detector.score({"image": image})
    residual = (image - detector.unet(image)).abs()[:, 0].detach()
    for found, each in zip(prediction.anomaly_map[:, 0], residual, strict=True):
        expected = torch.from_numpy(median_filter(each.numpy(), 5, mode="mirror"))
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(prediction.anomaly_score, prediction.anomaly_map.mean((1, 2, 3)))


def test_background_has_no_anomaly() -> None:
    image = torch.full((1, 1, 32, 32), -1.0)
    image[..., 8:24, 8:24] = 0.5
    found = tiny().score({"image": image}).anomaly_map[0, 0]
    assert foreground(image).sum() == 256
    assert not found[:8].any()
    assert found[12:20, 12:20].all()


def test_the_rate_falls_along_a_cosine(fit: Fit) -> None:
    detector = fit(tiny(denoising_iterations=4, lr=0.01), smooth(8, seed=0))
    assert detector.optimizers().param_groups[0]["lr"] == pytest.approx(0.01 * (1 + 2**-0.5 * -1) / 2)


def test_median_of_a_single_map() -> None:
    assert median_filtered(torch.ones(2, 1, 16, 16)).unique().tolist() == [1.0]


@pytest.mark.parametrize("size", [(60, 64), (8, 8)])
def test_sizes_it_cannot_halve_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 8 from 16"):
        tiny(patch_size=size)
