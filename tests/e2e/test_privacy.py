"""No identifying value of a DICOM header is found again in anything a run leaves or says."""

import csv
from pathlib import Path

import numpy as np
import pytest
from commands import Server
from dicom_files import MARKER, UID, write_dicom_series

pytestmark = pytest.mark.slow
SECRETS = [MARKER.encode(), UID.encode(), b"19010203"]


def _collection(root: Path) -> None:
    """Six normal series and four with a bright block, each of its own patient."""
    for number in range(10):
        rng = np.random.default_rng(number)
        stored = rng.integers(1044, 1084, (4, 40, 40)).astype(np.int16)
        kind = "normal" if number < 6 else "anomalous"
        if kind == "anomalous":
            stored[:, 10:20, 10:20] += 40
        identity = {"PatientID": f"{MARKER} {number}", "SeriesInstanceUID": f"{UID}.2.{number}"}
        write_dicom_series(root / kind / f"s{number}", stored, **identity)


def test_nothing_of_a_header_is_left_behind(server: Server, tmp_path: Path) -> None:
    _collection(tmp_path / "data")
    overrides = [
        "budget=smoke",
        f"runs={tmp_path / 'runs'}",
        f"data.root={tmp_path / 'data'}",
        f"data.store.folder={tmp_path / 'store'}",
        "data.volume.spacing=null",
        "data.cut={label: case, overlap: 0.0}",
        "data.patch_size=[32,32]",
        "data.batch_size=4",
        "detector.width=4",
        "evaluation.replicates=50",
        "callbacks.wandb.mode=offline",
    ]
    for verb in ("data", "train"):
        done = server.run(verb, "fanogan_dicom", *overrides)
        assert done.status == 0, done.said
        assert not any(secret in done.said.encode() for secret in SECRETS)
    (run,) = (folder for folder in (tmp_path / "runs" / "fanogan_dicom").iterdir() if folder.name != "data")
    done = server.run("predict", run, tmp_path / "data" / "anomalous")
    assert done.status == 0, done.said
    left = [path for name in ("runs", "store") for path in (tmp_path / name).rglob("*") if path.is_file()]
    assert any("wandb" in path.as_posix() for path in left)
    assert (tmp_path / "runs" / "fanogan_dicom" / "data" / "datasheet.html") in left
    for path in left:
        if path.name.endswith(".map.dcm"):
            continue  # a Parametric Map is for the archive and bears its patient's header
        held = path.read_bytes()
        if path.parts[-3] == "predictions" and path.name == "scores.csv":  # so that the archive's scans can be found
            for row in csv.DictReader(held.decode().splitlines()):
                assert row.pop("series_uid").startswith(UID)
                row.pop("instance_uid")
                assert not any(secret in str(row).encode() for secret in SECRETS)
            continue
        assert not any(secret in held for secret in SECRETS), path
