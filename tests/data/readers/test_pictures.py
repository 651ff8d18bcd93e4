import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.readers.pictures import Rules, as_picture, is_deep, picture_size, read_image, read_mask
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
    for kind in (np.float16, np.float32, np.float64):
        assert as_picture(np.array([[0.0, 0.5, 1.0]], kind), 1).tolist() == [[[0, 32768, 65535]]]


@pytest.mark.parametrize(("values", "message"), [
    (np.zeros((2, 2, 4), np.uint8), r"\(2, 2, 4\)"), (np.zeros(3, np.uint8), "shape"),
    (np.zeros((0, 2)), "is not a picture"),
    (np.zeros((2, 2), np.int32), "type int32"), (np.full((2, 2), 1.5), "0 to 1"), (np.full((2, 2), np.nan), "NaN"),
])  # fmt: skip
def test_an_array_that_is_no_picture_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        as_picture(values, 1)


SHOWN = {  # what Pillow does for each value of the Exif tag, from the picture as it is shown to what is stored
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _turned(path, shown, orientation, **how):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = shown if orientation not in SHOWN else shown.transpose(SHOWN[orientation])
    stored.save(path, exif=exif, **how)


@pytest.mark.parametrize("orientation", range(10))
def test_pictures_are_read_as_they_are_shown(tmp_path, orientation):
    shown = Image.fromarray(RAMP)
    _turned(tmp_path / "a.png", shown, orientation)
    assert np.array_equal(read_image(tmp_path / "a.png", 1)[0], RAMP)
    assert np.array_equal(read_mask(tmp_path / "a.png")[0], RAMP > 0)
    assert picture_size(tmp_path / "a.png") == RAMP.shape
    _turned(tmp_path / "a.webp", shown.convert("RGB"), orientation, lossless=True)
    assert np.array_equal(read_image(tmp_path / "a.webp", 1)[0], RAMP)
    _turned(tmp_path / "deep.png", Image.fromarray(RAMP.astype(np.uint16) * 257), orientation)
    assert np.array_equal(read_image(tmp_path / "deep.png", 1)[0], RAMP.astype(np.uint16) * 257)
    _turned(tmp_path / "a.jpg", shown.resize((64, 48)), orientation, quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg", 1)[0] - np.asarray(shown.resize((64, 48)), float)).max() < 12


def test_deep_colours_are_turned_as_well(tmp_path):
    colours = np.stack([RAMP.astype(np.uint16) * 200 + i for i in range(3)], -1)
    cv2.imwrite(str(tmp_path / "a.png"), np.rot90(colours))  # Exif 6 turns it back
    content, exif = (tmp_path / "a.png").read_bytes(), Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    assert np.array_equal(read_image(tmp_path / "a.png", 3), colours[..., ::-1].transpose(2, 0, 1))


def test_a_broken_exif_tag_does_not_matter(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\x00nonsense")
    assert np.array_equal(read_image(tmp_path / "a.png", 1)[0], RAMP)


def test_of_a_phone_s_picture_the_first_is_read(tmp_path):
    first, second = Image.fromarray(RAMP).resize((64, 48)), Image.new("L", (20, 20), 9)
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "b.jpg", "JPEG")
    assert np.array_equal(read_image(tmp_path / "a.jpg", 1), read_image(tmp_path / "b.jpg", 1))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_animations_and_pages_are_refused(tmp_path, suffix):
    pictures = [Image.fromarray(np.rot90(RAMP, 2 * i)).convert("RGB") for i in range(3)]
    pictures[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pictures[1:])
    with pytest.raises(UserError, match="several pictures"):
        read_image(tmp_path / f"a.{suffix}", 1)


@pytest.mark.parametrize("most", [255, 1000, 4095, 65535])
@pytest.mark.parametrize("colours", [False, True])
def test_a_portable_map_says_what_is_white(tmp_path, most, colours):
    values = np.random.default_rng(0).integers(0, most, (4, 5, 3) if colours else (4, 5), endpoint=True)
    head = f"P{6 if colours else 5}\n5 4\n{most}\n".encode()
    (tmp_path / "a.ppm").write_bytes(head + values.astype(">u2" if most > 255 else "u1").tobytes())
    full = 255 if most == 255 else 65535
    wanted = np.rint(values * (full / most)).astype(int)
    found = read_image(tmp_path / "a.ppm", 3).astype(int)
    assert np.array_equal(found, wanted.transpose(2, 0, 1) if colours else np.stack([wanted] * 3))
    assert is_deep(tmp_path / "a.ppm") == (most > 255)


def test_the_range_of_pictures_can_be_said(tmp_path):
    values = np.array([[0, 100, 4095]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", 1).max() == 4095
    twelve = Rules(range=4095)
    assert np.array_equal(read_image(tmp_path / "deep.png", 1, twelve)[0], np.rint(values * (65535.0 / 4095)))
    assert np.array_equal(as_picture(values, 1, twelve), read_image(tmp_path / "deep.png", 1, twelve))
    with pytest.raises(UserError, match=r"from 0 to 4095, outside the range 0 to 1023, which data\.picture\.range"):
        read_image(tmp_path / "deep.png", 1, Rules(range=1023))
    Image.fromarray(RAMP).save(tmp_path / "flat.png")  # 8 bits have no room for 4095: their white is 255
    assert np.array_equal(read_image(tmp_path / "flat.png", 1, twelve)[0], RAMP)
    Image.fromarray(RAMP // 4).save(tmp_path / "six.png")
    assert np.array_equal(read_image(tmp_path / "six.png", 1, Rules(range=63))[0], np.rint((RAMP // 4) * (255.0 / 63)))
    Image.fromarray(np.array([[0, 51, 255]], np.float32)).save(tmp_path / "float.tif")
    assert read_image(tmp_path / "float.tif", 1, Rules(range=255)).tolist() == [[[0, 13107, 65535]]]


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"6×8 pixels, the limit is data\.picture\.max_pixels=47"):
        read_image(tmp_path / "a.png", 1, Rules(max_pixels=47))
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    bomb = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bomb)
    tracemalloc.start()
    with pytest.raises(UserError, match="max_pixels"):
        read_image(tmp_path / "bomb.png", 1)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_a_limit_may_be_raised_beyond_pillow_s(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="max_pixels"):
        read_image(tmp_path / "a.png", 1, Rules(max_pixels=20))
    assert read_image(tmp_path / "a.png", 1, Rules(max_pixels=48)).shape == (1, 6, 8)


def test_a_picture_starts_no_program(tmp_path):
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="not a picture"):
        read_image(tmp_path / "a.png", 1)


def test_whatever_a_decoder_throws_names_the_file(tmp_path, monkeypatch):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    for error in (ZeroDivisionError("x"), MemoryError(), RuntimeError("two\nlines"), TypeError()):
        monkeypatch.setattr(Image.Image, "convert", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(UserError, match=r"a\.png: the picture cannot be read") as caught:
            read_image(tmp_path / "a.png", 1)
        assert "\n" not in str(caught.value)


def test_a_torn_picture_of_sixteen_bits_is_refused(tmp_path):
    colours = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), colours)
    content = (tmp_path / "a.png").read_bytes()
    for spoilt in (content[: len(content) // 2], content[:5000] + b"spoilt" + content[5006:]):
        (tmp_path / "a.png").write_bytes(spoilt)
        with pytest.raises(UserError, match=r"a\.png: the picture cannot be read"):
            read_image(tmp_path / "a.png", 1)


def png_of_few_bits(path, values: np.ndarray, bits: int) -> None:
    """A grey PNG of 1, 2 or 4 bits, as tools write it that choose the depth by the values."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    spread = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(spread.reshape(height, -1).astype(np.uint8), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize(("bits", "named", "shown"), [(1, [1], [255]), (2, [1, 3], [85, 255]), (4, [1, 3], [17, 51])])
def test_mask_values_are_those_that_a_file_of_few_bits_stores_or_shows(tmp_path, bits, named, shown):
    """Pillow stretches them to 255; a mask that was then empty counted as healthy everywhere."""
    values = np.arange(16, dtype=np.uint8).reshape(4, 4) % min(4, 2**bits)
    png_of_few_bits(tmp_path / "mask.png", values, bits)
    for told in (named, shown):
        found = read_mask(tmp_path / "mask.png", Rules(mask_values=tuple(told)))
        assert np.array_equal(found[0], np.isin(values, named))
    assert np.array_equal(read_mask(tmp_path / "mask.png", Rules(mask_values=(0,)))[0], values == 0)


def test_mask_values_of_a_pgm_are_those_that_it_stores(tmp_path):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    (tmp_path / "mask.pgm").write_bytes(b"P5 4 3 2\n" + values.tobytes())
    for named, stored in ((1, 1), (2, 2), (255, 2)):  # 255 is what a viewer shows for white
        found = read_mask(tmp_path / "mask.pgm", Rules(mask_values=(named,)))
        assert np.array_equal(found[0], values == stored)


def test_white_of_a_pbm_mask_is_named_as_it_is_shown(tmp_path):
    values = np.eye(8, dtype=bool)
    Image.fromarray(values).save(tmp_path / "mask.pbm")
    assert np.array_equal(read_mask(tmp_path / "mask.pbm", Rules(mask_values=(255,)))[0], values)
