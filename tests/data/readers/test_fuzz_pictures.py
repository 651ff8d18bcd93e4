"""Damaged pictures and tables are read or refused in one line: no traceback, no crash, no hang, no endless memory."""

import csv
import gzip
import io
import resource
import struct
import time

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from anomaly_lab.data.readers.idx import IMAGES, read_idx
from anomaly_lab.data.readers.pictures import is_deep, picture_size, read_image, read_mask
from anomaly_lab.data.readers.tables import read_table
from anomaly_lab.types import UserError

MUTATIONS = 140  # of each file below
SECONDS = 20  # that one file may take, on a busy machine
MEMORY = 2.5e9  # bytes that all of them may take at once: a picture of the largest allowed size, a few times over
NUMBERS = (0, 1, 2, 3, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def _pillow(image, **how):
    file = io.BytesIO()
    image.save(file, **how)
    return file.getvalue()


def _tiff(values, **how):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **how)
    return file.getvalue()


def _files():
    """Small whole files of every format, by suffix."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (24, 20), np.uint8)
    deep, colour = grey.astype(np.uint16) * 257, rng.integers(0, 256, (24, 20, 3), np.uint8)
    picture, exif = Image.fromarray(grey), Image.Exif()
    exif[0x0112] = 6
    yield "png", _pillow(picture, format="PNG", exif=exif)
    yield "png", _pillow(Image.fromarray(deep), format="PNG")
    yield "png", _pillow(Image.fromarray(colour).quantize(16), format="PNG", transparency=3)
    yield "png", _pillow(picture.convert("LA"), format="PNG")
    yield "png", cv2.imencode(".png", rng.integers(0, 65536, (24, 20, 3), np.uint16))[1].tobytes()
    yield "tif", _tiff(grey)
    yield "tif", _tiff(deep, compression="zlib", predictor=True, extratags=[(274, "H", 1, 6, True)])
    yield "tif", _tiff(deep, photometric="miniswhite", byteorder="<", bigtiff=True)
    yield "tif", _tiff(np.moveaxis(colour, 2, 0), photometric="rgb", planarconfig="separate")
    yield "tif", _tiff(colour.astype(np.uint16), photometric="rgb", tile=(16, 16))
    yield "tif", _tiff(grey.astype(np.float32) / 255)
    yield "tif", _pillow(Image.fromarray(colour), format="TIFF", compression="jpeg")
    yield "tif", _pillow(picture, format="TIFF", compression="tiff_lzw")
    yield "tif", _pillow(picture.convert("1"), format="TIFF", compression="group4")
    yield "tif", _pillow(picture, format="TIFF", save_all=True, append_images=[picture])
    yield "jpg", _pillow(Image.fromarray(colour), format="JPEG", exif=exif)
    yield "jpg", _pillow(Image.fromarray(colour), format="JPEG", progressive=True)
    yield "jpg", _pillow(picture, format="MPO", save_all=True, append_images=[picture])
    yield "webp", _pillow(Image.fromarray(colour), format="WEBP", exif=exif)
    yield "webp", _pillow(Image.fromarray(colour), format="WEBP", lossless=True)
    yield "webp", _pillow(picture.convert("RGB"), format="WEBP", save_all=True, append_images=[Image.fromarray(colour)])
    yield "gif", _pillow(picture, format="GIF")
    yield "gif", _pillow(picture, format="GIF", save_all=True, append_images=[Image.fromarray(colour)])
    yield "bmp", _pillow(Image.fromarray(colour), format="BMP")
    yield "pgm", _pillow(picture, format="PPM")
    yield "ppm", b"P6\n20 24\n4095\n" + rng.integers(0, 4096, (24, 20, 3)).astype(">u2").tobytes()
    yield "pgm", b"P2\n4 3\n4095\n" + b" ".join(b"%d" % value for value in range(12))
    rows = io.StringIO()
    csv.writer(rows).writerows([["file", "label", "mask"], *([f"a {i}.png", i % 2, "m,ü"] for i in range(20))])
    yield "csv", rows.getvalue().encode()
    yield "csv", rows.getvalue().encode("utf-16")
    yield "idx", struct.pack(">4I", IMAGES, 2, 24, 20) + grey.tobytes() * 2
    yield "idx.gz", gzip.compress(struct.pack(">4I", IMAGES, 2, 24, 20) + grey.tobytes() * 2)


def _mutated(content, rng):
    """One to four small damages."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, max(1, len(content)) if rng.random() < 0.5 else min(64, max(1, len(content)))))
        how = rng.integers(0, 6)
        if how == 0:
            content[place : place + 1] = bytes([rng.integers(0, 256)])
        elif how == 1:
            order, kind = rng.choice(["<", ">"]), rng.choice(["H", "I"])
            number = int(rng.choice(NUMBERS)) % (2**16 if kind == "H" else 2**32)
            content[place : place + struct.calcsize(kind)] = struct.pack(order + kind, number)
        elif how == 2:
            del content[place:]
        elif how == 3:
            del content[place : place + int(rng.integers(1, 9))]
        elif how == 4:
            content[place:place] = rng.bytes(int(rng.integers(1, 9)))
        else:
            other = int(rng.integers(0, max(1, len(content))))
            content[place:place] = content[other : other + int(rng.integers(1, 200))]
    return bytes(content)


def _read(path):
    """Everything that is done with a file of its kind; returns how much was read, or refused in one line."""
    if path.suffix == ".csv":
        steps = [lambda: list(read_table(path, ("file", "label")))]
    elif ".idx" in path.name:
        steps = [lambda: read_idx(path, IMAGES)]
    else:
        steps = [
            lambda: read_image(path, 1),
            lambda: read_image(path, 3),
            lambda: read_mask(path),
            lambda: picture_size(path),
        ]
        is_deep(path)
    refusals = []
    for step in steps:
        try:
            step()
        except UserError as error:
            refusals.append(str(error))
    assert all(str(path) in refusal and len(refusal.splitlines()) == 1 for refusal in refusals), refusals
    return len(steps) - len(refusals)


def test_whole_files_are_read(tmp_path):
    for number, (suffix, content) in enumerate(_files()):
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(content)
        assert _read(path) or suffix in {"csv", "gif", "webp", "tif"}, path


@pytest.mark.slow
def test_damaged_files_are_read_or_refused(tmp_path, record_property):
    slowest, read, count = (0.0, ""), 0, 0
    for number, (suffix, whole) in enumerate(_files()):
        rng = np.random.default_rng([2026, number])
        for mutation in range(MUTATIONS):
            path = tmp_path / f"{number}-{mutation}.{suffix}"
            path.write_bytes(_mutated(whole, rng))
            start = time.perf_counter()
            read += _read(path) > 0
            slowest, count = max(slowest, (time.perf_counter() - start, path.name)), count + 1
            path.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    record_property("fuzz", f"{count} files, {read} read, slowest {slowest}, peak {peak / 1e9:.2f} GB")
    print(f"{count} files, {read} read, slowest {slowest}, peak {peak / 1e9:.2f} GB")
    assert slowest[0] < SECONDS, slowest
    assert peak < MEMORY
