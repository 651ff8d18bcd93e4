"""On a real SLURM of two nodes: one run over both of them; a job that is pre-empted goes on by itself."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_cluster
import torch
from launching import ROOT, small

from anomaly_lab.experiment import checkpoint_files, run_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(slurm_cluster.missing() is not None, reason=str(slurm_cluster.missing())),
]
LIMIT = 300  # seconds a test waits for anything


class Cluster:
    """The cluster as its user sees it."""

    def __init__(self, environment: dict[str, str]) -> None:
        python = f"{sys.executable} -m anomaly_lab"
        self.environment = {**environment, "OMP_NUM_THREADS": "1", "ANOMALY_LAB": python}

    def ask(self, *words: str | Path) -> str:
        done = subprocess.run(
            list(map(str, words)), cwd=ROOT, env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def submit(self, script: str, log: Path, *words: str | Path, options: tuple[str, ...] = ()) -> str:
        """Submit a launch file of the project; options are those of sbatch."""
        here = ["--cpus-per-task=1", "--time=10", f"--output={log}", "--parsable", *options]
        return self.ask("sbatch", *here, f"docker/{script}", *words)

    def state(self, job: str) -> str:
        words = self.ask("scontrol", "show", "job", "--oneliner", job).split()
        return next(word.partition("=")[2] for word in words if word.startswith("JobState="))

    def until(self, condition: Callable[[], bool], log: Path) -> None:
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield Cluster(environment)


def tiny(base: Path, store: Path) -> list[str]:
    return [word for word in small(base, store) if not word.startswith("callbacks.wandb")] + ["callbacks.wandb=null"]


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], bytes, bytes]:
    newest = checkpoint_files.newest(run)
    assert newest is not None
    weights = checkpoint_files.load(newest)["state_dict"]
    return weights, (run / "scores.csv").read_bytes(), (run / "metrics.jsonl").read_bytes()


def test_one_run_on_two_nodes(slurm: Cluster, store: Path, tmp_path: Path) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    words = ["budget=laptop" if word == "budget=smoke" else word for word in tiny(tmp_path, store)]
    job = slurm.submit("two_nodes.sbatch", log, "fanogan_headct", run, *words)  # laptop: one node estimates the paper's
    slurm.until(lambda: slurm.state(job) not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), log)
    assert slurm.state(job) == "COMPLETED", log.read_text()
    facts = run_folder.read_json(run / "provenance.json")
    assert facts["finished"]
    assert facts["world_size"] == 2
    assert (run / "report.html").exists()
    assert not list(ROOT.glob("metrics.jsonl"))


def test_an_error_on_two_nodes_is_said_once(slurm: Cluster, store: Path, tmp_path: Path) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    real = ["data.source=real", f"data.root={tmp_path / 'nowhere'}"]
    job = slurm.submit("two_nodes.sbatch", log, "fanogan_headct", run, *tiny(tmp_path, store), *real)
    slurm.until(lambda: slurm.state(job) not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), log)
    assert slurm.state(job) == "FAILED"
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert "no such folder" in line
    assert not run.exists()


def test_a_preempted_run_goes_on_by_itself_and_ends_in_the_same_bytes(
    slurm: Cluster, store: Path, tmp_path: Path
) -> None:
    words = [
        *tiny(tmp_path, store),
        "detector.gan_iterations=200",
        "data.epoch_length=20",
        "callbacks.record.every=50",
    ]
    log, run, whole = tmp_path / "log", tmp_path / "run", tmp_path / "whole"
    job = slurm.submit("one_node.sbatch", log, "fanogan_headct", run, *words, options=("--exclusive",))
    slurm.until(lambda: any((run / "checkpoints").glob("*.ckpt")), log)
    urgent = ["sbatch", "--parsable", "--partition=urgent", f"--output={tmp_path / 'urgent'}", "--exclusive"]
    other = slurm.ask(*urgent, f"--nodes={slurm_cluster.NODES}", "--wrap", "sleep 1")
    slurm.until(lambda: slurm.state(other) == "COMPLETED", log)
    assert slurm.state(job) == "PENDING", log.read_text()
    stopped_at = checkpoint_files.by_age(run / "checkpoints")[0].name[:8]
    assert 0 < int(stopped_at) < 206
    slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
    straight = slurm.submit("one_node.sbatch", tmp_path / "other", "fanogan_headct", whole, *words)
    for each in (job, straight):
        slurm.until(lambda each=each: slurm.state(each) not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), log)
    said = log.read_text()
    assert [slurm.state(each) for each in (job, straight)] == ["COMPLETED"] * 2, said
    assert f"stopped by SIGTERM after iteration {int(stopped_at)} of" in said
    assert f"job {job} goes back into the queue" in said
    assert f"resuming {run} from {stopped_at}-" in said
    (found, *files), (weights, *expected) = outcome(run), outcome(whole)
    assert files == expected
    assert all(torch.equal(found[key], value) for key, value in weights.items())
    assert not list(tmp_path.rglob("hpc_ckpt*"))


def test_a_cancelled_run_stays_cancelled(slurm: Cluster, store: Path, tmp_path: Path) -> None:
    words = [*tiny(tmp_path, store), "detector.gan_iterations=200"]
    log, run = tmp_path / "log", tmp_path / "run"
    job = slurm.submit("one_node.sbatch", log, "fanogan_headct", run, *words)
    slurm.until(lambda: any((run / "checkpoints").glob("*.ckpt")), log)
    slurm.ask("scancel", job)
    slurm.until(lambda: slurm.state(job) != "COMPLETING", log)
    assert slurm.state(job) == "CANCELLED"
    assert "stopped by SIGTERM" in log.read_text()


STUDY = """
title: Eight runs
budget: smoke
seeds: [0, 1]
datasets: {headct: {title: Head CT}}
rows:
  base: {title: Base, experiment: "fanogan_{dataset}", overrides: {detector.gan_iterations: 100}}
  child: {title: Child, experiment: "fanogan_{dataset}", start_from: base,
          overrides: {detector.gan_iterations: 100, detector.encoder_iterations: 3}}
  long: {title: Long, experiment: "fanogan_{dataset}", overrides: {detector.gan_iterations: 200}}
  short: {title: Short, experiment: "fanogan_{dataset}", overrides: {detector.gan_iterations: 6}}
