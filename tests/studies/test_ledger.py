"""The ledger: torn and foreign folders are passed over, a finished run comes before an unfinished one."""

import json
import os

import pytest
from study_runs import planned

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


def test_a_start_is_found_beside_a_run_that_was_moved(tmp_path):
    gone = tmp_path / "elsewhere" / "a" / "1"
    source = write(tmp_path / "runs" / "a" / "1", planned("a").config)
    config = planned("b").config | {"start_from": str(gone)}
    moved = write(tmp_path / "runs" / "b" / "2", config)
    kept = write(tmp_path / "c" / "3", config | {"start_from": str(source)})
    assert read(moved).config == read(kept).config == fingerprint.of_config(config, read(source).identity)
    source.rename(tmp_path / "lost")
    ledger._read.cache_clear()
    assert read(moved).config == fingerprint.of_config(config, None)
