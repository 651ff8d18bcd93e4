"""Files come in under names of our own, up to a size and a number; what is wrong is one sentence with its status."""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from anomaly_lab.serving.uploads import Limits, UploadError, receive, suffix_of

KIND = "multipart/form-data; boundary=xx"


def part(content: bytes, name: str = 'filename="a.png"') -> bytes:
    head = f'--xx\r\nContent-Disposition: form-data; name="file"; {name}\r\n\r\n'.encode()
    return head + content + b"\r\n"


def take(folder: Path, body: bytes, kind: str = "", step: int = 7) -> dict[str, bytes]:
    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step):
            yield body[start : start + step]

    asyncio.run(receive(stream(), kind, None, folder, Limits(1000, 3)))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_body_is_a_file_and_so_is_every_part_with_a_name(tmp_path: Path, step: int) -> None:
    assert take(tmp_path, b"\x89PNG", step=step) == {"0000": b"\x89PNG"}
    (tmp_path / "b").mkdir()
    body = part(b"one") + part(b"no file", "x=1") + part(b"two\r\n--x", 'filename="../../etc/passwd"') + b"--xx--\r\n"
    assert take(tmp_path / "b", body, KIND, step=step) == {"0000": b"one", "0001": b"two\r\n--x"}


def test_an_empty_file_among_others_is_kept_to_be_told_of(tmp_path: Path) -> None:
    body = part(b"one") + part(b"") + part(b"three") + b"--xx--\r\n"
    assert take(tmp_path, body, KIND) == {"0000": b"one", "0001": b"", "0002": b"three"}


@pytest.mark.parametrize(("body", "kind", "status"), [
    (b"", "", 400),
    (part(b"") * 4 + b"--xx--\r\n", KIND, 413),
    (b"--xx--\r\n", KIND, 400),
    (part(b"") + b"--xx--\r\n", KIND, 400),
    (part(b"one"), KIND, 400),  # torn
    (b"no boundary anywhere", KIND, 400),
    (b"abc", "multipart/form-data", 400),
    (b"a" * 1001, "", 413),
    (part(b"a" * 1001) + b"--xx--\r\n", KIND, 413),
    (part(b"a") * 4 + b"--xx--\r\n", KIND, 413),
])  # fmt: skip
def test_what_is_wrong_with_a_request(tmp_path: Path, body: bytes, kind: str, status: int) -> None:
    with pytest.raises(UploadError) as caught:
        take(tmp_path, body, kind)
    assert caught.value.status == status
    assert "\n" not in str(caught.value)


def test_a_size_that_is_declared_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    with pytest.raises(UploadError, match="larger than"):
        asyncio.run(receive(never(), "", "1001", tmp_path, Limits(1000)))


def test_nifti_is_known_by_its_content(tmp_path: Path) -> None:
    for make in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        stream = make(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes()
        (tmp_path / "scan").write_bytes(stream)
        assert suffix_of(tmp_path / "scan") == ".nii"
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb") as file:
            file.write(stream)
        (tmp_path / "scan").write_bytes(packed.getvalue())
        assert suffix_of(tmp_path / "scan") == ".nii.gz"
    for content in (b"", b"PK\x03\x04", bytes(400)):
        (tmp_path / "scan").write_bytes(content)
        assert suffix_of(tmp_path / "scan") == ""
