import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_lab.data.preprocessing.transforms import Preprocessing, Volume, quantise, to_float
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.types import UserError


def _fitted(pixels, size, **how):
    return Preprocessing(size, **how)(Scan(pixels[None])).pixels


def test_picture_is_padded_to_the_centre_and_never_stretched():
    bright = np.full((40, 20), 200, np.uint8)
    image = _fitted(bright, (16, 16))
    assert image.shape == (1, 16, 16)
    assert image.dtype == np.float32
    assert np.all(image[0, :, 5:11] > 0.7)
    assert np.allclose(image[0, :, :2], 0, atol=0.02)
    assert np.allclose(image, image[:, :, ::-1], atol=0.02)


def test_patch_that_is_not_square_is_padded_to_its_own_shape():
    assert np.all(_fitted(np.full((20, 40), 100, np.uint8), (8, 16)) > 0.3)


def test_picture_that_is_stretched_has_no_border():
    assert np.all(_fitted(np.full((40, 20), 100, np.uint8), (16, 16), fit="stretch") > 0.3)


def test_resize_equals_pillows_antialiased_bilinear():
    y, x = np.mgrid[0:97, 0:97]
    smooth = (127 + 60 * np.sin(x / 3) + 60 * np.cos(y / 7)).clip(0, 255).astype(np.uint8)
    pillow = np.asarray(Image.fromarray(smooth).resize((24, 24), Image.Resampling.BILINEAR), float)
    assert np.abs(_fitted(smooth, (24, 24))[0] * 255 - pillow).max() <= 1


def test_picture_of_its_size_is_left_alone():
    pixels = np.random.default_rng(0).integers(0, 65536, (12, 12), np.uint16)
    assert np.array_equal(quantise(_fitted(pixels, (12, 12)), np.dtype(np.uint16))[0], pixels)
    assert np.array_equal(quantise(_fitted(pixels, None), np.dtype(np.uint16))[0], pixels)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (33, 70), (16, 16), (7, 9)])
def test_a_map_is_carried_back_to_the_picture_it_is_of(fit, shape):
    """A bright spot of a picture is a bright spot of the map, at the same place."""
    spot = np.zeros((1, *shape), np.uint8)
    row, column = shape[0] // 4, 2 * shape[1] // 3
    spot[0, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = 255
    preparation = Preprocessing((16, 16), fit)
    back = preparation.undo(preparation(Scan(spot)).pixels[0], shape)
    assert back.shape == shape
    assert back.dtype == np.float32
    weights = back / back.sum()
    centre = [(np.arange(n) * weights.sum(1 - axis)).sum() for axis, n in enumerate(shape)]
    expected = [(np.arange(n) * (spot[0] / spot.sum()).sum(1 - axis)).sum() for axis, n in enumerate(shape)]
    assert np.allclose(centre, expected, atol=max(shape) / 16)


def test_a_constant_map_stays_constant_and_padding_is_cut_off():
    preparation = Preprocessing((8, 8))
    whole = np.full((8, 8), 0.5, np.float32)
    assert np.allclose(preparation.undo(whole, (10, 30)), 0.5)
    assert preparation.undo(whole, (8, 8)) is whole


def test_mask_travels_with_its_image():
    image = np.zeros((60, 32), np.uint8)  # edges fall between the pixels of the result
    image[20:40, 10:20] = 255
    prepared = Preprocessing((30, 30))(Scan(image[None], mask=image[None] > 0))
    assert prepared.mask.dtype == bool
    assert np.array_equal(prepared.mask, prepared.pixels > 0.5)


def _volume(values, **arguments):
    return Volume(**arguments)(Scan(np.asarray(values)[None], affine=np.diag([1.0, 1, 1, 1])))


def test_window_clips_to_its_ends_and_counts_what_it_cuts_off():
    values = np.linspace(-100, 200, 4 * 4 * 4).reshape(4, 4, 4).astype(np.int16)
    prepared = _volume(values, window=(40, 80), axcodes="RAS")
    expected = np.clip(values / 80, 0, 1)
    assert np.allclose(prepared.pixels[0], expected, atol=1e-6)
    assert np.array_equal(prepared.foreground[0], values > 0)
    assert prepared.clipped == pytest.approx((values > 80).sum() / (values > 0).sum())


def test_zscore_is_over_what_is_not_zero():
    values = np.zeros((6, 6, 6), np.float32)
    values[1:5, 1:5, 1:5] = np.random.default_rng(0).normal(300, 40, (4, 4, 4))
    prepared = _volume(values, zscore=3.0, axcodes="RAS")
    brain = prepared.pixels[prepared.foreground]
    z = (brain - 0.5) * 6
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02


def test_orientation_and_spacing_reach_pixels_mask_and_affine():
    mask = np.zeros((8, 6, 4), bool)
    mask[:4] = True
    values = np.where(mask, 200, 100).astype(np.int16)
    scan = Scan(values[None], mask=mask[None], affine=np.diag([1.0, 1, 2, 1]))
    prepared = Volume(spacing=(1, 1, 1), window=(100, 200))(scan)
    assert prepared.pixels.shape == (1, *prepared.mask.shape[1:])
    assert prepared.pixels.shape[1] in {7, 8}  # four slices of 2 mm, as slices of 1 mm
    assert prepared.pixels.shape[2:] == (6, 8)
    assert np.array_equal(prepared.mask[0], prepared.pixels[0] > 0.75)
    assert prepared.mask[0, 0, 0, -1]  # left of the picture is the patient's right: low x is on the right
    assert np.allclose(np.linalg.norm(prepared.affine[:3, :3], axis=0), 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": (40, 80), "zscore": 3.0}, "exclude each other"),
        ({"window": (40, 0)}, "a width above 0"),
        ({"window": 40}, r"takes \[centre, width\]"),
        ({"window": "bone"}, r"takes \[centre, width\]"),
        ({"window": (40, float("nan"))}, r"takes \[centre, width\]"),
        ({"zscore": -1.0}, r"zscore=-1.0: takes a number in \(0"),
        ({"percentiles": (99, 1)}, "the first must be below the second"),
        ({"spacing": (1, 0, 1)}, r"spacing=.* takes a number in \(0"),
        ({"axcodes": "RAX"}, "axcodes=RAX: takes one each"),
    ],
)
def test_volume_settings_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Volume(**arguments)


