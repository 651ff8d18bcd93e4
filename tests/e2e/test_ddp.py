"""Two processes (gloo, CPU) make one run, and judge what one process judges alike."""

import csv
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from launching import ROOT, launch, second_processes, small, the_run

from anomaly_lab.experiment import checkpoint_files, run_folder

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


WITHOUT_BATCH_NORM = """from torch.nn.modules.batchnorm import _BatchNorm
_BatchNorm.forward = lambda self, x: x
"""


WITH_BATCH_NORM = {"alocc_headct"}


@pytest.mark.parametrize(
    ("experiment", "within"),
    [("egbad_headct", (1e-6, 20)), ("fanogan_headct", (1e-3, 20)), ("alocc_headct", (1e-6, 5))],
)
def test_two_processes_train_what_one_trains(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: str, within: tuple[float, int]
) -> None:
    """EGBAD has dropout, f-AnoGAN a penalty, ALOCC batch norm.

    ALOCC is compared after five iterations. In the seventh, rounding turns a unit of it on or off: two threads of one
    process then differ from one thread by as much as two processes do, 1.6e-4.
    """
    tolerance, iterations = within
    if experiment not in WITH_BATCH_NORM:
        (tmp_path / "sitecustomize.py").write_text(WITHOUT_BATCH_NORM)  # for both processes
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    weights = []
    for devices in (1, 2):
        words = [f"trainer.devices={devices}", "trainer.strategy=ddp"] if devices > 1 else []
        done = launch(
            "-m", "anomaly_lab", "train", experiment, "budget=smoke", "data.source=twin", "data.twin.size=60",
            f"data.store.folder={store}", "data.split.train_normals=20", "data.batch_size=8", "callbacks.wandb=null",
            "trainer.precision=32-true", "trainer.accelerator=cpu", "evaluation.replicates=10",
            f"detector.gan_iterations={iterations}", f"runs={tmp_path / str(devices)}", *words,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (run,) = (tmp_path / str(devices) / experiment).iterdir()
        assert run_folder.read_json(run / "provenance.json")["world_size"] == devices
        weights.append(checkpoint_files.load(checkpoint_files.by_age(run / "checkpoints")[0])["state_dict"])
    one, both = weights
    for key, value in one.items():
        assert not value.numel() or (value.double() - both[key].double()).abs().max() <= tolerance, key


@pytest.fixture
def two(store: Path, tmp_path: Path) -> Iterator[psutil.Popen]:
    """A run of two processes that has a checkpoint and is long from its end; the first process of it."""
    settings = [*small(tmp_path, store), "callbacks.wandb=null", "detector.gan_iterations=100000"]
    words = [
        "train",
        "fanogan_headct",
        *settings,
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "trainer.accelerator=cpu",
    ]
    with (tmp_path / "said.txt").open("w") as said:
        first = psutil.Popen(
            [sys.executable, "-m", "anomaly_lab", *words],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=said, stderr=said,
        )  # fmt: skip
    began = time.monotonic()
    while not list(tmp_path.glob("runs/*/*/checkpoints/*.ckpt")):
        assert first.poll() is None, (tmp_path / "said.txt").read_text()
        assert time.monotonic() - began < 200
        time.sleep(0.2)
    yield first
    for process in [*first.children(), first] if first.is_running() else []:
        process.kill()


def complaints(folder: Path) -> list[str]:
    """Lines that say why a process ended; no traceback."""
    said = (folder / "said.txt").read_text()
    assert "Traceback" not in said, said
    return [line for line in said.splitlines() if line.startswith(("error: ", "stopped by "))]


@pytest.mark.parametrize("killed", ["first", "second"])
def test_where_one_process_is_killed_the_other_ends_at_once_and_one_alone_goes_on(
    two: psutil.Popen, tmp_path: Path, killed: str
) -> None:
    (second,) = second_processes(two)
    processes = {"first": two, "second": second}
    processes.pop(killed).kill()
    _, alive = psutil.wait_procs(processes.values(), timeout=60)
    assert not alive
    two.wait(10)
    (line,) = complaints(tmp_path)
    assert "make resume" in line
    run = the_run(tmp_path)
    done = int(max((run / "checkpoints").iterdir()).name.partition("-")[0])
    config = run / "config.yaml"  # the rest of it is made short
    config.write_text(config.read_text().replace("gan_iterations: 100000", f"gan_iterations: {done + 3}"))
    alone = launch("-m", "anomaly_lab", "resume", run, "trainer.devices=1", "trainer.strategy=auto")
    assert alone.returncode == 0, alone.stderr
    assert "resumed under another number of processes" not in (run / "report.html").read_text()  # nothing changes


@pytest.mark.parametrize("told", ["first", "second"])
def test_where_one_process_is_told_to_stop_both_do_with_a_checkpoint(
    two: psutil.Popen, tmp_path: Path, told: str
) -> None:
    (second,) = second_processes(two)
    (two if told == "first" else second).terminate()
    assert two.wait(60) == 143
    assert not second.is_running() or second.wait(60) in (None, 143)
    (line,) = complaints(tmp_path)
    iteration = int(line.split(" after iteration ")[1].split()[0])
    (newest,) = (the_run(tmp_path) / "checkpoints").glob(f"{iteration:08d}-*.ckpt")
    assert newest.stat().st_size
