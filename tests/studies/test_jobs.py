"""Jobs: what they inherit, who is told of them, and what a study on a cluster asks for."""

import dataclasses
import os
import sys
import time
from pathlib import Path

import pytest
from study_runs import planned

from anomaly_lab.studies import jobs
from anomaly_lab.studies.jobs import Claims, Job, Local, Slurm, Task, minutes, states
from anomaly_lab.studies.plan import Key
from anomaly_lab.studies.runner import progress
from anomaly_lab.types import UserError

SBATCH = '#!/bin/sh\necho "Submitted batch job 12"\ncp "$1" "$SEEN"\n'
QUEUE = "#!/bin/sh\nprintf '12|RUNNING|None|node1\\n13|PENDING|Dependency|\\n14|RUNNING|None|node2\\n'\n"


def ended(job: Job) -> str:
    while states([job]):
        time.sleep(0.05)
    return Path(job.log).read_text()


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_a_process_sees_the_gpus_and_the_output_of_its_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ['OMP_NUM_THREADS'])"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for value in ("0,3", None):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value) if value else monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        said = ended(Local(jobs=10_000).submit(Task("a", (sys.executable, "-c", script), tmp_path, tmp_path / "logs")))
        assert said.splitlines()[-1] == f"{value} 1"


@pytest.mark.parametrize(
    ("usable", "given", "jobs", "threads"),
    [(8, None, 2, "4"), (8, "2", 1, "2"), (8, "64", 2, "4"), (2, None, 8, "1"), (8, "junk", 4, "2")],
)
def test_jobs_share_the_cores_that_the_study_may_use(
    monkeypatch: pytest.MonkeyPatch, usable: int, given: str | None, jobs: int, threads: str
) -> None:
    """A container of eight cores on a host of 64 would have had 64 threads, waiting for each other."""
    monkeypatch.setattr("anomaly_lab.studies.jobs.cpu_count", lambda: usable)
    monkeypatch.setenv("OMP_NUM_THREADS", given) if given else monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Local(jobs)._threads == threads


def test_a_job_has_its_share_of_the_threads_that_the_study_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomaly_lab.studies.jobs.cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    script = "import os; print(os.environ['OMP_NUM_THREADS'])"
    said = ended(Local(jobs=2).submit(Task("a", (sys.executable, "-c", script), tmp_path, tmp_path / "logs")))
    assert said.splitlines()[-1] == "2"


def test_a_job_is_alive_for_others_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys, time, pathlib\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(.05)"
    waits = (sys.executable, "-c", script)
    job = Local().submit(Task("a", [*waits, str(tmp_path / "end")], tmp_path, tmp_path / "logs"))
    claims = Claims(tmp_path / "claims")
    with claims.locked("it"):
        claims.write("it", job)
    own = dict(jobs._CHILDREN)
    monkeypatch.setattr(jobs, "_CHILDREN", {})  # as another process sees it
    assert states([claims.read("it")]) == {job.id: "runs"}
    assert states([dataclasses.replace(job, began=1.0)]) == {}  # another process that got its number
    assert states([dataclasses.replace(job, host="elsewhere")]) == {}
    monkeypatch.setattr(jobs, "_CHILDREN", own)
    (tmp_path / "end").touch()
    ended(job)
    monkeypatch.setattr(jobs, "_CHILDREN", {})
    assert states([job]) == {}


def test_a_study_waits_for_the_job_of_another_one(stub, tmp_path: Path) -> None:
    run = planned("a")
    other = stub()
    other.launcher.pause = 0.01
    other._begin(run, "it")
    second = stub()
    second._begin(run, "it")
    assert stub.said[-1] == f"a-set-seed0: job {other._running[run.key].job.id} is at it"
    while states([second._running[run.key].job]):
        time.sleep(0.05)
    second._end(run, "it")
    assert second._outcomes[run.key].state == "found"
    assert len(stub.calls()) == 1


def test_a_claim_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    for text in ("", "[]", '{"kind": "local"}', '{"kind": "local", "id": "1", "run": "", "log": "", "new": 1}'):
        (tmp_path / "it.json").write_text(text)
        assert Claims(tmp_path).read("it") is None


def test_a_cluster_is_asked_for_what_the_run_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("sbatch", SBATCH), ("srun", ""), ("squeue", QUEUE)):
        program(tmp_path, name, text)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    launcher = Slurm(minutes("4h"), "gpu", gpus=2, cpus=3, sbatch={"account": "lab", "mem": "8G"})
    trainer = {"devices": 2, "num_nodes": 3}
    before = Job("slurm", "11", "run", "log")
    job = launcher.submit(Task("vae", ["train"], tmp_path / "run", tmp_path / "logs" / "vae", trainer, [before]))
    assert job.id == "12"
    assert Path(job.log).parent == tmp_path / "logs" / "vae"
    asked = {line.removeprefix("#SBATCH --") for line in (tmp_path / "seen").read_text().splitlines()}
    expected = (
        "partition=gpu gpus-per-node=2 cpus-per-task=3 nodes=3 ntasks-per-node=2 time=240 requeue account=lab mem=8G "
        "signal=USR1@120 dependency=afterok:11 kill-on-invalid-dep=yes"
    )
    assert set(expected.split()) <= asked
    queued = dataclasses.replace(job, id="13")
    assert states([job, queued, before]) == {"12": "runs on node1", "13": "pending (Dependency)"}
    program(tmp_path, "squeue", "#!/bin/sh\nexit 1\n")
    assert states([before]) == {"11": "the queue does not answer"}


def test_a_host_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"launcher=slurm: .*srun"):
        Slurm().submit(Task("a", ["train"], tmp_path, tmp_path / "logs"))


@pytest.mark.parametrize("text", ["", "4", "h", "1.5h", "-1h", "4 h", "0m", "4H"])
def test_a_time_limit_has_a_unit(text: str) -> None:
    with pytest.raises(UserError, match=f"time={text}: takes a number with its unit"):
        minutes(text)


def test_progress_says_who_is_finished_failed_or_not_begun(stub) -> None:
    plan = [planned("a"), planned("bad", fail=True), planned("child", start="bad")]
    runner = stub()
    runner.run_all(plan)
    plan.append(planned("new"))
    said = {key.row: state for key, state in progress(runner.ledger, plan).items()}
    assert said["a"].startswith("finished: ")
    assert said["bad"] == f"failed: error: it is broken ({stub.log('bad-set-seed0')})"
    assert (said["child"], said["new"]) == ("not begun", "not begun")
    assert Key("a", "set", 0) in progress(runner.ledger, plan)
