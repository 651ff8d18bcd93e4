"""Every kind of TIFF is read as tifffile reads it, turned and black at 0, or refused by name; never something else."""

import re
import struct
from itertools import product

import numpy as np
import pytest
import tifffile
from PIL import Image

from anomaly_lab.data.readers import tiff
from anomaly_lab.data.readers.pictures import Rules, is_deep, picture_size, read_image, read_mask
from anomaly_lab.types import UserError

KINDS = {  # photometric interpretation, samples, extra samples
    "black": ("minisblack", 1, None),
    "white": ("miniswhite", 1, None),
    "rgb": ("rgb", 3, None),
    "rgba": ("rgb", 4, ["unassalpha"]),
    "rgbx": ("rgb", 4, ["unspecified"]),
    "associated alpha": ("rgb", 4, ["assocalpha"]),
    "grey and alpha": ("minisblack", 2, ["unassalpha"]),
}
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def _write(path, values, kind="black", planar=False, orientation=1, **how):
    """Write [H, W] or [H, W, C]; compression and so on go to tifffile."""
    photometric, _, extra = KINDS[kind]
    tifffile.imwrite(
        path,
        np.moveaxis(values, 2, 0) if planar else values,
        photometric=photometric,
        planarconfig=("separate" if planar else "contig") if values.ndim == 3 else None,
        extrasamples=extra,
        extratags=[(274, "H", 1, orientation, True)],
        metadata=None,
        **how,
    )


def _read(path):
    """The picture with three channels, or why it is refused."""
    try:
        return read_image(path, 3)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ")


def _values(dtype, samples, rng):
    shape = (20, 30) if samples == 1 else (20, 30, samples)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, min(np.iinfo(dtype).max, 65535), shape, endpoint=True).astype(dtype)


def _wanted(path, kind, planar, orientation):
    """What tifffile reads, as a picture [3, H, W] of 16 bits or 8."""
    stored = tifffile.imread(path)
    stored = np.moveaxis(stored, 0, 2) if planar else stored
    shown = TURNED[orientation](stored)
    if shown.dtype.kind == "f":
        shown = np.rint(shown.astype(np.float32) * np.float32(65535))
    if kind == "white":
        shown = (255 if shown.dtype == np.uint8 else 65535) - shown
    colours = (
        shown[..., :3]
        if shown.ndim == 3 and shown.shape[2] > 2
        else np.stack([shown.reshape(*shown.shape[:2], -1)[..., 0]] * 3, 2)
    )
    return colours.transpose(2, 0, 1).astype(np.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "f2", "f4", "f8"])
def test_every_kind_equals_tifffile_or_is_refused_by_name(tmp_path, dtype, kind):
    rng, samples, read, refused = np.random.default_rng(0), KINDS[kind][1], 0, set()
    values = _values(dtype, samples, rng)
    for number, (planar, compression, order, orientation) in enumerate(
        product([False, True], [None, "zlib", "predicted"], "<>", [1, 6, 3])
    ):
        if (planar and samples == 1) or (compression == "predicted" and np.dtype(dtype).kind == "f"):
            continue
        path, how = tmp_path / f"{number}.tif", {"compression": compression and "zlib", "byteorder": order}
        how["predictor"] = True if compression == "predicted" else None
        _write(path, values, kind, planar, orientation, **how)
        pixels = _read(path)
        if isinstance(pixels, str):
            refused.add(pixels)
            continue
        read += 1
        assert pixels.dtype == (np.uint8 if dtype == "u1" else np.uint16)
        assert is_deep(path) == (dtype != "u1")
        assert picture_size(path) == pixels.shape[1:]
        if kind != "associated alpha":  # tifffile leaves the colours multiplied by it
            wanted = _wanted(path, kind, planar, orientation)
            assert np.array_equal(pixels, wanted), (dtype, kind, planar, compression, order, orientation)
    assert not [reason for reason in refused if "\n" in reason or reason.startswith(("/", "this is not a picture"))]
    if dtype in {"u1", "u2"} and kind in {"black", "white", "rgb", "rgba", "rgbx"}:
        assert read >= 6


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(("kind", "dtype"), product(["black", "white", "rgb", "rgba"], ["u1", "u2"]))
def test_every_orientation_is_obeyed(tmp_path, kind, dtype, orientation):
    values = _values(dtype, KINDS[kind][1], np.random.default_rng(1))
    for compression in (None, "zlib"):
        _write(tmp_path / "a.tif", values, kind, compression=compression, orientation=orientation)
        wanted = _wanted(tmp_path / "a.tif", kind, False, orientation)
        assert np.array_equal(read_image(tmp_path / "a.tif", 3), wanted)


