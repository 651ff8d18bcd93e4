"""The sheet of pictures that are most alike, and the audit of runs that knew nothing of it."""

import io
from pathlib import Path

import numpy as np
import pytest
from data.conftest import write_headct
from PIL import Image

from anomaly_lab.data.datamodule import StoreOptions
from anomaly_lab.data.datasets.headct import HeadCT
from anomaly_lab.data.splitting.splits import Split
from anomaly_lab.experiment import record, run_folder
from anomaly_lab.pipeline.alike import FILE, note_likeness, sheet


@pytest.fixture
def data(tmp_path: Path) -> HeadCT:
    write_headct(tmp_path / "headct")
    split, store = Split(train_normals=8), StoreOptions(folder=str(tmp_path / "store"))
    data = HeadCT(root=str(tmp_path / "headct"), protocol="random", patch_size=(8, 8), split=split, store=store)
    data.setup()
    return data


def run_of(folder: Path, facts: dict) -> Path:
    (folder / "samples").mkdir(parents=True)
    run_folder.write_json(folder / "provenance.json", {"data": facts})
    return folder


def test_a_run_has_the_pictures_side_by_side(data: HeadCT, tmp_path: Path):
    facts = data.facts()
    run = run_of(tmp_path / "run", facts)
    before = (run / "provenance.json").read_bytes()
    note_likeness(run, data)
    assert (run / "provenance.json").read_bytes() == before
    pairs = facts["audit"]["likeness"]["worst"]
    pixels = np.asarray(Image.open(io.BytesIO((run / "samples" / FILE).read_bytes())))
    assert pixels.shape == (16, 8 * len(pairs))
    ids = data.store.index.columns["id"]
    for place, pair in enumerate(pairs):
        for row, id in enumerate(pair["ids"]):
            shown = pixels[8 * row : 8 * row + 8, 8 * place : 8 * place + 8]
            assert np.abs(shown.astype(int) - data.store.images[ids.index(id)][0]).max() <= 1


def test_a_run_of_older_code_is_audited_when_it_is_evaluated_again(data: HeadCT, tmp_path: Path):
    facts = data.facts()
    older = {name: value for name, value in facts["audit"].items() if name != "likeness"}
    run = run_of(tmp_path / "run", facts | {"audit": older, "remarks": ["as it was"]})
    note_likeness(run, data)
    now = record.read_provenance(run)["data"]
    assert now["audit"] == facts["audit"]
    assert now["remarks"] == ["as it was", *facts["remarks"]]


def test_no_pairs_no_sheet(data: HeadCT):
    assert sheet(data, {"likeness": None}) == b""
    assert sheet(data, {}) == b""