"""


def test_a_study_that_is_left_and_loses_jobs_ends_whole(slurm: Cluster, store: Path, tmp_path: Path) -> None:
    """Eight runs, two of them warm starts; two jobs are killed, one comes to its time limit."""
    (tmp_path / "experiments" / "studies").mkdir(parents=True)
    (tmp_path / "experiments" / "studies" / "eight.yaml").write_text(STUDY)
    settings = [word for word in tiny(tmp_path, store) if "iterations" not in word and not word.startswith("budget")]
    study = [sys.executable, "-m", "anomaly_lab", "--experiments", str(tmp_path / "experiments"), "study", "eight",
             "launcher=slurm", "time=10m", "cpus=1", *settings]  # fmt: skip
    log = tmp_path / "log"

    def start(*more: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            return subprocess.Popen([*study, *more], cwd=ROOT, env=slurm.environment, stdout=file, stderr=file)

    def status() -> str:
        done = subprocess.run([*study, "--status"], cwd=ROOT, env=slurm.environment, capture_output=True, check=False)
        return done.stderr.decode()

    def job(name: str) -> str:
        return slurm.ask("squeue", "--noheader", f"--name={name}", "--format=%i")

    def trains(name: str) -> bool:
        claims = [run_folder.read_json(path) for path in (tmp_path / "runs" / ".claims").glob("*.json")]
        run = next(Path(claim["run"]) for claim in claims if claim["id"] == job(name))
        return any((run / "checkpoints").glob("*.ckpt"))

    first = start("sbatch.hold=true")
    slurm.until(lambda: bool(job("short-headct-seed1")), log)  # the last one
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130
    assert "its jobs go on" in log.read_text()
    assert status().count("pending (JobHeldUser)") == 8

    limited, *killed = "long-headct-seed0", "base-headct-seed1", "long-headct-seed1"
    data = [job(f"data-base-headct-seed{seed}") for seed in (0, 1)]
    for held in (*data, job(limited), *map(job, killed)):
        slurm.ask("scontrol", "release", held)
    slurm.until(lambda: trains(limited), log)
    limited = job(limited)
    slurm.ask("scancel", "--signal=STOP", limited)  # until it is told; SLURM looks every half a minute
    slurm.ask("scontrol", "update", f"JobId={limited}", "TimeLimit=2")  # it is told 120 seconds before, so now
    for name in killed:
        slurm.until(lambda name=name: trains(name), log)
        slurm.ask("scancel", "--signal=KILL", job(name))
    for held in slurm.ask("squeue", "--noheader", "--states=PENDING", "--format=%i").split():
        slurm.ask("scontrol", "release", held)
    slurm.until(lambda: slurm.state(limited) == "PENDING", log)
    second = start()
    slurm.until(lambda: f"long-headct-seed0: job {limited} is at it" in log.read_text(), log)  # before it can end
    slurm.ask("scontrol", "update", f"JobId={limited}", "TimeLimit=10", "StartTime=now")
    assert second.wait(LIMIT) == 0, log.read_text()
    said = log.read_text()
    assert "8 of 8 runs have a result" in said
    assert "long-headct-seed1: resuming" in said
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    assert "8 of 8 runs are finished" in status()
