"""Cards say what the record says, and leave to the authors what it does not."""

import json
from pathlib import Path

import pytest

from anomaly_lab.reports.cards import CARD, CLAIM, OPEN, renew_cards, write_cards
from anomaly_lab.types import UserError

PROVENANCE = {
    "id": "1f2e",
    "run": "night",
    "experiment": "ganomaly_headct",
    "seed": 7,
    "budget": "laptop",
    "source": "real",
    "started": "2026-01-01T00:00:00+00:00",
    "finished": "2026-01-01T01:00:00+00:00",
    "git": {"commit": "abcdef0123456789", "dirty": True},
    "versions": {"torch": "2.9", "cuda": None},
    "code": {"training": "aa11", "evaluation": "bb22"},
    "detector": {
        "class": "anomaly_lab.detectors.ganomaly.GANomaly",
        "parameters": {"generator": 1234},
        "phases": {"gan": 90},
        "caveats": ["scores of test images | chose the <b>checkpoint</b>"],
        "begun_with": {},
    },
    "data": {
        "name": "headct",
        "root": "/home/ann/scans/headct",
        "fingerprint": "f" * 64,
        "counts": {"train": {"normal": 60, "anomalous": 0}, "test": {"normal": 25, "anomalous": 40}},
        "patients": {"train": 59, "test": 65},
        "split_rule": "blocks of files",
        "skipped": [{"file": "a", "reason": "torn"}],
        "audit": {"checked": 125, "shared_patients": [], "crossing": 2},
        "input": {"kinds": {"picture": 60}, "size": [[134.0, 285.0], [156.0, 156.0]]},
    },
    "checkpoint": {"rule": "last", "iteration": 90, "file": "90.ckpt"},
}
METRICS = {
    "counts": {"test": {"normal": 25, "anomalous": 40}},
    "threshold": {"rule": "quantile", "value": 0.5, "purpose": "screening", "quantile": 0.95, "num_normals": 30},
    "detector": {"auroc": {"value": 0.71, "low": 0.6, "high": 0.8}, "recall": {"value": 0.5, "low": 0.4, "high": 0.6}},
    "baselines": {"pca_32": {"auroc": {"value": 0.75, "low": 0.65, "high": 0.83}}},
    "versus_baselines": {"best": "pca_32", "sentence": "The detector does not beat the PCA-32 baseline."},
    "bootstrap": {"replicates": 2000, "unit": "patient", "level": 0.95},
}
CONFIG = "data:\n  patch_size: [64, 64]\n  root: /home/ann/scans/headct\n  store: {on_bad: skip}\ndetector: {lr: 0.1}\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "provenance.json").write_text(json.dumps(PROVENANCE))
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    (tmp_path / "config.yaml").write_text(CONFIG)
    rows = ["a,a,test,1,0.9,0.1,1", "b,b,test,1,0.1,0.1,0", "c,c,test,0,0.9,0.1,1"]
    (tmp_path / "scores.csv").write_text("\n".join(["id,patient,split,label,score,p_value,pred_label", *rows]) + "\n")
    return tmp_path


def claim(run: Path) -> dict[int, str]:
    """The answers of the checklist by number."""
    lines = write_cards(run)[1].read_text().splitlines()
    cells = (line.replace("\\|", "¦").split(" | ") for line in lines if line.startswith("| ") and line[2].isdigit())
    return {int(cell[0].strip("| ")): cell[-1].strip(" |") for cell in cells}


def test_the_card_has_the_figures_of_the_record(run: Path) -> None:
    card = write_cards(run)[0].read_text()
    for words in (
        "GANomaly on headct", "Real files", "| training | 60 normal and 0 anomalous | 59 |", r".710 \[.60, .80\]",
        r"| PCA-32 reconstruction | .750 \[.65, .83\] |", "does not beat the PCA-32", "few anomalies are to be missed",
        "1 anomalous test images missed, 1 false alarms", "abcdef012345", "with uncommitted changes", "f" * 64, "1f2e",
        "Budget laptop", "iterations gan 90", "seed 7",
    ):  # fmt: skip
        assert words in card, words
    assert "Synthetic twin" not in card
    assert r"test images \| chose the \<b\>checkpoint\</b\>" in card
    assert "/home/ann" not in card


