"""What is said before a training, and what Lightning is kept from saying meanwhile."""

import logging
import re
import warnings

import pytest
from toy_scores import example

from anomaly_lab.evaluation.decisions import decisions_in_use
from anomaly_lab.evaluation.protocol import evaluate_scores
from anomaly_lab.pipeline.console import (
    MAX_LISTED_PAIRS,
    announce,
    announce_data,
    announce_result,
    quiet_lightning,
    say,
)

PAIR = {"ids": ["a [1]", "b"], "splits": ["train", "test"]}
DATA = {
    "unsplit": "",
    "counts": {"train": {"normal": 8, "anomalous": 0}, "test": {"normal": 2, "anomalous": 3}},
    "skipped": ["x.png"],
    "left_out": {".gif": 2},
    "remarks": ["1 anomalous scan with an empty mask."],
    "concerned": {"1 anomalous scan with an empty mask.": ["y.png"]},
    "audit": {"identical": [PAIR], "near_identical": [], "crossing": 1, "shared_patients": ["p"], "checked": 13},
}


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_brackets_in_names_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    say("runs/[red]x[/red]")
    assert said(capsys) == ["runs/[red]x[/red]"]


def test_data_are_counted_and_alike_pictures_named(capsys: pytest.CaptureFixture[str]) -> None:
    announce_data(DATA)
    assert said(capsys) == [
        "data: train 8 normal + 0 anomalous, test 2 normal + 3 anomalous; 1 files skipped",
        "data: files of other kinds, left out: 2 .gif",
        "1 anomalous scan with an empty mask. It is y.png.",
        "leakage audit: a [1] and b are identical (train / test)",
        "leakage audit: 13 pictures, 1 pairs and 1 patients across splits",
    ]


def test_many_alike_pictures_are_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    announce_data(DATA | {"audit": DATA["audit"] | {"identical": [PAIR] * (MAX_LISTED_PAIRS + 4)}})
    lines = said(capsys)
    assert sum("are identical" in line for line in lines) == MAX_LISTED_PAIRS
    assert "leakage audit: and 4 more such pairs" in lines


def test_the_first_lines_of_a_training(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {
        "source": "twin",
        "budget": "smoke",
        "detector": {"phases": {"gan": 5, "encoder": 6}, "caveats": ["bn_mode=batch: beware"]},
        "paper": {"phases": {"gan": 50}, "estimated_seconds": 7200},
        "started_from": {"phase": "gan", "run": "2026-smoke"},
        "data": DATA,
    }
    announce(tmp_path, facts, "ask the owners")
    lines = said(capsys)
    assert lines[0].startswith("SYNTHETIC TWIN: generated pictures, not patients. For the real ones ask the owners")
    assert lines[1:5] == [
        "bn_mode=batch: beware",
        "budget smoke: gan 5, encoder 6 iterations",
        "budget=paper would run gan 50 iterations, about 2.0 hours on this machine",
        "warm start: phase gan of 2026-smoke",
    ]
    assert lines[-1] == f"run: {tmp_path}"
    announce(tmp_path, facts | {"budget": "paper"}, "ask the owners")
    assert "this is about 2.0 hours on this machine" in said(capsys)


def test_lightning_is_quiet_inside_and_as_before_outside() -> None:
    logger = logging.getLogger("pytorch_lightning")
    before, filters = logger.level, list(warnings.filters)
    with quiet_lightning():
        assert logger.level == logging.WARNING
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn("The dataloader does not have many workers", stacklevel=1)
        assert caught == []
    assert (logger.level, list(warnings.filters)) == (before, filters)


def test_nothing_is_touched_on_import() -> None:
    """Logger levels and warning filters belong to who imports us."""
    import subprocess
    import sys

    code = (
        "import logging, warnings, pytorch_lightning, torchmetrics, monai, albumentations\n"
        "state = lambda: (list(warnings.filters), logging.getLogger('pytorch_lightning').level)\n"
        "before = state()\n"
        "import anomaly_lab.pipeline.engine, anomaly_lab.studies.command, anomaly_lab.bench.command\n"
        "assert state() == before, state()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_evaluation_is_told_in_four_lines(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = evaluate_scores(example(num_val=30), "screening", replicates=20)
    metrics["decisions"] = decisions_in_use(metrics, 0.05, 100)
    announce_result(metrics)
    rank, threshold, at, use = said(capsys)
    assert re.fullmatch(r"AUROC \.\d+ \[.*\]; best baseline: .* \.\d+ \[.*\], difference −?\.\d+ \[.*\]", rank), rank
    assert ": screening (.80 of new normals below it), from 30 validation normals of 15 patients" in threshold
    assert at.startswith("at the threshold: balanced accuracy .")
    assert use.startswith("at prevalence .05 and 100 scans a day: ")
    announce_result(evaluate_scores(example(num_val=0), replicates=20))
    assert len(said(capsys)) == 1
    announce_result({"detector": {"auroc": 0.75}})
    assert said(capsys) == ["AUROC .750; no baseline was fitted"]
    announce_result({})
    assert said(capsys) == []