@pytest.mark.parametrize("more", [{"tile": (16, 16)}, {"rowsperstrip": 3}, {"bigtiff": True}])
@pytest.mark.parametrize(("kind", "dtype"), product(["black", "white", "rgb"], ["u1", "u2"]))
def test_tiles_strips_and_big_tiff(tmp_path, kind, dtype, more):
    values = _values(dtype, KINDS[kind][1], np.random.default_rng(2))
    for order, orientation, compression in product("<>", [1, 6], [None, "zlib"]):
        path = tmp_path / "a.tif"
        _write(path, values, kind, orientation=orientation, compression=compression, byteorder=order, **more)
        pixels = _read(path)
        if order == ">" and ((kind, dtype) == ("white", "u2") or "bigtiff" in more):
            assert "not supported" in pixels
        else:
            assert np.array_equal(pixels, _wanted(path, kind, False, orientation))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "lzma", "zstd"])
def test_what_other_programs_compress(tmp_path, compression):
    """Written by libtiff, because tifffile alone cannot; uncompressed is what is wanted."""
    for dtype in ("u1", "u2"):
        values = _values(dtype, 1, np.random.default_rng(3))
        Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
        assert np.array_equal(read_image(tmp_path / "a.tif", 1)[0], values)


def _entry(tag, kind, count, value, order="<"):
    return struct.pack(f"{order}HHI", tag, kind, count) + struct.pack(
        f"{order}{'HH' if kind == 3 else 'I'}", *([value, 0] if kind == 3 else [value])
    )


def _by_hand(path, size, bits, photometric, data, *entries):
    """Write a little-endian TIFF of one strip."""
    width, height = size
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (277, 3, 1, 1)]
    tags += [] if photometric is None else [(262, 3, 1, photometric)]
    tags += [(278, 3, 1, height), (279, 4, 1, len(data)), *entries]
    tags.append((273, 4, 1, 8 + 2 + 12 * (len(tags) + 1) + 4))
    directory = b"".join(_entry(*tag) for tag in sorted(tags))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + data)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_less_than_eight_bits_fill_the_range(tmp_path, bits, photometric):
    values = np.random.default_rng(4).integers(0, 2**bits, (5, 16))
    packed = np.packbits(((values[..., None] >> np.arange(bits)[::-1]) & 1).reshape(5, -1), axis=1)
    _by_hand(tmp_path / "a.tif", (16, 5), bits, photometric, packed.tobytes())
    wanted = values * 255 // (2**bits - 1)
    assert np.array_equal(read_image(tmp_path / "a.tif", 1)[0], wanted if photometric else 255 - wanted)
    _by_hand(tmp_path / "b.tif", (16, 5), bits, photometric, packed.tobytes(), (274, 3, 1, 6))
    assert np.array_equal(read_image(tmp_path / "b.tif", 1)[0], np.rot90(wanted if photometric else 255 - wanted, -1))


def test_twelve_bits_fill_the_range(tmp_path):
    values = np.random.default_rng(5).integers(0, 4096, (4, 6))
    packed = np.packbits(((values[..., None] >> np.arange(12)[::-1]) & 1).reshape(4, -1), axis=1)
    _by_hand(tmp_path / "a.tif", (6, 4), 12, 1, packed.tobytes())
    assert np.array_equal(read_image(tmp_path / "a.tif", 1)[0], np.rint(values * 65535 / 4095))
    assert np.array_equal(read_image(tmp_path / "a.tif", 1, Rules(range=65535)), read_image(tmp_path / "a.tif", 1))


def test_bits_from_right_to_left(tmp_path):
    values = np.random.default_rng(6).integers(0, 256, (4, 6), np.uint8)
    backwards = np.packbits(np.unpackbits(values[..., None], axis=2)[..., ::-1], axis=2)[..., 0]
    _by_hand(tmp_path / "a.tif", (6, 4), 8, 1, backwards.tobytes(), (266, 3, 1, 2))
    assert np.array_equal(read_image(tmp_path / "a.tif", 1)[0], values)