def test_the_checklist_has_all_items_and_invents_nothing(run: Path) -> None:
    answers = claim(run)
    assert list(answers) == list(range(1, 45))
    for number in (2, 3, 4, 5, 6, 11, 14, 15, 16, 17, 18, 21, 33, 34, 36, 41, 44):
        assert answers[number] == f"*{OPEN}*"
    for number, words in {
        1: "trained on normal images alone", 8: "1 unreadable", 9: "patch_size", 12: "left out", 13: "134–285 × 156",
        19: "blocks of files", 20: "2 identical", 22: "generator=1", 23: "torch=2.9", 24: "seed 7", 26: "without test",
        32: "AUROC .710", 38: "sensitivity .500", 39: "1 false alarms",
    }.items():  # fmt: skip
        assert words in answers[number], number
    assert "cuda" not in answers[23]


def test_a_twin_is_named_first(run: Path) -> None:
    facts = PROVENANCE | {"source": "twin"}
    (run / "provenance.json").write_text(json.dumps(facts))
    card, checklist = (path.read_text() for path in write_cards(run))
    assert "Synthetic twin" in card[:400]
    assert "for practice, not for a paper" in checklist
    assert "no patients" in claim(run)[7]


def test_a_checkpoint_chosen_by_test_labels_is_said(run: Path) -> None:
    facts = PROVENANCE | {"checkpoint": {"rule": "best test AUROC", "iteration": 3, "file": "3.ckpt", "auroc": 0.9}}
    (run / "provenance.json").write_text(json.dumps(facts))
    assert "chosen with test labels" in claim(run)[26]


def test_an_unfinished_run_has_its_cards_too(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: [torn")
    card, _ = write_cards(tmp_path)
    assert "Not evaluated." in card.read_text()
    answers = claim(tmp_path)
    assert [number for number, text in answers.items() if OPEN not in text] == [27, 40, 42]


def test_edited_cards_are_kept_beside_those_that_are_written_once_more(run: Path) -> None:
    _, checklist = write_cards(run)
    written = checklist.read_text()
    for filled in ("ward 3", "ward 4"):
        checklist.write_text(written.replace(OPEN, filled, 1))
        assert write_cards(run)[1].read_text() == written
    write_cards(run)  # nobody has edited those
    kept = {path.name: path.read_text() for path in run.glob("*.edited*.md")}
    assert kept == {
        "claim.edited.md": written.replace(OPEN, "ward 3", 1),
        "claim.edited2.md": written.replace(OPEN, "ward 4", 1),
    }


def test_cards_of_a_run_that_has_changed_are_written_again_unless_somebody_has_edited_them(run: Path) -> None:
    (run / "provenance.json").write_text(json.dumps(PROVENANCE | {"finished": None}))
    assert renew_cards(run) == []
    assert not (run / CARD).exists()
    card, checklist = write_cards(run)
    checklist.write_text(edited := checklist.read_text().replace(OPEN, "ward 3", 1))
    assert renew_cards(run) == []  # the run is as it was
    (run / "metrics.json").write_text(json.dumps(METRICS | {"threshold": METRICS["threshold"] | {"value": 0.625}}))
    assert renew_cards(run, "2026-01-01T01:00:00+00:00") == [checklist]
    assert checklist.read_text() == edited
    assert "Threshold 0.625" in card.read_text()
    assert "Unfinished" not in card.read_text()
    write_cards(run)
    assert renew_cards(run) == []
    card.write_text(card.read_text().rpartition("<!--")[0])  # by an older version, which left no mark
    assert renew_cards(run) == [card]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        write_cards(tmp_path)
    assert not {path.name for path in tmp_path.iterdir()} & {CARD, CLAIM}
