"""Two processes in turns: a fake contender speaks the protocol, no peer and no network is needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from anomaly_lab.bench import command
from anomaly_lab.bench import peer as bench_peer
from anomaly_lab.bench.pace import BATCH
from anomaly_lab.types import UserError

FAKE = """
import sys, time
from anomaly_lab.bench.pace import Pace

def training_step(batch, batch_idx):
    print("a library talks")
    with open(sys.argv[1], "a") as file:
        file.write(sys.argv[2])

weights, threads = int(sys.argv[3]), int(sys.argv[4])
step = Pace(weights={"generator": weights}, threads=threads).keep(training_step)
for batch_idx in range(int(sys.argv[5]) if len(sys.argv) > 5 else 1000):
    step(None, batch_idx=batch_idx)
    time.sleep(0.002)
sys.exit("out of batches")
"""


def fake(diary: Path, letter: str, *, weights: int = 7, threads: int = 1, last: str = "1000") -> list[str]:
    return [sys.executable, "-c", FAKE, str(diary), letter, str(weights), str(threads), last]


def test_contenders_take_turns_and_the_first_is_not_counted(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    times, about = bench_peer.in_turns({"ours fp32": fake(diary, "a"), "peer fp32": fake(diary, "b")}, rounds=2)
    turn = bench_peer.STEPS * "a" + bench_peer.STEPS * "b"
    assert diary.read_text() == 3 * turn
    assert [len(times[f"step of {name}"]) for name in ("ours fp32", "peer fp32")] == [2, 2]
    assert times["peak of peer fp32, GB"][0] > 0
    assert about["clock"] == "processor"
    assert about["contenders"]["peer fp32"]["weights"] == {"generator": 7}


def test_a_step_is_part_of_the_training(tmp_path: Path) -> None:
    _, about = bench_peer.in_turns({"ours fp32": fake(tmp_path / "diary", "a", threads=2)}, rounds=1)
    (answer,) = about["answers"]["ours fp32"]
    (step, _), (training, _) = answer["step"], answer["training"]
    assert 0 < step < training
    assert training >= 0.002 * bench_peer.STEPS  # what is around the step counts
    assert about["clock"] == "wall"


def test_other_networks_are_refused(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    with pytest.raises(RuntimeError, match=r"differ in their number of weights.*7.*8"):
        bench_peer.in_turns({"ours": fake(diary, "a"), "peer": fake(diary, "b", weights=8)}, rounds=1)
    assert not diary.exists()


def test_a_dead_contender_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)peer stopped early.*out of batches"):
        bench_peer.in_turns({"peer": fake(tmp_path / "diary", "a", last="1")}, rounds=1)
    with pytest.raises(RuntimeError, match=r"(?s)peer stopped early.*no torch"):
        bench_peer.in_turns({"peer": [sys.executable, "-c", "raise SystemExit('no torch')"]}, rounds=1)


def test_ratios_are_of_images_a_second() -> None:
    steps = {"ours bf16": 0.5, "ours fp32": 2.0, "peer fp32": 3.0, "peer bf16": 1.0}
    seconds = {f"step of {name}": value for name, value in steps.items()}
    found = bench_peer.ratios(seconds | {"load": 1.0, "peak of ours fp32, GB": 1.0})
    assert found == {
        "ours bf16 / peer fp32": 6.0,
        "ours bf16 / peer bf16": 2.0,
        "ours fp32 / peer fp32": 1.5,
    }
    assert bench_peer.speeds(seconds)["step of ours bf16"] == 2 * BATCH[0]


def test_a_peer_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"anomalib is not installed .*; `make bench PEER=anomalib` installs it"):
        bench_peer.contenders("anomalib", tmp_path)


def test_an_installed_peer_runs_its_own_python(tmp_path: Path) -> None:
    python = tmp_path / ".peers/anomalib/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    commands = bench_peer.contenders("anomalib", tmp_path)
    theirs = {name for name, command in commands.items() if command[0] == str(python)}
    assert theirs == {name for name in commands if name.startswith("anomalib")}
    assert {command[0] for name, command in commands.items() if name not in theirs} == {sys.executable}


def test_known_peers_have_a_contender(capsys: pytest.CaptureFixture[str]) -> None:
    assert "anomalib" in bench_peer.known()
    assert all((bench_peer.PEERS / f"{peer}_ganomaly.py").exists() for peer in bench_peer.known())
    with pytest.raises(SystemExit):
        command.main(["--peer", "nobody"])
    assert "anomalib" in capsys.readouterr().err


def test_no_module_of_ours_imports_a_peer() -> None:
    lines = [line.split() for path in (bench_peer.ROOT / "anomaly_lab").rglob("*.py")
             if bench_peer.PEERS not in path.parents for line in path.open()]  # fmt: skip
    imported = {words[1].split(".")[0] for words in lines if len(words) > 1 and words[0] in ("import", "from")}
    assert not imported & set(bench_peer.known())


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A folder with our Makefile and what it stands on, set up but for the peer."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "anomaly_lab/bench/peers/anomalib.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bench_peer.ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.complete").touch()
    return tmp_path


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_make_installs_a_peer_once_and_outside_the_projects_environment(workshop: Path) -> None:
    steps = make(workshop, "--dry-run", "bench", "PEER=anomalib").stdout
    install = steps[: steps.index("--peer 'anomalib'")]
    assert ".peers/anomalib/bin/python -m pip install" in install
    assert "--constraint requirements.lock --requirement anomaly_lab/bench/peers/anomalib.txt" in install
    assert "pip" not in make(workshop, "--dry-run", "bench").stdout
    (workshop / ".peers/anomalib").mkdir(parents=True)
    (workshop / ".peers/anomalib/.complete").touch()
    assert "pip" not in make(workshop, "--dry-run", "bench", "PEER=anomalib").stdout


def test_make_names_the_peers_there_are(workshop: Path) -> None:
    done = make(workshop, "bench", "PEER=nobody")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no peer 'nobody'; there are: anomalib" in done.stderr
    assert not (workshop / ".peers").exists()
