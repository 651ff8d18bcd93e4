"""One fake pool, however a run comes by it: in one go, killed and resumed, by two processes, from another run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Server
from launching import dying, launch

from anomaly_lab.detectors.families.fake_pool import Pool
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment import checkpoint_files, run_folder

pytestmark = pytest.mark.slow
FILES = ("images.npy", "iterations.npy")


def settings(base: Path, store: Path, *more: str) -> list[str]:
    """An experiment below `base` and its overrides: 7 (+ 4) iterations, 6 images of every second into the pool."""
    return [
        "budget=smoke",
        f"runs={base / 'runs'}",
        "data.source=twin",
        f"data.store.folder={store}",
        "data.batch_size=4",
        "data.epoch_length=3",
        "detector.width=4",
        "detector.n_critic=2",
        "detector.gan_iterations=7",
        "callbacks.fakepool.every=2",
        "callbacks.fakepool.count=6",
        "callbacks.wandb.mode=disabled",
        "evaluation.replicates=50",
        *more,
    ]


def run_of(base: Path, experiment: str) -> Path:
    (run,) = (base / "runs" / experiment).iterdir()
    return run


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], str]:
    newest = checkpoint_files.newest(run)
    assert newest is not None
    return checkpoint_files.load(newest)["state_dict"], (run / "scores.csv").read_text()


def alike(one: Path, other: Path) -> None:
    """Same pool, weights and scores, to the last byte."""
    for name in FILES:
        assert (one / "fakepool" / name).read_bytes() == (other / "fakepool" / name).read_bytes()
    (weights, scores), (others, other_scores) = outcome(one), outcome(other)
    assert all(torch.equal(value, others[key]) for key, value in weights.items())
    assert scores == other_scores


def test_killed_resumed_or_started_from_another_it_is_the_same_run(server: Server, store: Path, tmp_path: Path) -> None:
    second = "detector.critic_iterations=4"
    whole = server.run("train", "adgan_abmnist", *settings(tmp_path, store, second))
    assert whole.status == 0, whole.said
    run = run_of(tmp_path, "adgan_abmnist")
    assert Pool(run / "fakepool").iterations.tolist() == np.repeat([1, 3, 5, 7], 6).tolist()
    assert "Fake pool over time" in (run / "report.html").read_text()

    for where in ("iteration:5", "iteration:8"):  # after an image of no checkpoint, and in the second phase
        base = tmp_path / where
        killed = server.run("train", "adgan_abmnist", *settings(base, store, second), first=dying(where))
        assert killed.status == -9, killed.said
        resumed = server.run("resume", run_of(base, "adgan_abmnist"))
        assert resumed.status == 0, resumed.said
        alike(run, run_of(base, "adgan_abmnist"))

    first = server.run("train", "wgan_abmnist", *settings(tmp_path, store))
    assert first.status == 0, first.said
    source, base = run_of(tmp_path, "wgan_abmnist"), tmp_path / "from"
    more = settings(base, store, second, f"start_from={source}")
    killed = server.run("train", "adgan_abmnist", *more, first=dying("iteration:10"))
    assert killed.status == -9, killed.said
    resumed = server.run("resume", run_of(base, "adgan_abmnist"))
    assert resumed.status == 0, resumed.said
    alike(run, run_of(base, "adgan_abmnist"))
    facts = run_folder.read_json(run_of(base, "adgan_abmnist") / "provenance.json")["started_from"]
    assert (facts["run"], facts["iterations"]) == (source.name, 7)

    base = tmp_path / "judged anew"  # nothing is left to train
    switched = settings(base, store, f"start_from={source}", "evaluation.threshold=test_max_f1")
    anew = server.run("train", "wgan_abmnist", *switched)
    assert anew.status == 0, anew.said
    again = run_of(base, "wgan_abmnist")
    (weights, _), (others, _) = outcome(source), outcome(again)
    assert all(torch.equal(value, others[key]) for key, value in weights.items())
    assert np.array_equal(*(Scores.read(run / "scores.csv").score for run in (source, again)))
    assert run_folder.read_json(again / "metrics.json")["threshold"]["uses_test"]
    done = server.run("evaluate", again)
    assert done.status == 0, done.said


def test_two_processes_fill_one_pool(server: Server, store: Path, tmp_path: Path) -> None:
    """It is that of one process, but for sums in another order."""
    two = settings(tmp_path, store, "trainer.devices=2", "detector.critic_iterations=4", "callbacks.fakepool.count=5")
    done = launch("-m", "anomaly_lab", "train", "adgan_abmnist", *two)
    assert done.returncode == 0, done.stderr
    run = run_of(tmp_path, "adgan_abmnist")
    assert not (Path("fakepool")).exists()
    pool = Pool(run / "fakepool")
    assert pool.iterations.tolist() == np.repeat([1, 3, 5, 7], 5).tolist()  # no gap
    assert len(np.unique(pool.images.reshape(len(pool), -1), axis=0)) == len(pool)  # no double
    one = settings(tmp_path / "one", store, "detector.critic_iterations=4", "callbacks.fakepool.count=5")
    alone = server.run("train", "adgan_abmnist", *one)
    assert alone.status == 0, alone.said
    other = Pool(run_of(tmp_path / "one", "adgan_abmnist") / "fakepool")
    assert np.abs(pool.images.astype(int) - other.images).max() <= 1  # of 255
