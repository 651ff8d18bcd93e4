"""Two processes (gloo, CPU) make one run, and judge what one process judges alike."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from launching import launch, small, the_run

from anomaly_lab.experiment import run_folder

pytestmark = pytest.mark.slow


def test_two_processes_make_one_run(store: Path, tmp_path: Path) -> None:
    settings = [*small(tmp_path, store), "callbacks.wandb.mode=offline", "data.store.scoring_batch_size=7"]
    settings += ["detector.augment_d=ada"]
    done = launch(
        "-m", "anomaly_lab", "train", "fanogan_headct", *settings, "trainer.devices=2", "trainer.strategy=ddp"
    )
    assert done.returncode == 0, done.stderr
    run = the_run(tmp_path)
    assert "train/augment_p" in (run / "metrics.jsonl").read_text()
    assert len(list((run / "wandb").glob("offline-run-*"))) == 1

    scores = (run / "scores.csv").read_text()
    ids = Counter(row["id"] for row in csv.DictReader(scores.splitlines()))
    facts = run_folder.read_json(run / "provenance.json")["data"]["counts"]
    assert len(ids) == sum(sum(facts[split].values()) for split in ("val", "test"))
    assert set(ids.values()) == {1}

    alone = launch("-m", "anomaly_lab", "evaluate", run)
    assert alone.returncode == 0, alone.stderr
    assert (run / "scores.csv").read_text() == scores  # to the last digit
