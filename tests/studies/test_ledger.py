"""The ledger: torn and foreign folders are passed over, a finished run comes before an unfinished one."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from study_runs import planned

from anomaly_lab.data.splitting.recorded import SPLIT
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import fingerprint
from anomaly_lab.studies import ledger
from anomaly_lab.studies.ledger import Ledger, read


def write(folder, config, **facts):
    folder.mkdir(parents=True)
    known = {"code": fingerprint.of_code(config), "data": {"fingerprint": "data"}, "started": "2026-01-01"}
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "provenance.json").write_text(json.dumps(known | facts))
    return folder


def test_finished_first_then_the_smallest_id(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "data_fingerprint", lambda section: "data")
    run = planned("a")
    book = Ledger(tmp_path)
    write(tmp_path / "a" / "1", run.config, id="0a")
    assert not book.match(run, None).finished
    write(tmp_path / "a" / "2", run.config, id="2c", finished="x")
    write(tmp_path / "a" / "3", run.config, id="1b", finished="x")
    assert book.match(run, None).folder == tmp_path / "a" / "3"
    write(tmp_path / "a" / "30", run.config, id="1b", finished="x")  # a copy
    assert book.match(run, None).folder == tmp_path / "a" / "3"


@pytest.mark.parametrize("clocks", [("2026-01-01", "1970-01-01"), ("1970-01-01", "2026-01-01"), ("x", "")])
def test_no_clock_says_which_of_two_equal_runs_is_taken(tmp_path, monkeypatch, clocks):
    """Nor do their times on disk, nor the names of their folders, which begin with the time."""
    monkeypatch.setattr(ledger, "data_fingerprint", lambda section: "data")
    run = planned("a")
    for id, clock in zip(("1b", "2c"), clocks, strict=True):
        folder = write(tmp_path / "a" / f"{clock}-", run.config, id=id, started=clock, finished=clock or "now")
        os.utime(folder / "provenance.json", (clock == "1970-01-01",) * 2)
    assert Ledger(tmp_path).match(run, None).id == "1b"


def test_a_run_that_goes_on_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "data_fingerprint", lambda section: "data")
    run, book = planned("a"), Ledger(tmp_path)
    folder = write(tmp_path / "a" / "1", run.config)
    assert not book.match(run, None).finished
    facts = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(facts | {"finished": "now"}))
    assert book.match(run, None).finished


def test_torn_foreign_and_old_folders_are_passed_over(tmp_path):
    torn = write(tmp_path / "a" / "torn", {"data": {}})
    (torn / "provenance.json").write_text('{"code": ')
    foreign = write(tmp_path / "a" / "foreign", {"data": {}})
    (foreign / "config.yaml").unlink()
    assert [read(torn), read(foreign), read(tmp_path / "nothing")] == [None, None, None]
    assert Ledger(tmp_path).match(planned("a"), None) is None


def test_data_are_not_asked_for_without_need(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "data_fingerprint", lambda section: 1 / 0)
    assert Ledger(tmp_path).match(planned("a"), None) is None


def lesions_at(corner, root):
    (root / "masks" / "pics").mkdir(parents=True, exist_ok=True)
    for i in range(12, 16):
        mask = np.zeros((16, 16), np.uint8)
        mask[corner : corner + 6, corner : corner + 6] = 255
        Image.fromarray(mask).save(root / "masks" / "pics" / f"{i:02}.png")


def judge(normals, root, column):
    """Write labels.csv, with the split, or a file of the split beside it."""
    names = [f"pics/{i:02}.png" for i in range(16)]
    split = ["test" if i in normals or i > 11 else "train" for i in range(16)]
    lines = [f"{name},{int(i > 11)},{split[i]}" for i, name in enumerate(names)]
    if column == "split":
        (root / "labels.csv").write_text("\n".join(["file,label,split", *lines]))
    else:
        (root / "labels.csv").write_text("\n".join(["file,label", *(line.rpartition(",")[0] for line in lines)]))
        rows = [f"{name},{part}" for name, part in zip(names, split, strict=True)]
        (root / "split.csv").write_text("\n".join(["id,split", *rows]))


@pytest.mark.parametrize("changed", ["file", "column", "masks", None])
def test_a_run_of_another_split_or_of_other_masks_is_not_found(tmp_path, changed):
    """Pixels and labels are the same, which is all that the fingerprint of the data knows."""
    root = tmp_path / "data"
    (root / "pics").mkdir(parents=True)
    for i in range(16):
        Image.fromarray(np.random.default_rng(i).integers(0, 200, (16, 16)).astype(np.uint8)).save(
            root / "pics" / f"{i:02}.png"
        )
    column = "file" if changed == "file" else "split"
    judge(range(3), root, column)
    lesions_at(0, root)
    section = {"_target_": "anomaly_lab.data.datasets.folder.Folder", "root": str(root), "source": "real"}
    section |= {"patch_size": [16, 16], "store": {"folder": str(tmp_path / "store")}}
    section |= {"split": {"file": str(root / "split.csv")}} if changed == "file" else {}
    run, book = planned("a", data=section), Ledger(tmp_path / "runs")
    data = configuration.build(OmegaConf.create(section))
    data.setup()
    facts = {"data": {"fingerprint": data.store.fingerprint}, "finished": "x"}
    folder = write(tmp_path / "runs" / "a" / "1", run.config, id="1", **facts)
    (folder / SPLIT).write_text(data.record().to_csv())
    if changed == "masks":
        lesions_at(8, root)
    elif changed:
        judge(range(5, 8), root, column)
    found = book.match(run, None)
    assert found is None if changed else found.folder == folder
    (folder / SPLIT).unlink()  # a run of older code
    assert book.match(run, None).folder == folder


def test_a_start_is_found_beside_a_run_that_was_moved(tmp_path):
    gone = tmp_path / "elsewhere" / "a" / "1"
    source = write(tmp_path / "runs" / "a" / "1", planned("a").config)
    config = planned("b").config | {"start_from": str(gone)}
    moved = write(tmp_path / "runs" / "b" / "2", config)
    kept = write(tmp_path / "c" / "3", config | {"start_from": str(source)})
    assert read(moved).config == read(kept).config == fingerprint.of_config(config, read(source).identity)
    before = read(moved).config
    source.rename(tmp_path / "lost")
    ledger._read.cache_clear()
    assert read(moved).config not in (fingerprint.of_config(config, None), before)


def test_another_run_in_the_folder_of_a_start_is_not_it(tmp_path):
    source = write(tmp_path / "runs" / "a" / "1", planned("a").config, id="bbbb")
    config = planned("b").config | {"start_from": str(source)}
    child = write(tmp_path / "runs" / "b" / "2", config, started_from={"id": "aaaa"})
    other = write(tmp_path / "runs" / "b" / "3", config, started_from={"id": "bbbb"})
    assert read(child).config == fingerprint.of_config(config, ledger.GONE)
    assert read(other).config == fingerprint.of_config(config, read(source).identity)


def test_files_that_are_not_mounted_are_missed(tmp_path, monkeypatch):
    """A twin in their place would make a page of nothing, over one of results."""
    run = planned("a")
    write(
        tmp_path / "runs" / "a" / "1", run.config, source="real", data={"fingerprint": "f", "root": str(tmp_path / "x")}
    )
    for source, expected in (("twin", str(tmp_path / "x")), ("real", None)):
        monkeypatch.setattr(ledger, "_set_up", lambda section, source=source: SimpleNamespace(source=source))
        assert Ledger(tmp_path / "runs").unmounted(run) == expected
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(ledger, "_set_up", lambda section: SimpleNamespace(source="twin"))
    assert Ledger(tmp_path / "runs").unmounted(run) is None


def test_a_run_whose_start_is_gone_is_not_one_from_the_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "data_fingerprint", lambda section: "data")
    run = planned("a")
    write(tmp_path / "a" / "1", run.config | {"start_from": str(tmp_path / "lost" / "1")}, finished="now")
    assert Ledger(tmp_path, code="any").match(run, None) is None


def test_a_run_that_was_evaluated_from_another_checkpoint_is_not_the_planned_one(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "data_fingerprint", lambda section: "data")
    run = planned("a")
    write(tmp_path / "a" / "1", run.config, finished="now", checkpoint={"rule": "asked for", "iteration": 10})
    assert Ledger(tmp_path).match(run, None) is None
    write(tmp_path / "a" / "2", run.config, finished="now", checkpoint={"rule": "last", "iteration": 20})
    assert Ledger(tmp_path).match(run, None).folder == tmp_path / "a" / "2"


@pytest.mark.parametrize("code", ["same", "any"])
def test_a_run_whose_evaluation_was_interrupted_is_evaluated_again(tmp_path, code):
    """Its scores may be of another rule than its metrics, whatever code it is of."""
    run = planned("a")
    known = fingerprint.of_code(run.config)
    for name, facts in (("1", {}), ("2", {"evaluating": "anew"}), ("3", {"evaluating": None})):
        write(tmp_path / "a" / name, run.config, finished="now", code=known, **facts)
    book = Ledger(tmp_path, code)
    assert [book.is_stale(run, read(tmp_path / "a" / name)) for name in "123"] == [False, True, False]
