import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_lab.data.transforms import Preprocessing, quantise, to_float
from anomaly_lab.types import UserError


def _save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_picture_is_padded_to_the_centre_and_never_stretched(tmp_path):
    bright = np.full((40, 20), 200, np.uint8)
    bright[0, 0] = 199
    image = Preprocessing((16, 16), 1).image(_save(tmp_path / "tall.png", bright))
    assert image.shape == (1, 16, 16)
    assert image.dtype == np.float32
    assert np.all(image[0, :, 5:11] > 0.7)
    assert np.allclose(image[0, :, :2], 0, atol=0.02)
    assert np.allclose(image, image[:, :, ::-1], atol=0.02)


def test_patch_that_is_not_square_is_padded_to_its_own_shape(tmp_path):
    image = np.tile(np.array([[100], [101]], np.uint8), (10, 40))  # 20 x 40
    assert np.all(Preprocessing((8, 16), 1).image(_save(tmp_path / "wide.png", image)) > 0.3)


def test_resize_is_close_to_pillows_antialiased_bilinear(tmp_path):
    y, x = np.mgrid[0:96, 0:96]
    smooth = (127 + 60 * np.sin(x / 11) + 60 * np.cos(y / 17)).astype(np.uint8)
    ours = Preprocessing((24, 24), 1).image(_save(tmp_path / "smooth.png", smooth))[0] * 255
    pillow = np.asarray(Image.fromarray(smooth).resize((24, 24), Image.Resampling.BILINEAR), float)
    assert np.abs(ours - pillow)[2:-2, 2:-2].max() < 4


def test_mask_travels_with_its_image(tmp_path):
    image = np.zeros((60, 32), np.uint8)  # edges fall between the pixels of the result
    image[20:40, 10:20] = 255
    image_path, mask_path = _save(tmp_path / "i.png", image), _save(tmp_path / "m.png", image)
    steps = Preprocessing((30, 30), 1)
    mask = steps.mask(mask_path, image_path)
    assert mask.dtype == bool
    assert np.array_equal(mask, steps.image(image_path) > 0.5)


def test_mask_of_another_size_is_refused(tmp_path):
    small = _save(tmp_path / "m.png", np.eye(5, dtype=np.uint8))
    image = _save(tmp_path / "i.png", np.eye(6, dtype=np.uint8))
    with pytest.raises(UserError, match="the mask is"):
        Preprocessing((8, 8), 1).mask(small, image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stored_pixels_span_minus_one_to_one(dtype):
    stored = quantise(np.array([[[0.0, 0.5, 1.0]]]), np.dtype(dtype))
    assert stored.dtype == dtype
    scaled = to_float(stored[None])
    assert scaled.dtype == torch.float32
    assert scaled[0, 0, 0, 0] == -1
    assert scaled[0, 0, 0, 2] == 1
    assert abs(scaled[0, 0, 0, 1]) < 0.01


def test_strides_are_canonical_whatever_comes_in():
    awkward = np.zeros((2, 8, 8), np.uint8)[..., None].transpose(0, 3, 1, 2)
    assert to_float(awkward).stride() == (64, 64, 8, 1)
