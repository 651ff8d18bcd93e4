"""Thousands of damaged scans: a reader answers with a scan or with one line, soon and without much memory.

Each kind of file is mutated in a process of its own, so that a decoder that crashes or hangs is a failure with a name.
"""

import faulthandler
import gzip
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import UID, chest, dicom_slice, enhanced, save
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from anomaly_lab.data.readers import dicom, dicom_decoder, nifti
from anomaly_lab.data.readers.scan import Tolerance
from anomaly_lab.types import UserError

MUTATIONS = 500  # of each kind
LONGEST = 20  # seconds that one file may take
MOST_MEMORY = 2 * 2**30
STORED = np.random.default_rng(0).integers(0, 3000, (4, 32, 40)).astype(np.uint16)
EXTREMES = [0, 1, 2, 127, 128, 255, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]


def _volume(path: Path, kind: type = nib.Nifti1Image) -> None:
    image = kind(STORED.astype(np.int16), np.diag([1.0, 2, 3, 1]))
    image.header.set_slope_inter(0.5, -3)
    image.set_qform(np.diag([1.0, 2, 3, 1]), 1)
    nib.save(image, path)


def _slice(path: Path, syntax: str = "", **elements: object) -> None:
    dataset = dicom_slice(STORED[0], SpacingBetweenSlices=2, WindowCenter=40, WindowWidth=80, **elements)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{UID}.9"
    if syntax in (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    save(dataset, path)


def _jpeg(path: Path) -> None:
    import gdcm

    _slice(path)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def _with_tables(path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 8], bytes(range(256))
    save(chest(STORED[0] >> 4, VOILUTSequence=Sequence([table]), BitsStored=12, HighBit=15), path)


SEEDS: dict[str, Callable[[Path], None]] = {
    "nifti.nii": _volume,
    "packed.nii.gz": _volume,
    "nifti2.nii": lambda path: _volume(path, nib.Nifti2Image),
    "packed2.nii.gz": lambda path: _volume(path, nib.Nifti2Image),
    "slice.dcm": _slice,
    "implicit.dcm": lambda path: _slice(path, ImplicitVRLittleEndian),
    "deflated.dcm": lambda path: _slice(path, DeflatedExplicitVRLittleEndian),
    "rle.dcm": lambda path: _slice(path, RLELossless),
    "j2k.dcm": lambda path: _slice(path, JPEG2000Lossless),
    "jls.dcm": lambda path: _slice(path, JPEGLSLossless),
    "jpeg.dcm": _jpeg,
    "frames.dcm": lambda path: save(enhanced(STORED, [0.0, 2.0, 4.0, 6.0], [1.0, 1.0, 2.0, 1.0]), path),
    "tables.dcm": _with_tables,
}


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with some of it changed, most often near its beginning, where headers are."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(changed) if rng.random() < 0.3 else min(len(changed), 1500)))
        what = rng.integers(0, 6)
        if what == 0:
            changed[at] = int(rng.integers(0, 256))
        elif what == 1:
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif what == 2:
            size = int(rng.choice([1, 2, 4, 8]))
            number = EXTREMES[int(rng.integers(0, len(EXTREMES)))] % (1 << 8 * size)
            changed[at : at + size] = number.to_bytes(size, "little" if rng.random() < 0.8 else "big")
        elif what == 3:
            del changed[at : at + int(rng.integers(1, 40))]
        elif what == 4:
            changed[at:at] = rng.bytes(int(rng.integers(1, 40)))
        elif rng.random() < 0.2:
            del changed[at:]
        if not changed:
            return b"\0"
    return bytes(changed)


def attempts(path: Path) -> list[Callable[[], object]]:
    """What is done with a file of this name."""
    if nifti.is_nifti(path):
        return [
            lambda: nifti.read_nifti(path),
            lambda: nifti.read_nifti(path, Tolerance(nan="background")),
            lambda: nifti.read_nifti_mask(path, None),
        ]
    return [
        lambda: dicom.list_tree(path.parent),
        lambda: dicom.is_deep(path),
        lambda: dicom.is_picture(path),
        lambda: dicom.read_series([path]),
        lambda: dicom.read_picture(path, 1),
        lambda: dicom.read_picture(path, 3, None),
    ]


def fuzz(name: str, count: int, folder: Path) -> dict[str, object]:
    """Try `count` mutations of a kind of file and tell what came of them."""
    seed, path = folder / f"seed-{name}", folder / "one" / name
    path.parent.mkdir()
    SEEDS[name](seed)
    content = seed.read_bytes()
    slowest, refused, wrong = 0.0, 0, []
    for number in range(count):
        rng = np.random.default_rng([number, len(name)])
        inside = name.endswith(".gz") and rng.random() < 0.7  # past the checksum of gzip
        path.write_bytes(gzip.compress(mutated(gzip.decompress(content), rng), 1) if inside else mutated(content, rng))
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        start = time.monotonic()
        for attempt in attempts(path):
            try:
                attempt()
            except UserError as error:
                refused += 1
                if len(str(error).splitlines()) != 1 or not str(error).startswith(str(path.parent)):
                    wrong.append(f"{number}: {error}")
            except BaseException as error:  # a panic in Rust is no Exception
                wrong.append(f"{number}: {error!r}")
        slowest = max(slowest, time.monotonic() - start)
        faulthandler.cancel_dump_traceback_later()
    pids = ["self", *(str(child.pid) for child in dicom_decoder._children.values())]
    peak = max(_peak(Path(f"/proc/{pid}/status")) for pid in pids)
    return {"slowest": round(slowest, 2), "refused": refused, "peak": peak, "wrong": wrong[:5]}


def _peak(status: Path) -> int:
    """Most memory that a process has had, in bytes; 0 where the system does not say it."""
    lines = re.findall(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else []
    return 1024 * int(lines[0]) if lines else 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_damaged_scans_are_read_or_refused_in_one_line(tmp_path, name):
    count = str(os.environ.get("FUZZ", MUTATIONS))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, name, count, tmp_path], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-3000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    print(name, found)
    assert found["wrong"] == []
    assert found["slowest"] < LONGEST
    assert found["peak"] < MOST_MEMORY
    assert found["refused"]


if __name__ == "__main__":
    print(json.dumps(fuzz(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
