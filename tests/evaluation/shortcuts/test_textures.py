import io

import numpy as np
import pytest
from PIL import Image

from anomaly_lab.evaluation.shortcuts import textures
from anomaly_lab.evaluation.shortcuts.view import View


def test_noise_is_measured_and_a_picture_under_it_is_not():
    random, ramp = np.random.default_rng(0), np.linspace(60, 200, 128)
    for sd in (4, 8):
        noisy = np.clip(np.rint(ramp + random.normal(0, sd, (1, 128, 128))), 0, 255).astype(np.uint8)
        assert textures.noise(View(noisy)) * 255 == pytest.approx(sd, rel=0.06)
    assert textures.noise(View(np.rint(np.broadcast_to(ramp, (1, 128, 128))).astype(np.uint8))) * 255 < 1


def test_jpeg_leaves_blocks_and_compresses_better():
    random = np.random.default_rng(0)
    grey = np.clip(128 + random.normal(0, 12, (96, 96)).cumsum(0).cumsum(1) / 40, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=30)
    coded = np.asarray(Image.open(file))
    assert textures.blockiness(View(coded[None])) > 1.1 > textures.blockiness(View(grey[None]))
    assert textures.compressed(View(coded[None])) < textures.compressed(View(grey[None]))


def test_sixteen_bits_are_compressed_by_bytes():
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64)).astype(np.uint16)
    assert textures.compressed(View(image * 257)) > textures.compressed(View(image)) > 0.9
