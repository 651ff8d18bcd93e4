"""The same square of 16 pixels, as programs save masks: always those 16 pixels, or a refusal that says what to do."""

import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.readers.picture_mask import lesion
from anomaly_lab.data.readers.pictures import Rules, read_mask
from anomaly_lab.types import UserError

SQUARE = np.zeros((32, 40), bool)
SQUARE[8:24, 16:32] = True


def _grey(value, background=0):
    return Image.fromarray(np.where(SQUARE, value, background).astype(np.uint8))


def _colour(*value, background=(0, 0, 0)):
    mode = "RGB" if len(value) == 3 else "RGBA"
    return Image.fromarray(np.where(SQUARE[..., None], value, background).astype(np.uint8), mode)


def _palette(*colours):
    image = Image.fromarray(SQUARE.astype(np.uint8), "P")
    image.putpalette([part for colour in colours for part in colour])
    return image


CLEAR, INK = (0, 0, 0, 0), (0, 0, 0, 255)
READ = {
    "one bit": (Image.fromarray(SQUARE), "png"),
    "label 1": (_grey(1), "png"),
    "label 255": (_grey(255), "bmp"),
    "16 bits": (Image.fromarray(SQUARE.astype(np.uint16)), "png"),
    "float 1": (Image.fromarray(SQUARE.astype(np.float32)), "tif"),
    "float 255": (Image.fromarray(SQUARE.astype(np.float32) * 255), "tif"),
    "dark red": (_colour(1, 0, 0), "png"),
    "dark blue": (_colour(0, 0, 4), "png"),
    "palette, dark": (_palette((0, 0, 0), (1, 0, 0)), "png"),
    "palette the other way round": (_palette((0, 0, 0), (255, 255, 255)), "png"),
    "black ink on nothing": (_colour(*INK, background=CLEAR), "png"),
    "white ink on nothing": (_colour(255, 255, 255, 255, background=(255, 255, 255, 0)), "png"),
    "red ink on nothing": (_colour(255, 0, 0, 255, background=CLEAR), "png"),
    "opaque": (_colour(255, 0, 0, 255, background=INK), "png"),
    "all transparent": (_colour(255, 0, 0, 0, background=CLEAR), "png"),
    "grey with alpha": (_grey(255).convert("LA"), "png"),
    "JPEG 75": (_grey(255), "jpg"),
    "JPEG 30": (_grey(255).convert("RGB"), "jpg"),
    "WebP": (_grey(255), "webp"),
}


@pytest.mark.parametrize("how", READ)
def test_the_lesion_is_found_however_it_is_drawn(tmp_path, how):
    image, suffix = READ[how]
    image.save(tmp_path / f"mask.{suffix}", **({"quality": 30} if how == "JPEG 30" else {}))
    assert np.array_equal(read_mask(tmp_path / f"mask.{suffix}")[0], SQUARE)


REFUSED = {
    "all entries of the mask's palette have one colour": (_palette((0, 0, 0), (0, 0, 0)), "png"),
    "no pixel of the mask is black": (_palette((255, 255, 255), (255, 0, 0)), "png"),
    "both under and outside its transparent part": (_colour(*INK, background=(255, 255, 255, 0)), "png"),
    "its values end at": (_grey(9), "jpg"),
    "the mask is in colour and its format is lossy": (_colour(255, 0, 0), "jpg"),
    "NaN": (Image.fromarray(np.where(SQUARE, np.nan, 0).astype(np.float32)), "tif"),
    "must not be negative": (Image.fromarray(-SQUARE.astype(np.float32)), "tif"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_tell_the_lesion_is_refused(tmp_path, why):
    image, suffix = REFUSED[why]
    image.save(tmp_path / f"mask.{suffix}")
    with pytest.raises(UserError, match=why) as caught:
        read_mask(tmp_path / f"mask.{suffix}")
    assert f"mask.{suffix}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_may_be_named(tmp_path):
    _palette((255, 255, 255), (255, 0, 0)).save(tmp_path / "palette.png")
    assert np.array_equal(read_mask(tmp_path / "palette.png", Rules(mask_values=(1,)))[0], SQUARE)
    _grey(0, background=255).save(tmp_path / "inverted.png")
    assert np.array_equal(read_mask(tmp_path / "inverted.png", Rules(mask_values=(0,)))[0], SQUARE)
    Image.fromarray(np.where(SQUARE, 300, 2).astype(np.uint16)).save(tmp_path / "deep.png")
    assert np.array_equal(read_mask(tmp_path / "deep.png", Rules(mask_values=(300, 4)))[0], SQUARE)
    _grey(2, background=1).convert("RGB").save(tmp_path / "grey.png")
    assert np.array_equal(read_mask(tmp_path / "grey.png", Rules(mask_values=(2,)))[0], SQUARE)
    _colour(9, 0, 0).save(tmp_path / "colour.png")
    with pytest.raises(UserError, match="this one is in colour"):
        read_mask(tmp_path / "colour.png", Rules(mask_values=(9,)))
    _grey(255).save(tmp_path / "lossy.jpg")
    with pytest.raises(UserError, match="needs masks of a lossless format"):
        read_mask(tmp_path / "lossy.jpg", Rules(mask_values=(255,)))


def test_empty_and_full_masks_are_masks():
    for value in (0, 255):
        for shape in ((4, 5), (4, 5, 3)):
            assert lesion(np.full(shape, value)).all() == bool(value)
            assert lesion(np.full(shape, value), lossy=True).all() == bool(value)
    assert not lesion(np.zeros((4, 5, 3), int), palette=np.zeros((4, 5), int)).any()
