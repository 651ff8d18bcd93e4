"""A whole run and what can be done with it afterwards: evaluate, predict, report; and what is refused."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from commands import Server
from launching import small, the_run
from PIL import Image

from anomaly_lab.experiment import checkpoint_files, run_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(server: Server, tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    """One finished run of the module."""
    base = tmp_path_factory.mktemp("trained")
    done = server.run("train", "fanogan_headct", *small(base, store), "callbacks.wandb.mode=offline")
    assert done.status == 0, done.said
    assert "SYNTHETIC TWIN" in done.said
    return the_run(base)


def test_the_run_folder_is_whole(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "provenance.json", "metrics.jsonl", "scores.csv", "metrics.json", "report.html"} <= names
    facts = run_folder.read_json(trained / "provenance.json")
    assert (facts["budget"], facts["source"], facts["checkpoint"]["rule"]) == ("smoke", "twin", "last")
    assert facts["data"]["counts"]["train"] == {"normal": 14, "anomalous": 0}
    assert "twin" in trained.name
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [2, 3, 4, 6, 8, 9, 10, 12]
    drawn = {path.name for path in (trained / "samples").glob("*.png")}
    assert drawn == {"00000003.png", "00000006.png", "interpolation.png", "most_alike.png"}
    assert (trained / "wandb").is_dir()
    assert not list(trained.rglob("*.partial"))


def test_evaluate_says_the_same_again(server: Server, trained: Path) -> None:
    scores, metrics = (trained / "scores.csv").read_bytes(), (trained / "metrics.json").read_bytes()
    for name in ("scores.csv", "metrics.json", "report.html"):
        (trained / name).unlink()
    done = server.run("evaluate", trained)
    assert done.status == 0, done.said
    assert (trained / "scores.csv").read_bytes() == scores
    assert (trained / "metrics.json").read_bytes() == metrics
    assert (trained / "report.html").exists()


def test_nothing_is_decided_by_the_clock(server: Server, trained: Path, tmp_path: Path) -> None:
    """The older checkpoint is the younger file, and the record was begun in years to come."""
    run = Path(shutil.copytree(trained, tmp_path / trained.name))
    facts = run_folder.read_json(run / "provenance.json")
    run_folder.write_json(run / "provenance.json", facts | {"started": "2090-01-01T00:00:00+00:00"})
    for age, path in enumerate(sorted(path for path in run.rglob("*") if path.is_file())):
        os.utime(path, (3e9 - age * 1e6, 3e9 - age * 1e6))
    done = server.run("evaluate", run)
    assert done.status == 0, done.said
    for name in ("scores.csv", "metrics.json"):
        assert (run / name).read_bytes() == (trained / name).read_bytes()
    (run / "scores.csv").unlink()
    (run / "metrics.json").unlink()
    facts.pop("finished")
    run_folder.write_json(run / "provenance.json", facts)
    done = server.run("resume", run)
    assert done.status == 0, done.said
    assert (run / "scores.csv").read_bytes() == (trained / "scores.csv").read_bytes()


def test_predict_scores_a_judged_file_as_before(server: Server, trained: Path, tmp_path: Path) -> None:
    """The same preprocessing and the same weights: a test picture given as a new file has its old score."""
    facts = run_folder.read_json(trained / "provenance.json")
    judged = {row["id"]: float(row["score"]) for row in csv.DictReader((trained / "scores.csv").open())}
    new = tmp_path / "new files"
    (new / "ward").mkdir(parents=True)
    chosen = sorted(judged)[:3]
    for id in chosen:
        (picture,) = Path(facts["data"]["root"]).rglob(f"head_ct/{id}.png")
        shutil.copy(picture, new / "ward" / f"{id}.png")
    done = server.run("predict", trained, new)
    assert done.status == 0, done.said
    (out,) = (trained / "predictions").glob("new files-*")
    rows = {row["id"]: row for row in csv.DictReader((out / "scores.csv").open())}
    assert sorted(rows) == [f"ward/{id}.png" for id in chosen]
    for id in chosen:
        assert float(rows[f"ward/{id}.png"]["score"]) == pytest.approx(judged[id], rel=1e-5)
        assert 0 < float(rows[f"ward/{id}.png"]["p_value"]) <= 1
        with Image.open(new / "ward" / f"{id}.png") as picture:
            size = picture.size
        assert Image.open(out / "maps" / "ward" / f"{id}.png.map.png").size == size
    page = (out / "index.html").read_text()
    for caveat in ("Synthetic twin", "Reduced budget: smoke"):
        assert caveat in page


def test_predict_scores_what_it_can_and_tells_the_rest_by_its_status(
    server: Server, trained: Path, tmp_path: Path
) -> None:
    new, out = tmp_path / "new", tmp_path / "out"
    new.mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3).save(new / "a.png")
    (new / "b.png").write_bytes((new / "a.png").read_bytes()[:40])
    done = server.run("predict", trained, new, "--out", out, "--anyway")
    assert done.status == 3, done.said
    assert "not scored: b.png" in done.said
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for words in ([], ["--overwrite", "seed=1"]):
        done = server.run("predict", trained, new, "--out", out, "--anyway", *words)
        assert done.status == 2
        assert done.said.count("\n") == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    for place in (tmp_path, new, trained, trained.parent):
        done = server.run("predict", trained, new, "--out", place, "--overwrite")
        assert (done.status, "the results would" in done.said) == (2, True)
    (new / "a.png").unlink()
    done = server.run("predict", trained, new, "--out", tmp_path / "none")
    assert done.status == 2
    assert "nothing could be scored of 1 file" in done.said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_prediction_that_is_stopped_goes_on_to_the_same_bytes(
    server: Server, trained: Path, tmp_path: Path, number: int, status: int
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for name in range(200):
        pixels = np.random.default_rng(name).integers(0, 255, (64, 64), np.uint8)
        Image.fromarray(pixels).save(new / f"{name:04d}.png")
    words = [trained, new, "data.store.scoring_batch_size=1", "--anyway", "--out"]
    assert server.run("predict", *words, tmp_path / "straight").status == 0
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "anomaly_lab", "predict", *map(str, [*words, out])]
    # A job in the background of a shell ignores SIGINT, and so would what it starts.
    default = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=default) as process:
        table = out / "scores.csv"
        while process.poll() is None and (not table.exists() or table.read_text().count("\n") < 8):
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate()
    assert process.returncode == status
    assert (out / "scores.csv").read_text().count("\n") < 200
    assert ("--out" in said) == (number != signal.SIGKILL)
    done = server.run("predict", *words, out)
    assert done.status == 0, done.said
    assert "going on in" in done.said
    straight, stopped = (
        {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
        for place in (tmp_path / "straight", out)
    )
    assert stopped == straight


def test_a_finished_run_is_not_resumed_twice(server: Server, trained: Path) -> None:
    done = server.run("resume", trained)
    assert done.status == 2
    assert "finished" in done.said


def test_a_run_without_an_intact_checkpoint_is_not_judged(server: Server, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(b"")
    done = server.run("evaluate", run)
    assert done.status == 2
    assert "is damaged" in done.said
    assert "CHECKPOINT=" not in done.said  # there is no other one to take
    assert checkpoint_files.newest(run) is None


@pytest.mark.parametrize("verb", ["resume", "evaluate", "report"])
def test_what_is_not_a_run_is_refused(server: Server, verb: str, tmp_path: Path) -> None:
    done = server.run(verb, tmp_path)
    assert done.status == 2
    assert "not a run folder" in done.said
    assert len(done.said.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
