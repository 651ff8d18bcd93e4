import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from anomaly_lab.data.readers import idx
from anomaly_lab.data.readers.idx import IMAGES, LABELS, find_idx, read_idx
from anomaly_lab.types import UserError

PIXELS = np.arange(2 * 3 * 4, dtype=np.uint8)
CONTENT = struct.pack(">4I", 2051, 2, 3, 4) + PIXELS.tobytes()


@pytest.mark.parametrize("name", ["images", "images.gz", "a name with spaces é.gz"])
def test_images_are_read_plain_or_gzipped(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(CONTENT) if name.endswith("gz") else CONTENT)
    assert read_idx(path, IMAGES).tolist() == PIXELS.reshape(2, 3, 4).tolist()


def test_gzip_is_told_by_its_bytes_not_by_the_name(tmp_path):
    (tmp_path / "labels").write_bytes(gzip.compress(struct.pack(">2I", 2049, 3) + b"\x07\x02\x01"))
    (tmp_path / "images.gz").write_bytes(CONTENT)
    assert read_idx(tmp_path / "labels", LABELS).tolist() == [7, 2, 1]
    assert read_idx(tmp_path / "images.gz", IMAGES).shape == (2, 3, 4)


FAULTS = {
    "announces 2×3×4 = 24 bytes of images, 23 follow": CONTENT[:-1],
    "announces 2×3×4 = 24 bytes of images, 25 follow": CONTENT + b"\0",
    "magic number is 2049, not the 2051 of images: it holds labels": struct.pack(">4I", 2049, 2, 0, 0),
    "magic number is 2303741511, not the 2051 of images: this is not an IDX file": b"\x89PNG\r\n\x1a\n" + bytes(20),
    "7 bytes are too few for an IDX header": CONTENT[:7],
    "0 bytes are too few": b"",
    "cannot be read .*end-of-stream": gzip.compress(CONTENT)[:-12],
    "cannot be read .*CRC": gzip.compress(CONTENT)[:-8] + bytes(8),
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_files_are_named(tmp_path, message):
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(FAULTS[message])
    with pytest.raises(UserError, match=message) as caught:
        read_idx(path, IMAGES)
    assert str(caught.value).startswith(str(path))
    assert "download the file again" in str(caught.value)


def test_no_more_is_unpacked_than_announced(tmp_path, monkeypatch):
    more, endless = tmp_path / "more.gz", tmp_path / "endless.gz"
    more.write_bytes(gzip.compress(CONTENT + bytes(50_000_000)))
    endless.write_bytes(gzip.compress(struct.pack(">4I", 2051, *[2**32 - 1] * 3) + bytes(50_000_000)))
    monkeypatch.setattr(idx, "MAX_BYTES", 10_000)
    tracemalloc.start()
    with pytest.raises(UserError, match="24 bytes of images, 25 follow at least"):
        read_idx(more, IMAGES)
    with pytest.raises(UserError, match="10001 follow at least"):
        read_idx(endless, IMAGES)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_missing_file_is_an_error_that_names_both_spellings(tmp_path):
    with pytest.raises(UserError, match=r"neither labels nor labels\.gz"):
        find_idx(tmp_path, "labels")
    (tmp_path / "labels.gz").touch()
    assert find_idx(tmp_path, "labels") == tmp_path / "labels.gz"
    (tmp_path / "labels").touch()
    assert find_idx(tmp_path, "labels") == tmp_path / "labels"