def test_planes_of_a_single_sample_mean_nothing(tmp_path):
    values = np.random.default_rng(8).integers(0, 256, (4, 6), np.uint8)
    _by_hand(tmp_path / "a.tif", (6, 4), 8, 1, values.tobytes(), (284, 3, 1, 2))
    assert np.array_equal(read_image(tmp_path / "a.tif", 1)[0], values)


def test_a_palette_gives_its_colours(tmp_path):
    rng = np.random.default_rng(7)
    values, colours = rng.integers(0, 256, (20, 30), np.uint8), rng.integers(0, 256, (3, 256)).astype(np.uint16) * 257
    for orientation in TURNED:
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(
            tmp_path / "a.tif", values, photometric="palette", colormap=colours, extratags=tags, metadata=None
        )
        wanted = TURNED[orientation](colours[:, values].transpose(1, 2, 0) // 257)
        assert np.array_equal(read_image(tmp_path / "a.tif", 3), wanted.transpose(2, 0, 1))


REFUSED = {
    "white is 0 in it and its values are floats": ("f4", "white", {}),
    "its values are signed, of 8 bits": ("i1", "black", {}),
    "its byte order is big-endian": ("f4", "black", {"byteorder": ">", "compression": "zlib"}),
    "PlanarConfiguration 2) with 16 bits": ("u2", "rgb", {"planar": True}),
    "its grey and alpha are stored one after the other": ("u1", "grey and alpha", {"planar": True}),
    "multiplied by its alpha": ("u2", "associated alpha", {}),
    r"not supported \(photometric interpretation 2, samples 3, bits 32/32/32, format 3/3/3": ("f4", "rgb", {}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_obeyed_is_named(tmp_path, reason):
    dtype, kind, how = REFUSED[reason]
    _write(tmp_path / "a.tif", _values(dtype, KINDS[kind][1], np.random.default_rng(0)), kind, **how)
    with pytest.raises(UserError, match=reason if reason[0] == "n" else re.escape(reason)):
        read_image(tmp_path / "a.tif", 1)


def test_missing_tags_are_named(tmp_path):
    _by_hand(tmp_path / "a.tif", (4, 4), 8, None, bytes(range(16)))
    with pytest.raises(UserError, match="no tag PhotometricInterpretation"):
        read_image(tmp_path / "a.tif", 1)
    _by_hand(tmp_path / "b.tif", (4, 4), 8, 1, bytes(range(16)))
    content = (tmp_path / "b.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(content.replace(_entry(256, 3, 1, 4), _entry(65000, 3, 1, 4)))
    with pytest.raises(UserError, match="without width and height"):
        read_image(tmp_path / "b.tif", 1)
    assert tiff.kind(tmp_path / "missing") == "it is a damaged TIFF file"


def test_pages_are_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.random.default_rng(0).integers(0, 9, (2, 8, 8), np.uint8), photometric="minisblack"
    )
    with pytest.raises(UserError, match="several pictures"):
        read_image(tmp_path / "a.tif", 1)


def test_stacks_behind_one_directory_are_refused(tmp_path):
    stack = np.random.default_rng(0).integers(0, 9, (4, 32, 32), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", volumetric=True, tile=(4, 16, 16))
    header = "ImageJ=1.54\nimages=4\nslices=4\n"
    tifffile.imwrite(tmp_path / "b.tif", stack[0], photometric="minisblack", description=header, metadata=None)
    for name in ("a.tif", "b.tif"):
        with pytest.raises(UserError, match=r"it is a stack of several slices, which is not supported"):
            read_image(tmp_path / name, 1)
    header = "ImageJ=1.54\nimages=1\nslices=4\n"
    tifffile.imwrite(tmp_path / "c.tif", stack[0], photometric="minisblack", description=header, metadata=None)
    assert np.array_equal(read_image(tmp_path / "c.tif", 1)[0], stack[0])


def test_masks_obey_the_same_tags(tmp_path):
    lesion = np.zeros((20, 30), np.uint16)
    lesion[2:5, 3:9] = 1
    _write(tmp_path / "a.tif", 65535 - lesion, "white", orientation=6)
    assert np.array_equal(read_mask(tmp_path / "a.tif")[0], np.rot90(lesion, -1) > 0)
