"""Killed anywhere and resumed, a run ends as if nothing had happened: same weights, same scores, same record."""

from pathlib import Path

import pytest
import torch
from commands import Server
from launching import dying, small, the_run

from anomaly_lab.experiment import checkpoint_files

pytestmark = pytest.mark.slow


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], str, str]:
    """Final weights, scores.csv and metrics.jsonl."""
    newest = checkpoint_files.newest(run)
    assert newest is not None
    return (
        checkpoint_files.load(newest)["state_dict"],
        (run / "scores.csv").read_text(),
        (run / "metrics.jsonl").read_text(),
    )


def test_killed_and_resumed_equals_uninterrupted(server: Server, store: Path, tmp_path: Path) -> None:
    whole = server.run("train", "fanogan_headct", *small(tmp_path, store))
    assert whole.status == 0, whole.said
    weights, scores, record = outcome(the_run(tmp_path))

    # in phase one, at its very start, in phase two, and while a checkpoint of either is written
    for where in ("iteration:5", "iteration:1", "iteration:8", "checkpoint:2", "checkpoint:4"):
        base = tmp_path / where
        killed = server.run("train", "fanogan_headct", *small(base, store), first=dying(where))
        assert killed.status == -9, killed.said
        run = the_run(base)
        assert not (run / "scores.csv").exists()
        resumed = server.run("resume", str(run))
        assert resumed.status == 0, resumed.said
        found, found_scores, found_record = outcome(run)
        assert found_record == record, where
        assert found_scores == scores, where
        assert all(torch.equal(found[key], value) for key, value in weights.items()), where
        assert (run / "report.html").exists()


def test_a_damaged_checkpoint_is_passed_over(server: Server, store: Path, tmp_path: Path) -> None:
    assert server.run("train", "fanogan_headct", *small(tmp_path, store), first=dying("iteration:8")).status == -9
    run = the_run(tmp_path)
    newest = checkpoint_files.newest(run)
    assert newest is not None
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    resumed = server.run("resume", str(run))
    assert resumed.status == 0, resumed.said
    assert "damaged" in resumed.said
    assert "00000003-" in " ".join(resumed.said.split())
    iterations = [line.split(",")[0] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(iterations) == len(set(iterations))