def test_a_header_without_the_window_that_is_asked_for_is_refused():
    with pytest.raises(UserError, match="has no window"):
        _volume(np.arange(64).reshape(4, 4, 4), window="scan")


def test_empty_foreground_is_refused():
    with pytest.raises(UserError, match="foreground"):
        _volume(np.zeros((4, 4, 4), np.int16))


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


def test_background_that_a_reader_knows_is_black_and_counts_for_nothing():
    values = np.random.default_rng(0).normal(50, 5, (6, 6, 6)).astype(np.float32)
    known = np.ones(values.shape, bool)
    known[:, :3] = False
    values[~known] = values.min()  # as read_nifti fills it
    scan = Scan(values[None], affine=np.eye(4), foreground=known[None])
    for rule in ({"zscore": 3.0}, {"percentiles": (1.0, 99.0)}, {"window": (50.0, 20.0)}, {"foreground_above": 0.0}):
        prepared = Volume(axcodes="RAS", **rule)(scan)
        assert (prepared.pixels[0][~known] == 0).all()
        assert np.array_equal(prepared.foreground[0], known & prepared.foreground[0])
        assert abs(prepared.pixels[0][known].mean() - 0.5) < 0.1
    halved = Volume(axcodes="RAS", spacing=(1.0, 1.0, 0.5), zscore=3.0)(scan)
    assert halved.foreground.shape == halved.pixels.shape
    assert not halved.foreground[0, :, :3].any()


def test_a_spacing_that_makes_too_many_voxels_is_refused_before_memory_is_taken():
    scan = Scan(np.arange(64.0).reshape(1, 4, 4, 4), affine=np.diag([2000.0, 2000, 2000, 1]))
    with pytest.raises(UserError, match=r"its voxels of 2000 × 2000 × 2000 mm become 6.4e\+10 under .*max_voxels"):
        Volume(spacing=(2.0, 2.0, 2.0))(scan)


@pytest.mark.parametrize(("shape", "size"), [((40, 110), (100, 100)), ((110, 40), (100, 100)), ((30, 70), (224, 224))])
def test_no_row_is_added_that_rounding_alone_asks_for(shape: tuple[int, int], size: tuple[int, int]) -> None:
    """110 / 100 · 100 is a little more than 110 in floating point."""
    before, after = Preprocessing(size=size)._padding(shape, size)
    assert {max(shape)} == {side + a + b for side, a, b in zip(shape, before, after, strict=True)}


def test_what_does_not_divide_is_padded_to_the_next_row() -> None:
    before, after = Preprocessing(size=(64, 100))._padding((50, 70), (64, 100))
    assert (before[0] + after[0], before[1] + after[1]) == (0, 9)  # 50 · 100 / 64 is 78.1, so 79 columns
