"""Several processes: no family and no callback hangs, the death of one is everybody's, launchers are understood."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from launching import ROOT, launch, second_processes, small, the_run

from anomaly_lab.experiment import run_folder
from anomaly_lab.pipeline import run_commands

pytestmark = pytest.mark.slow
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")
CHOICE = "callbacks.best_test_epoch._target_=anomaly_lab.callbacks.best_test_epoch.BestTestEpoch"
FAMILIES = (  # one of each, and between them every callback
    f"fanogan_headct,{CHOICE}",
    "adgan_headct,callbacks.fakepool.every=2,callbacks.fakepool.count=3",
    "pool_svm_headct",
    "ganomaly_headct",
    "alad_headct",
    "autoencoder_headct",
    "deep_svdd_headct",
    "ocsvm_headct",
    "multi_kd_headct",
    "hq_anogan_headct",
    "gbad_headct",
)


def tiny(base: Path, store: Path) -> list[str]:
    """Overrides for short runs of any detector; all 40 judged pictures are one batch, so most processes have none."""
    return [
        "budget=smoke",
        f"runs={base / 'runs'}",
        "data.source=twin",
        f"data.store.folder={store}",
        "data.twin.size=60",
        "data.split.train_normals=20",
        "data.patch_size=[32,32]",
        "data.batch_size=8",
        "data.epoch_length=5",
        "callbacks.wandb.mode=offline",
        "evaluation.replicates=20",
    ]


@pytest.mark.parametrize(("number", "families"), [(2, FAMILIES), (4, FAMILIES[:2])])
def test_every_family_and_callback_with_fewer_batches_than_processes(
    store: Path, tmp_path: Path, number: int, families: tuple[str, ...]
) -> None:
    done = launch(
        *TORCHRUN, f"--nproc-per-node={number}", "tests/e2e/train_many.py", *tiny(tmp_path, store), "--", *families
    )
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "runs").glob("*/*"))
    assert len(runs) == len(families)
    for run in runs:
        assert run_folder.read_json(run / "provenance.json")["world_size"] == number
        tables = {path: path.read_bytes() for path in (run / "scores.csv", run / "classes.csv") if path.exists()}
        run_commands.evaluate(str(run))
        assert {path: path.read_bytes() for path in tables} == tables  # to the last digit


@pytest.mark.parametrize(
    ("phase", "victim"),
    [("store", 0), ("store", 1), ("validation", 1), ("scoring", 1), ("evaluation", 0), ("report", 1)],
)
def test_where_one_process_dies_the_other_ends_with_one_line(
    store: Path, tmp_path: Path, phase: str, victim: int
) -> None:
    """In the phases of a training: `test_ddp`."""
    said, _ = killed(store, tmp_path, phase, victim)
    (line,) = [each for each in said.splitlines() if each.startswith("error: ")]
    assert "another process of this run has ended" in line
    assert "Traceback" not in said


def killed(store: Path, base: Path, phase: str, victim: int) -> tuple[str, float]:
    """Let one of two processes die in a phase; return what was said, and the seconds until both had ended."""
    words = [*small(base, store), "callbacks.wandb=null", "trainer.devices=2"]
    with (base / "said").open("w") as said:
        first = psutil.Popen(
            [sys.executable, "tests/e2e/die_in.py", phase, str(victim), str(base / "note"), "train", "fanogan_headct",
             *words],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=said, stderr=said,
        )  # fmt: skip
        processes, deadline = [first], time.monotonic() + 200
        while all(map(runs, processes)):
            assert time.monotonic() < deadline, (base / "said").read_text()
            if len(processes) == 1:
                processes += second_processes(first)
            time.sleep(0.1)
        began = time.monotonic()
        _, alive = psutil.wait_procs(processes, timeout=60)
        for process in alive:
            process.kill()
        assert not alive, (base / "said").read_text()
    return (base / "said").read_text(), time.monotonic() - began


def runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize(
    ("start", "words", "fault"),
    [
        ((), ("trainer.devices=2", "data.source=real", "data.root={base}/nowhere"), "no such folder"),
        ((), ("trainer.devices=2", "data.batch_size=7"), "not divisible by 2 processes"),
        ((*TORCHRUN, "--nproc-per-node=2"), ("detector.widht=3",), "Did you mean: 'width'"),
        ((*TORCHRUN, "--nproc-per-node=2"), ("runs={base}/file/runs",), "cannot create the run folder"),
    ],
)
def test_an_error_is_everybodys_and_is_said_once(
    store: Path, tmp_path: Path, start: tuple[str, ...], words: tuple[str, ...], fault: str
) -> None:
    (tmp_path / "file").touch()
    words = tuple(word.format(base=tmp_path) for word in words)
    done = launch(*start, "-m", "anomaly_lab", "train", "fanogan_headct", *small(tmp_path, store), *words)
    assert done.returncode
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert fault in line
    assert not (tmp_path / "runs").exists()


def test_stores_may_be_those_of_each_machine_and_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    """Two processes with a store each, as on two machines with disks of their own."""
    program = tmp_path / "own_store.py"
    program.write_text(
        "import os, sys\n"
        "from anomaly_lab.__main__ import app\n"
        f"app([*sys.argv[1:], f\"data.store.folder={tmp_path}/store{{os.environ['LOCAL_RANK']}}\"])\n"
    )
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, *TORCHRUN, "--nproc-per-node=2", program, "train", "fanogan_headct",
         *small(tmp_path, tmp_path / "none"), "callbacks.wandb=null"],
        cwd=work, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert run_folder.read_json(the_run(tmp_path) / "provenance.json")["world_size"] == 2
    for store in ("store0", "store1"):
        assert list((tmp_path / store).glob("headct-*/*.npy"))
    assert not (tmp_path / "none").exists()
    assert not list(work.iterdir())
