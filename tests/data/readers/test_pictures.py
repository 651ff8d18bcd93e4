import cv2
import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.readers.pictures import as_picture, is_deep, picture_size, read_image, read_mask
from anomaly_lab.types import UserError

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "pgm"])
def test_lossless_eight_bit_grey_is_kept(tmp_path, suffix):
    path = tmp_path / f"a picture ü.{suffix}"
    Image.fromarray(RAMP).save(path)
    assert np.array_equal(read_image(path, 1)[0], RAMP)
    assert not is_deep(path)
    assert picture_size(path) == (6, 8)


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bit_grey_is_kept(tmp_path, suffix):
    deep = RAMP.astype(np.uint16) * 257 + 3
    path = tmp_path / f"deep.{suffix}"
    assert cv2.imwrite(str(path), deep)
    assert is_deep(path)
    assert np.array_equal(read_image(path, 1)[0], deep)
    assert read_image(path, 3).shape == (3, 6, 8)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_is_kept(tmp_path, suffix, channels):
    blue_green_red = np.stack([RAMP.astype(np.uint16) * 200 + i for i in range(channels)], -1)
    path = tmp_path / f"deep.{suffix}"
    assert cv2.imwrite(str(path), blue_green_red)
    assert is_deep(path)
    assert np.array_equal(read_image(path, 3), blue_green_red[..., 2::-1].transpose(2, 0, 1))
    grey = blue_green_red[..., :3] @ (0.114, 0.587, 0.299)
    assert np.abs(read_image(path, 1)[0] - grey).max() <= 0.5 + 1e-9


def test_float_tiff_of_0_to_1_becomes_sixteen_bits(tmp_path):
    path = tmp_path / "float.tiff"
    Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)).save(path)
    assert is_deep(path)
    assert np.array_equal(read_image(path, 1).ravel(), np.rint(np.linspace(0, 1, 12) * 65535))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_every_mode_becomes_one_or_three_channels(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.fromarray(RAMP).convert(mode).save(path)
    assert read_image(path, 1).shape == (1, 6, 8)
    assert read_image(path, 3).shape == (3, 6, 8)
    if mode in {"RGB", "RGBA", "LA"}:
        assert np.array_equal(read_image(path, 1)[0], RAMP)


def test_alpha_is_dropped_not_blended(tmp_path):
    clear = Image.fromarray(RAMP).convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    assert np.array_equal(read_image(tmp_path / "clear.png", 1)[0], RAMP)


def test_mask_is_whatever_is_not_black(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png")[0], RAMP > 0)


def _truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:900])


BROKEN = {
    "truncated": (_truncated, "cannot be read"),
    "zero bytes": (lambda path: path.write_bytes(b""), "empty"),
    "not a picture": (lambda path: path.write_text("id,label"), "not a picture"),
    "a folder": (lambda path: path.mkdir(), "cannot be read"),
    "missing": (lambda path: None, "cannot be read"),
    "constant": (lambda path: Image.new("L", (8, 8), 7).save(path), "every pixel is 7"),
    "NaN": (
        lambda path: Image.fromarray(np.array([[0, np.nan]], np.float32)).save(path, "TIFF"),
        "NaN",
    ),
    "too bright": (
        lambda path: Image.fromarray(np.array([[0, 90]], np.float32)).save(path, "TIFF"),
        "from 0 to 90",
    ),
    "two pages": (
        lambda path: Image.fromarray(RAMP).save(path, "TIFF", save_all=True, append_images=[Image.fromarray(RAMP)]),
        "several pictures",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_file_is_named_with_its_fault(tmp_path, fault):
    spoil, message = BROKEN[fault]
    path = tmp_path / "broken.png"
    spoil(path)
    with pytest.raises(UserError, match=message) as caught:
        read_image(path, 1)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_an_array_is_what_its_file_would_be(tmp_path, colours, in_channels, kind):
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (5, 4, 3) if colours else (5, 4), kind)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), values[..., ::-1] if colours else values)
    assert np.array_equal(as_picture(values, in_channels), read_image(path, in_channels))


def test_floats_fill_sixteen_bits():
    assert as_picture(np.array([[0.0, 0.5, 1.0]]), 1).tolist() == [[[0, 32768, 65535]]]


@pytest.mark.parametrize(("values", "message"), [
    (np.zeros((2, 2, 4), np.uint8), r"\(2, 2, 4\)"), (np.zeros(3, np.uint8), "shape"),
    (np.zeros((0, 2)), "is not a picture"),
    (np.zeros((2, 2), np.int32), "type int32"), (np.full((2, 2), 1.5), "0 to 1"), (np.full((2, 2), np.nan), "NaN"),
])  # fmt: skip
def test_an_array_that_is_no_picture_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        as_picture(values, 1)
