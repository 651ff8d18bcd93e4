"""Faults that users met, each by its own commands: what one sees, not how it is done.

The numbers are those of the list of faults that was made at commit c267c94, where every test here fails:

    git worktree add /tmp/then c267c94
    ANOMALY_TREE=/tmp/then python -m pytest tests/e2e/test_faults.py
"""

import csv
import gzip
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import torch
import yaml
from commands import OLD, TREE, Ended, Running, Server, die_at, fail_in, settings
from dicom_files import chest, dicom_slice, save, write_dicom_series
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ImplicitVRLittleEndian,
    RLELossless,
    RTDoseStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

pytestmark = pytest.mark.slow
KILLED = -signal.SIGKILL
TINY: dict[str, object] = {  # four iterations
    "budget": "smoke",
    "data.patch_size": "[32,32]",
    "data.batch_size": 4,
    "data.epoch_length": 2,
    "data.split.val_fraction": 0.25,
    "detector.width": 4,
    "detector.gan_iterations": 2,
    "detector.encoder_iterations": 2,
    "detector.n_critic": 1,
    "callbacks.wandb": "null",
    "data.store.scoring_batch_size": 1,
    "evaluation.replicates": 20,
    "trainer.precision": "32-true",
    "trainer.accelerator": "cpu",
}
LONG = {"detector.gan_iterations": 10**6, "callbacks.record.every": 1}


class Place:
    """A working folder with a Head-CT set of sixteen pictures in data/headct, which is where one looks by default.

    Args:
        server: starts the commands.
        base: the folder.
        kept: where what each training left is kept, for all places of the same base.
    """

    def __init__(self, server: Server, base: Path, kept: Path) -> None:
        self.server, self.base, self.kept = server, base, kept
        base.mkdir(parents=True, exist_ok=True)
        write_headct(base / "data" / "headct", 16)

    def words(self, experiment: str, **changes: object) -> list[str]:
        tiny: dict[str, object] = {"data.split.train_normals": 8, "data.store.folder": self.base / "store"}
        if experiment.endswith("_headct"):
            tiny["data.protocol"] = "random"  # of ten normals, no block leaves enough
        return [experiment, *settings({k: v for k, v in (TINY | tiny | changes).items() if v is not None})]

    def run(self, *words: str | Path, **more) -> Ended:
        return self.server.run(*words, **{"folder": self.base} | more)

    def start(self, *words: str | Path, **more) -> Running:
        return self.server.start(*words, **{"folder": self.base} | more)

    def train(self, experiment: str = "fanogan_headct", first: str = "", status: int = 0, **changes: object) -> Path:
        """The new run folder of a training that ends with this status.

        The same words are given once in the same folder of the same content; after that, what they left is laid there.
        """
        before, words = set(self.runs()), self.words(experiment, **changes)
        kept = self.kept / hashlib.sha256(repr((words, first, status, state(self.base))).encode()).hexdigest()
        if kept.exists():
            shutil.rmtree(self.base)
            shutil.copytree(kept, self.base, symlinks=True, copy_function=copied)
        else:
            ended = self.run("train", *words, first=first)
            assert ended.status == status, ended.said
            shutil.copytree(self.base, kept, symlinks=True, copy_function=copied)
        (run,) = set(self.runs()) - before
        return run

    def stopped(self, **changes: object) -> Path:
        """A run that was killed when its second checkpoint was written."""
        return self.train(first=die_at("os.rename", ".ckpt", 2), status=KILLED, **changes)

    def runs(self) -> list[Path]:
        """All folders that look like a run's."""
        return [path for path in (self.base / "runs").glob("*/*") if path.name != "data" and path.name[0] != "."]


def write_headct(root: Path, count: int, first: int = 0) -> None:
    """Pictures of noise, every fourth one of them anomalous, in the official layout."""
    folder = root / "head_ct" / "head_ct"
    folder.mkdir(parents=True, exist_ok=True)
    labels = root / "labels.csv"
    lines = labels.read_text().splitlines() if labels.exists() else ["id, hemorrhage"]
    for i in range(first, first + count):
        noise(i, (20 + i, 18)).save(folder / f"{i:03d}.png")
        lines.append(f"{i},{int(i % 4 == 0)}")
    labels.write_text("\n".join(lines) + "\n")


def noise(seed: int, shape: tuple[int, ...] = (32, 32)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def facts(run: Path, name: str = "provenance") -> dict:
    return json.loads((run / f"{name}.json").read_text())


def held(folder: Path) -> dict[str, bytes]:
    """All files of a folder and their content, but for locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def copied(source: str, target: str) -> str:
    """Copy a file; of a pipe, make another."""
    if Path(source).is_fifo():
        os.mkfifo(target)
        return target
    return str(shutil.copy2(source, target))


def state(folder: Path) -> str:
    """A checksum of all that a folder holds."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)}\0{path.lstat().st_mode}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return digest.hexdigest()


RESULT = ("scores.csv", "metrics.json", "provenance.json", "report.html")


def result(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in RESULT if (run / name).exists()}


def newest_checkpoint(run: Path) -> Path:
    return max((run / "checkpoints").glob("*.ckpt"))


def sealed(checkpoint: Path, edit) -> Path:
    """Edit a checkpoint and name it by its new checksum, as one does who means it."""
    content = torch.load(checkpoint, weights_only=True)
    edit(content)
    torch.save(content, checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:16]
    return checkpoint.rename(checkpoint.with_name(f"{checkpoint.stem.partition('-')[0]}-{digest}.ckpt"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the place of every test is, one after the other: run folders know the paths of their data."""
    return tmp_path_factory.mktemp("here")


@pytest.fixture
def place(server: Server, here: Path) -> Iterator[Place]:
    yield Place(server, here / "around" / "place", here / "kept")
    shutil.rmtree(here / "around")


@pytest.fixture(scope="module")
def trained(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on real pictures that nobody changes."""
    base = tmp_path_factory.mktemp("trained")
    return Place(server, base / "place", base / "kept").train()


# A. The run forgets what it was


@pytest.mark.parametrize("verb", ["evaluate", "resume"])
def test_a1_a_run_whose_data_are_gone_does_not_become_one_on_the_twin(place: Place, verb: str) -> None:
    run = place.train() if verb == "evaluate" else place.stopped()
    before = result(run)
    (place.base / "data").rename(place.base / "unmounted")
    ended = place.run(verb, run)
    assert ended.is_refusal, ended.said
    assert result(run) == before


@pytest.mark.parametrize("verb", ["evaluate", "resume"])
def test_a1_a_run_has_the_same_data_in_another_working_folder(place: Place, tmp_path: Path, verb: str) -> None:
    straight = place.train()
    run = straight if verb == "evaluate" else place.stopped()
    scores = (straight / "scores.csv").read_bytes()
    ended = place.run(verb, run, folder=tmp_path)
    assert ended.status == 0, ended.said
    assert (run / "scores.csv").read_bytes() == scores


def test_a1_a_root_that_was_typed_must_exist(place: Place) -> None:
    ended = place.run("train", *place.words("fanogan_headct"), "data.root=data/haedct")
    assert ended.is_refusal, ended.said
    assert "haedct" in ended.said
    assert not place.runs()


@pytest.mark.parametrize("change", ["added", "altered", "removed", "relabelled"])
def test_a2_a_run_is_not_judged_on_a_split_drawn_anew(place: Place, change: str) -> None:
    run, root = place.train(), place.base / "data" / "headct"
    before = result(run)
    if change == "added":
        write_headct(root, 12, first=16)
    elif change == "altered":
        noise(99, (25, 18)).save(root / "head_ct" / "head_ct" / "005.png")
    elif change == "removed":
        (root / "head_ct" / "head_ct" / "005.png").unlink()
        (root / "labels.csv").write_text((root / "labels.csv").read_text().replace("5,0\n", "", 1))
    else:
        (root / "labels.csv").write_text((root / "labels.csv").read_text().replace("\n5,0\n", "\n5,1\n", 1))
    ended = place.run("evaluate", run)
    assert ended.is_refusal, ended.said
    assert result(run) == before


@pytest.mark.parametrize("damage", ["torn", "gone"])
def test_a3_an_older_checkpoint_than_the_result_is_not_taken_in_silence(place: Place, damage: str) -> None:
    run = place.train(**{"detector.encoder_iterations": 4})
    before, newest = result(run), newest_checkpoint(run)
    newest.write_bytes(newest.read_bytes()[:1000]) if damage == "torn" else newest.unlink()
    ended = place.run("evaluate", run)
    assert ended.is_refusal, ended.said
    assert result(run) == before


def test_a3_checkpoints_of_another_run_are_refused(place: Place) -> None:
    run, other = place.train(), place.train(seed=1)
    before = result(run)
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other / "checkpoints", run / "checkpoints")
    ended = place.run("evaluate", run)
    assert ended.is_refusal, ended.said
    assert result(run) == before


@pytest.mark.parametrize("verb", ["evaluate", "resume"])
def test_a3_a_run_that_is_being_trained_is_left_alone(place: Place, verb: str) -> None:
    training = place.start("train", *place.words("fanogan_headct", **{"detector.encoder_iterations": 10**6}))
    try:
        run = wait_for(
            lambda: next((run for run in place.runs() if list((run / "checkpoints").glob("0000000[4-9]*"))), None)
        )
        ended = place.run(verb, run)
        assert ended.is_refusal, ended.said
        assert "resumed" not in facts(run)
        assert not (run / "scores.csv").exists()
    finally:
        os.kill(training.pid, signal.SIGKILL)
        training.wait()


def wait_for(what):
    """What a function returns as soon as that is true."""
    begun = time.monotonic()
    while not (found := what()):
        assert time.monotonic() - begun < 120
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json"])
def test_a4_a_run_folder_is_whole_or_not_there(place: Place, name: str) -> None:
    ended = place.run("train", *place.words("fanogan_headct"), first=die_at("os.rename", name))
    assert ended.status == KILLED
    for run in place.runs():
        ended = place.run("resume", run)
        assert ended.status == 0, ended.said
        assert {"budget", "source", "finished"} <= set(facts(run))
    run = place.train()
    assert list((place.base / "runs" / "fanogan_headct").iterdir()) == [*place.runs()]
    assert run in place.runs()


def test_a4_a_kill_before_the_report_is_healed(place: Place) -> None:
    run = place.train(first=die_at("os.rename", "report.html"), status=KILLED)
    ended = place.run("resume", run)
    assert ended.status == 0, ended.said
    assert (run / "report.html").exists()


@pytest.mark.skipif(OLD, reason="these settings are younger")
@pytest.mark.parametrize("name", ["config.yaml", "scores.csv", "metrics.json", "report.html"])
def test_a4_a_kill_of_a_run_that_only_scores_another_is_healed(place: Place, name: str) -> None:
    """Its checkpoint is the other run's, whose epochs are none of its own: Lightning refused to go on from it."""
    trained = place.train()
    other = {"start_from": trained, "start_phase": "encoder", "score.source": "map"}
    straight = place.train(**other)
    ended = place.run("train", *place.words("fanogan_headct", **other), first=die_at("os.rename", name))
    assert ended.status == KILLED, ended.said
    for run in {*place.runs()} - {trained, straight}:
        ended = place.run("resume", run)
        assert ended.status == 0, ended.said
        assert (run / "scores.csv").read_bytes() == (straight / "scores.csv").read_bytes()


def test_a4_a_kill_while_the_record_is_shortened_loses_nothing(place: Place) -> None:
    """A line that was written after the checkpoint is dropped by resume, which is killed while it does that."""
    straight = place.train(**{"callbacks.record.every": 1})
    run = place.stopped(**{"callbacks.record.every": 1})
    ended = place.run("resume", run, first=die_at("open", "metrics.jsonl"))
    assert ended.status == KILLED
    ended = place.run("resume", run)
    assert ended.status == 0, ended.said
    assert (run / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()


def test_a4_a_kill_before_the_pool_is_taken_over_is_healed(place: Place) -> None:
    pool = {"callbacks.fakepool.every": 1, "callbacks.fakepool.count": 4, "data.store.folder": place.base / "store"}
    tiny = {key: value for key, value in TINY.items() if key != "detector.encoder_iterations"} | pool
    tiny |= {"data.split.train_normals": 8, "data.protocol": "random"}
    ended = place.run("train", "wgan_headct", *settings(tiny))
    assert ended.status == 0, ended.said
    (source,) = place.runs()
    words = settings(tiny | {"detector.critic_iterations": 2, "start_from": source})
    ended = place.run("train", "adgan_headct", *words, first=die_at("os.link", "fakepool"))
    assert ended.status == KILLED, ended.said
    for run in set(place.runs()) - {source}:
        ended = place.run("resume", run)
        assert ended.status == 0, ended.said


def test_a4_nothing_half_written_is_left(place: Place) -> None:
    run = place.train(first=die_at("os.rename", ".ckpt", 2), status=KILLED)
    ended = place.run("resume", run)
    assert ended.status == 0, ended.said
    assert not [path.name for path in run.rglob("*") if path.name.startswith(".") and path.name != ".lock"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a5_a_signal_ends_a_training_with_a_checkpoint_a_line_and_its_status(place: Place, name: str) -> None:
    number = signal.Signals[name]
    job = {f"SLURM_{key}": "1" for key in ("JOB_ID", "NTASKS", "JOB_NUM_NODES")} | {"SLURM_JOB_NAME": "job"}
    job |= {f"SLURM_{key}": "0" for key in ("PROCID", "LOCALID", "NODEID")}
    words = place.words("fanogan_headct", **LONG | {"data.epoch_length": 10**6})
    training = place.start("train", *words, environment=job if name == "SIGUSR1" else {})
    run = wait_for(lambda: next((run for run in place.runs() if (run / "metrics.jsonl").exists()), None))
    os.kill(training.pid, number)
    ended = training.wait(60)
    assert ended.status == 128 + number, ended.said
    assert f"resume RUN={run.relative_to(place.base)}" in ended.said
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert re.fullmatch(r"\d+-[0-9a-f]{16}\.ckpt", checkpoint.name)


@pytest.mark.parametrize("verb", ["resume", "evaluate", "predict", "report"])
def test_a6_settings_after_make_are_used_or_refused(place: Place, verb: str) -> None:
    run = place.stopped() if verb == "resume" else place.train()
    before = result(run)
    (place.base / "new").mkdir()
    given = [f"INPUT={place.base / 'new'}"] if verb == "predict" else []
    ended = made(place, verb, f"RUN={run}", *given, "detector.width=5")
    assert ended.status == 2, ended.said
    assert "detector.width" in ended.said
    assert result(run) == before


def test_a6_evaluate_takes_another_quantile(place: Place) -> None:
    run = place.train()
    before = facts(run, "metrics")["threshold"]
    ended = made(place, "evaluate", f"RUN={run}", "evaluation.quantile=0.1")
    assert ended.status == 0, ended.said
    assert facts(run, "metrics")["threshold"]["value"] < before["value"]


def made(place: Place, *words: str) -> Ended:
    """Do what make would do."""
    shutil.copy(TREE / "Makefile", place.base)
    for name in ("requirements.lock", "pyproject.toml"):
        (place.base / name).touch()
    (place.base / ".venv").mkdir()
    for name in (".complete", "complete"):
        (place.base / ".venv" / name).touch()
    done = subprocess.run(["make", "--dry-run", *words], cwd=place.base, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if "-m anomaly_lab" in line)
    return place.run(*shlex.split(line)[3:])


# B. Predictions


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / trained.name))


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """A folder of three new pictures."""
    folder = tmp_path / "new"
    folder.mkdir()
    for name in range(3):
        noise(100 + name, (30, 50)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def scans(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished run on NIfTI volumes."""
    base = tmp_path_factory.mktemp("scans")
    place = Place(server, base / "place", base / "kept")
    write_volumes(place.base / "nifti")
    place.train("fanogan_nifti", **VOLUMES | {"data.root": place.base / "nifti"})
    return place


VOLUMES = {"data.images": "'**/flair.nii*'", "data.split.train_normals": 0.5, "data.cut.foreground": 0.0}


def write_volumes(root: Path, unit: str = "mm", scale: float = 1.0, patients: int = 8) -> None:
    """Volumes of 40×40×3 voxels of 2×2×4 mm; every second one has a lesion."""
    for patient in range(patients):
        rng = np.random.default_rng(patient)
        lesion = np.zeros((40, 40, 3), np.uint8)
        lesion[10:20, 10:20] = patient % 2
        for name, values in (("flair", rng.integers(50, 200, (40, 40, 3)).astype(np.int16)), ("lesion", lesion)):
            write_volume(root / f"p{patient}" / f"{name}.nii.gz", values, np.diag([2, 2, 4, 1 / scale]) * scale, unit)


def write_volume(path: Path, values: np.ndarray, affine: np.ndarray, unit: str = "mm") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units(xyz=unit)
    nibabel.save(image, path)
    return path


def predicted(out: Path) -> dict[str, dict[str, str]]:
    return {row["id"].removeprefix("'"): row for row in rows(out / "scores.csv")}


@pytest.mark.parametrize("whose", ["home", "input", "run", "above the run"])
def test_b1_what_a_prediction_did_not_make_it_does_not_delete(
    server: Server, run: Path, new: Path, tmp_path: Path, whose: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    out = {"home": home, "input": new, "run": run, "above the run": run.parent}[whose]
    before = held(out)
    server.run("predict", run, new, "--out", out)
    after = held(out)
    assert before.keys() <= after.keys()
    assert all(after[name] == content for name, content in before.items())


def test_b1_a_result_does_not_replace_that_of_a_folder_of_the_same_name(
    server: Server, run: Path, new: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "new"
    other.mkdir(parents=True)
    noise(7).save(other / "7.png")
    for folder in (new, other):
        ended = server.run("predict", run, folder)
        assert ended.status == 0, ended.said
    tables = [sorted(predicted(out)) for out in (run / "predictions").iterdir()]
    assert sorted(tables) == [["0.png", "1.png", "2.png"], ["7.png"]]


def test_b1_two_at_once_do_not_mix(server: Server, run: Path, tmp_path: Path) -> None:
    for patient in "ab":
        (tmp_path / patient / "new").mkdir(parents=True)
        for name in range(20):
            noise(name).save(tmp_path / patient / "new" / f"{patient}{name:02d}.png")
    both = [server.start("predict", run, tmp_path / patient / "new") for patient in "ab"]
    for running in both:
        ended = running.wait()
        assert ended.status == 0, ended.said
    found = {"".join(sorted({name[0] for name in predicted(out)})): out for out in (run / "predictions").iterdir()}
    assert sorted(found) == ["a", "b"]
    for patient, out in found.items():
        assert len(predicted(out)) == 20
        assert {path.name[0] for path in (out / "maps").iterdir()} == {patient}
        assert len(list((out / "maps").iterdir())) == 20


def test_b2_one_bad_file_costs_one_row(server: Server, run: Path, new: Path, tmp_path: Path) -> None:
    (new / "1.png").write_bytes((new / "1.png").read_bytes()[:60])
    ended = server.run("predict", run, new, "--out", tmp_path / "out")
    assert ended.status not in (0, 1), ended.said
    assert "1.png" in ended.said
    table = predicted(tmp_path / "out")
    assert [bool(table[name]["score"]) for name in ("0.png", "2.png")] == [True, True]
    assert not table["1.png"]["score"]


def test_b2_masks_beside_scans_are_not_scored(server: Server, scans: Place, tmp_path: Path) -> None:
    (run,) = scans.runs()
    write_volumes(tmp_path / "new", patients=2)
    ended = server.run("predict", run, tmp_path / "new", "--out", tmp_path / "out")
    assert ended.status == 0, ended.said
    assert sorted(predicted(tmp_path / "out")) == ["p0/flair.nii.gz", "p1/flair.nii.gz"]


def test_b2_webp_is_scored(server: Server, run: Path, new: Path, tmp_path: Path) -> None:
    Image.open(new / "0.png").save(new / "3.webp", lossless=True)
    ended = server.run("predict", run, new, "--out", tmp_path / "out")
    table = predicted(tmp_path / "out")
    assert sorted(table) == ["0.png", "1.png", "2.png", "3.webp"], ended.said
    assert float(table["3.webp"]["score"]) == pytest.approx(float(table["0.png"]["score"]), rel=1e-5)


def test_b2_linked_folders_are_entered(server: Server, run: Path, new: Path, tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    (tmp_path / "ward" / "patient").symlink_to(new, target_is_directory=True)
    ended = server.run("predict", run, tmp_path / "ward", "--out", tmp_path / "out")
    assert ended.status == 0, ended.said
    assert len(predicted(tmp_path / "out")) == 3


@pytest.fixture(scope="module")
def series(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished run on DICOM series."""
    base = tmp_path_factory.mktemp("series")
    place = Place(server, base / "place", base / "kept")
    write_series(place.base / "dicom")
    place.train("fanogan_dicom", **SERIES | {"data.root": place.base / "dicom"})
    return place


SERIES = {"data.volume.spacing": "null", "data.cut": "{label: case, overlap: 0.0}", "data.split.train_normals": 4}


def ct(seed: int, slices: int = 4) -> np.ndarray:
    """Stored values of a small brain in its window, [slices, 40, 40]."""
    return np.random.default_rng(seed).integers(1044, 1084, (slices, 40, 40)).astype(np.int16)


def write_series(root: Path, **elements) -> None:
    """Six normal series and four others, each of a patient of its own."""
    for number in range(10):
        own = {"PatientID": f"P{number}", "SeriesInstanceUID": f"1.2.3.{number}", "StudyInstanceUID": f"1.2.4.{number}"}
        folder = root / ("normal" if number < 6 else "anomalous") / f"s{number}"
        write_dicom_series(folder, ct(number), **own | elements)


def test_b2_a_single_dicom_file_is_looked_at(server: Server, run: Path, tmp_path: Path) -> None:
    file = save(chest(np.asarray(noise(3, (30, 30)))), tmp_path / "film.dcm")
    ended = server.run("predict", run, file, "--out", tmp_path / "out", *([] if OLD else ["--anyway"]))
    assert ended.status == 0, ended.said
    assert list(predicted(tmp_path / "out")) == ["film.dcm"]


def test_b2_a_killed_prediction_goes_on(server: Server, run: Path, new: Path, tmp_path: Path) -> None:
    words = ["predict", run, new, "--out", tmp_path / "out"]
    ended = server.run(*words, first=die_at("open", "2.png", 1))
    assert ended.status == KILLED, ended.said
    assert "0.png" in (tmp_path / "out" / "scores.csv").read_text()
    (first,) = (tmp_path / "out" / "maps").glob("0.png*")
    written = first.stat().st_mtime_ns
    ended = server.run(*words)
    assert ended.status == 0, ended.said
    assert sorted(predicted(tmp_path / "out")) == ["0.png", "1.png", "2.png"]
    assert first.stat().st_mtime_ns == written


def test_b2_a_row_says_which_series_it_is(server: Server, series: Place, tmp_path: Path) -> None:
    (run,) = series.runs()
    write_dicom_series(tmp_path / "new" / "a", ct(20), SeriesInstanceUID="1.2.3.99")
    ended = server.run("predict", run, tmp_path / "new", "--out", tmp_path / "out")
    assert ended.status == 0, ended.said
    (row,) = predicted(tmp_path / "out").values()
    assert "1.2.3.99" in row.values()


def test_b3_a_score_that_is_no_number_is_not_normal(server: Server, run: Path, new: Path, tmp_path: Path) -> None:
    def spoil(content: dict) -> None:
        for weights in content["state_dict"].values():
            if weights.is_floating_point():
                weights.fill_(float("nan"))

    sealed(newest_checkpoint(run), spoil)
    if not OLD:  # whoever damages a run so knows of its record
        file = run / "provenance.json"
        text = json.loads(file.read_text())
        text["checkpoint"]["file"] = newest_checkpoint(run).name
        file.write_text(json.dumps(text))
    ended = server.run("predict", run, new, "--out", tmp_path / "out")
    assert ended.status not in (0, 1), ended.said
    table = tmp_path / "out" / "scores.csv"
    assert not table.exists() or not any(row["pred_label"] for row in rows(table))


@pytest.mark.parametrize("kind", ["dicom", "nifti"])
def test_b4_scans_of_another_nature_are_not_scored(server: Server, run: Path, tmp_path: Path, kind: str) -> None:
    if kind == "dicom":
        save(dicom_slice(ct(0)[0]), tmp_path / "new" / "slice.dcm")
    else:
        write_volume(tmp_path / "new" / "brain.nii.gz", ct(0).T - 1024, np.eye(4))
    ended = server.run("predict", run, tmp_path / "new", "--out", tmp_path / "out")
    assert ended.status not in (0, 1), ended.said
    table = tmp_path / "out" / "scores.csv"
    assert not table.exists() or not any(row["score"] for row in rows(table))


def test_b5_the_page_says_what_to_know_of_the_run(server: Server, place: Place, new: Path, tmp_path: Path) -> None:
    run = place.train(**{"data.source": "twin", "data.twin.size": 40})
    ended = server.run("predict", run, new, "--out", tmp_path / "out", *([] if OLD else ["--anyway"]))
    assert ended.status == 0, ended.said
    page = (tmp_path / "out" / "index.html").read_text()
    assert re.search("synthetic", page, re.IGNORECASE)
    assert "smoke" in page.replace(run.name, "")
    assert re.search("threshold", page, re.IGNORECASE)
    value = facts(run, "metrics")["threshold"]["value"]
    assert any(f"{value:.{digits}g}".lstrip("0") in page for digits in (3, 4, 5, 6))


def test_b5_a_map_has_the_size_of_its_picture(server: Server, run: Path, new: Path, tmp_path: Path) -> None:
    ended = server.run("predict", run, new, "--out", tmp_path / "out")
    assert ended.status == 0, ended.said
    for path in (tmp_path / "out" / "maps").iterdir():
        assert Image.open(path).size == (50, 30)
        assert not path.name.endswith(".png.png")


def test_b6_every_scan_has_a_map_of_its_own(server: Server, scans: Place, tmp_path: Path) -> None:
    (run,) = scans.runs()
    for name, seed in (("flair.nii", 1), ("flair.nii.gz", 2)):
        values = np.random.default_rng(seed).integers(50, 200, (40, 40, 3)).astype(np.int16)
        write_volume(tmp_path / "new" / "p" / name, values, np.diag([2, 2, 4, 1]))
    ended = server.run("predict", run, tmp_path / "new", "--out", tmp_path / "out")
    assert ended.status == 0, ended.said
    maps = [path for path in (tmp_path / "out" / "maps").rglob("*") if path.is_file()]
    assert len(predicted(tmp_path / "out")) == len(maps) == 2


# C. Readers: what is read is what is shown, or one line says why not


class Stored(dict[str, tuple[np.ndarray, np.ndarray | None]]):
    """What a store has of each case: pixels [rows, C, H, W] and masks [rows, 1, H, W] or None."""

    def __init__(self, folder: Path) -> None:
        (self.folder,) = (path for path in folder.iterdir() if (path / "images.npy").exists())
        images = np.load(self.folder / "images.npy")
        masks = np.load(self.folder / "masks.npy") if (self.folder / "masks.npy").exists() else None
        index = rows(self.folder / "index.csv")
        for case in dict.fromkeys(row["case"] for row in index):
            mine = [number for number, row in enumerate(index) if row["case"] == case]
            self[case] = images[mine], None if masks is None else masks[mine]


class Set:
    """A set of files and the command that reads it."""

    def __init__(self, server: Server, root: Path, experiment: str, **values: object) -> None:
        self.server, self.root, self.experiment, self.values = server, root, experiment, values
        self.count = 0

    def read(self, **changes: object) -> Ended:
        self.count += 1
        place = {"data.root": self.root, "data.store.folder": self.store, "runs": self.store.parent / "runs"}
        detector = {key: value for key, value in TINY.items() if key != "data.store.scoring_batch_size"}
        return self.server.run(
            "data", self.experiment, *settings(detector | place | self.values | changes), first=LITTLE_MEMORY
        )

    @property
    def store(self) -> Path:
        return self.root.parent / f"read-{self.count}" / "store"

    def stored(self, **changes: object) -> Stored:
        ended = self.read(**changes)
        assert ended.status == 0, ended.said
        return Stored(self.store)

    def stored_or_refused(self, name: str) -> Stored | None:
        """What is read; None where one line refuses the named file."""
        ended = self.read()
        if ended.status == 0:
            return Stored(self.store)
        assert ended.is_refusal, ended.said
        assert name in ended.said
        return None


LITTLE_MEMORY = """
import resource
resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))
"""


@pytest.fixture
def pictures(server: Server, tmp_path: Path) -> Set:
    """A folder of twelve normal pictures, to which a test adds odd ones."""
    (tmp_path / "set" / "odd").mkdir(parents=True)
    (tmp_path / "set" / "normal").mkdir()
    for number in range(12):
        noise(number).save(tmp_path / "set" / "normal" / f"{number}.png")
    UPRIGHT.save(tmp_path / "set" / "odd" / "upright.png")
    return Set(server, tmp_path / "set", "fanogan_folder", **{"data.split.train_normals": 8})


UPRIGHT = Image.fromarray(np.kron(np.arange(64).reshape(8, 8) * 4, np.ones((4, 4))).astype(np.uint8))
PIXELS = np.asarray(UPRIGHT)
TALL = Image.fromarray(PIXELS[:, :20])
TURNED = {  # how pixels lie in a file whose tag tells how to turn them
    2: np.fliplr(PIXELS),
    3: np.rot90(PIXELS, 2),
    4: np.flipud(PIXELS),
    5: PIXELS.T,
    6: np.rot90(PIXELS, 1),
    7: np.rot90(PIXELS, 2).T,
    8: np.rot90(PIXELS, -1),
}


def alike(stored: Stored | None, name: str, other: str = "odd/upright.png", within: int = 1) -> None:
    """Two cases have the same pixels, up to a rounding, or one was refused."""
    if stored is not None:
        difference = stored[name][0].astype(int) - stored[other][0].astype(int)
        assert abs(difference).max() <= within


def test_c_tiff_white_is_zero_of_sixteen_bits(pictures: Set) -> None:
    deep = PIXELS.astype(np.uint16) * 257
    tifffile.imwrite(pictures.root / "odd" / "white.tif", 65535 - deep, photometric="miniswhite")
    alike(pictures.stored_or_refused("white.tif"), "odd/white.tif")


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_c_tiff_orientation_of_uncompressed_files(pictures: Set, orientation: int) -> None:
    TALL.save(pictures.root / "odd" / "tall.png")
    tag = [(274, "H", 1, orientation, True)]
    path = pictures.root / "odd" / "turned.tif"
    tall = np.asarray(TALL)
    turned = {5: tall.T, 6: np.rot90(tall, 1), 7: np.rot90(tall, 2).T, 8: np.rot90(tall, -1)}[orientation]
    tifffile.imwrite(path, np.ascontiguousarray(turned), photometric="minisblack", extratags=tag)
    alike(pictures.stored_or_refused("turned.tif"), "odd/turned.tif", "odd/tall.png")


def test_c_tiff_planes_of_sixteen_bits(pictures: Set) -> None:
    planes = np.stack([PIXELS.astype(np.uint16) * 257] * 3)
    path = pictures.root / "odd" / "planes.tif"
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    alike(pictures.stored_or_refused("planes.tif"), "odd/planes.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_c_exif_orientation(pictures: Set, suffix: str) -> None:
    for orientation, pixels in TURNED.items():
        exif = Image.Exif()
        exif[274] = orientation
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        picture.save(pictures.root / "odd" / f"turned{orientation}.{suffix}", exif=exif, quality=100)
    stored = pictures.stored()
    for orientation in TURNED:
        alike(stored, f"odd/turned{orientation}.{suffix}", within=4)


LESION = np.zeros((32, 32), bool)
LESION[6:16, 4:24] = True


def masks() -> dict[str, Image.Image]:
    """The same lesion drawn in many ways."""
    drawn = LESION.astype(np.uint8)
    colour = np.stack([drawn, 0 * drawn, 0 * drawn], 2)
    palette = Image.fromarray(drawn, "P")
    palette.putpalette([0, 0, 0, 1, 0, 0])
    white = Image.fromarray(drawn, "P")
    white.putpalette([255, 255, 255, 200, 0, 0])
    see_through = np.zeros((32, 32, 4), np.uint8)
    see_through[..., 3] = drawn * 255
    return {
        "label of colour": Image.fromarray(colour),
        "blue": Image.fromarray(colour[..., ::-1] * 3),
        "dark palette": palette,
        "white palette": white,
        "alpha": Image.fromarray(see_through),
    }


@pytest.mark.parametrize("kind", list(masks()))
def test_c_masks_that_are_not_plain_grey(pictures: Set, kind: str) -> None:
    (pictures.root / "masks" / "odd").mkdir(parents=True)
    masks()[kind].save(pictures.root / "masks" / "odd" / "upright.png")
    stored = pictures.stored_or_refused("upright.png")
    if stored is not None:
        np.testing.assert_array_equal(stored["odd/upright.png"][1][0, 0], LESION)


@pytest.mark.parametrize("quality", [75, 95])
def test_c_masks_that_jpeg_has_blurred(pictures: Set, quality: int) -> None:
    (pictures.root / "masks" / "odd").mkdir(parents=True)
    path = pictures.root / "masks" / "odd" / "upright.jpg"
    Image.fromarray(LESION.astype(np.uint8) * 255).save(path, quality=quality)
    np.testing.assert_array_equal(pictures.stored()["odd/upright.png"][1][0, 0], LESION)


def test_c_thumbnails_of_a_storage_box_are_no_class(pictures: Set) -> None:
    for folder in ("@eaDir", "odd/@eaDir"):
        (pictures.root / folder / "x.png").mkdir(parents=True)
        noise(5).save(pictures.root / folder / "x.png" / "SYNOPHOTO_THUMB_M.jpg")
    assert not [case for case in pictures.stored() if "eaDir" in case]


def test_c_the_first_picture_of_an_mpo(pictures: Set) -> None:
    UPRIGHT.convert("RGB").save(
        pictures.root / "odd" / "phone.jpg", "MPO", save_all=True, append_images=[noise(3).convert("RGB")], quality=100
    )
    alike(pictures.stored(), "odd/phone.jpg", within=4)


@pytest.mark.parametrize(("unit", "scale"), [("micron", 1000.0), ("meter", 0.001)])
def test_c_nifti_units(server: Server, tmp_path: Path, unit: str, scale: float) -> None:
    found = []
    for name, words in (("mm", ("mm", 1.0)), (unit, (unit, scale))):
        write_volumes(tmp_path / name / "set", *words, patients=4)
        values = VOLUMES | {"data.volume.spacing": "[4,2,2]"}
        found.append(Set(server, tmp_path / name / "set", "fanogan_nifti", **values).stored())
    for case, (pixels, _) in found[0].items():
        np.testing.assert_array_equal(found[1][case][0], pixels)


def predicted_map(server: Server, scans: Place, path: Path) -> Path:
    (run,) = scans.runs()
    ended = server.run("predict", run, path.parent, "--out", path.parents[1] / "out")
    assert ended.status == 0, ended.said
    (found,) = (path.parents[1] / "out" / "maps").rglob("*.nii.gz")
    return found


def test_c_a_map_has_the_qform_and_sform_of_its_scan(server: Server, scans: Place, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(50, 200, (40, 40, 3)).astype(np.int16)
    path = write_volume(tmp_path / "new" / "flair.nii.gz", values, np.diag([2, 2, 4, 1]))
    image = nibabel.load(path)
    moved = np.diag([2.0, 2, 4, 1])
    moved[:3, 3] = 5, 6, 7
    image = nibabel.Nifti1Image(values, None, image.header)
    image.set_qform(moved, 1)
    image.set_sform(np.diag([2, 2, 4, 1]), 2)
    nibabel.save(image, path)
    one, other = nibabel.load(path).header, nibabel.load(predicted_map(server, scans, path)).header
    assert (int(other["qform_code"]), int(other["sform_code"])) == (1, 2)
    np.testing.assert_allclose(other.get_qform(), one.get_qform(), atol=1e-5)
    np.testing.assert_allclose(other.get_sform(), one.get_sform(), atol=1e-5)


def test_c_the_map_of_a_tilted_gantry_opens_in_itk(server: Server, scans: Place, tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    tilted = np.diag([2.0, 2, 4, 1])
    tilted[1, 2] = 1.2
    values = np.random.default_rng(0).integers(50, 200, (40, 40, 3)).astype(np.int16)
    path = write_volume(tmp_path / "new" / "flair.nii.gz", values, tilted)
    assert itk.ReadImage(str(predicted_map(server, scans, path))).GetSize() == (40, 40, 3)


def test_c_nan_may_be_background(server: Server, tmp_path: Path) -> None:
    write_volumes(tmp_path / "set", patients=4)
    path = tmp_path / "set" / "p0" / "flair.nii.gz"
    values = nibabel.load(path).get_fdata().astype(np.float32)
    values[:4] = np.nan
    write_volume(path, values, np.diag([2, 2, 4, 1]))
    volumes = Set(server, tmp_path / "set", "fanogan_nifti", **VOLUMES)
    ended = volumes.read()
    assert ended.is_refusal, ended.said
    (remedy,) = re.findall(r"data\.[a-z_.]*nan=[a-z]+", ended.said)
    assert len(volumes.stored(**dict([remedy.split("=")]))) == 4


@pytest.fixture
def dicom(server: Server, tmp_path: Path) -> Set:
    """Ten DICOM series of ten patients."""
    write_series(tmp_path / "set")
    return Set(server, tmp_path / "set", "fanogan_dicom", **SERIES)


SCANS = [f"normal/s{number}" for number in range(6)] + [f"anomalous/s{number}" for number in range(6, 10)]


@pytest.mark.parametrize("storage", [SegmentationStorage, RTDoseStorage, SecondaryCaptureImageStorage])
def test_c_dicom_objects_that_are_no_scans(dicom: Set, storage: str) -> None:
    modality = {SegmentationStorage: "SEG", RTDoseStorage: "RTDOSE"}.get(storage, "OT")
    own = {"PatientID": "P0", "SeriesInstanceUID": "1.2.3.77", "SOPClassUID": storage, "Modality": modality}
    thing = dicom_slice(ct(0)[0], **own)
    thing.file_meta.MediaStorageSOPClassUID = storage
    save(thing, dicom.root / "normal" / "beside" / "thing")
    assert sorted(dicom.stored()) == sorted(SCANS)


@pytest.mark.parametrize("inside", [False, True])
def test_c_dicom_localisers(dicom: Set, inside: bool) -> None:
    uid = "1.2.3.0" if inside else "1.2.3.77"
    own = {"PatientID": "P0", "SeriesInstanceUID": uid, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    topogram = dicom_slice(np.full((90, 70), 1050, np.int16), **own, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    save(topogram, dicom.root / "normal" / ("s0" if inside else "scout") / "topogram")
    assert sorted(dicom.stored()) == sorted(SCANS)


def lookup_table(values: list[int], first: int, bits: int, vr: str = "OW") -> Sequence:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [len(values), first, bits])
    table.add_new("LUTData", vr, np.array(values, f"<u{1 if vr == 'OB' else 2}").tobytes())
    return Sequence([table])


FILMS = {"data.cut": "{label: case}", "data.volume": "null", "data.split.train_normals": 8, "data.modality": "DX"}


def films(server: Server, root: Path, **odd) -> Set:
    """Fourteen films, two of them anomalous: one as it is shown and one as a header says how to show it."""
    for number in range(12):
        own = {"PatientID": f"P{number}", "SeriesInstanceUID": f"1.2.3.{number}"}
        save(chest(np.asarray(noise(number)), **own), root / "normal" / f"{number}.dcm")
    for number, (name, film) in enumerate(odd.items()):
        film.PatientID, film.SeriesInstanceUID = f"Q{number}", f"1.2.5.{number}"
        save(film, root / "anomalous" / f"{name}.dcm")
    return Set(server, root, "fanogan_dicom", **FILMS)


@pytest.mark.parametrize("kind", ["bytes", "signed"])
def test_c_dicom_lookup_tables_of_eight_bits_and_signed_ones(server: Server, tmp_path: Path, kind: str) -> None:
    curve = [value * value // 255 for value in range(256)]
    shown = np.array(curve, np.uint8)[PIXELS]
    if kind == "signed":
        table = lookup_table([value * 257 for value in curve], 2**16 - 128, 16)  # where VR are not written
        odd = chest(PIXELS.astype(np.uint16), VOILUTSequence=table, RescaleSlope=1, RescaleIntercept=-128)
        odd.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    else:
        odd = chest(PIXELS, VOILUTSequence=lookup_table(curve, 0, 8, "OB"))
    stored = films(server, tmp_path / "set", shown=chest(shown), odd=odd).stored()
    (odd_case,), (shown_case,) = ([case for case in stored if word in case] for word in ("odd", "shown"))
    alike(stored, odd_case, shown_case)


def test_c_dicom_pixels_in_the_upper_bits(server: Server, tmp_path: Path) -> None:
    deep = (PIXELS.astype(np.uint16) * 16) + 15
    shown, odd = chest(deep), chest(deep << 4)
    for film, high in ((shown, 11), (odd, 15)):
        film.BitsStored, film.HighBit = 12, high
    stored = films(server, tmp_path / "set", shown=shown, odd=odd).stored_or_refused("odd.dcm")
    if stored is not None:
        (odd_case,), (shown_case,) = ([case for case in stored if word in case] for word in ("odd", "shown"))
        alike(stored, odd_case, shown_case)


def test_c_dicom_a_slice_without_rescale_among_others(dicom: Set) -> None:
    own = {"PatientID": "P0", "SeriesInstanceUID": "1.2.3.0", "StudyInstanceUID": "1.2.4.0"}
    odd = dicom_slice(ct(0)[0], 8.0, **own)
    del odd.RescaleSlope, odd.RescaleIntercept
    save(odd, dicom.root / "normal" / "s0" / "odd")
    ended = dicom.read()
    assert ended.is_refusal, ended.said


def test_c_dicom_a_uid_of_several_patients_is_not_one_volume(dicom: Set) -> None:
    other = [dicom_slice(pixels, 8.0 + 2 * z, PatientID="other") for z, pixels in enumerate(ct(40))]
    for z, piece in enumerate(other):
        piece.SeriesInstanceUID, piece.StudyInstanceUID = "1.2.3.0", "1.2.4.0"
        save(piece, dicom.root / "normal" / "t0" / f"{z}")
    stored = dicom.stored_or_refused("1.2.3.0")
    if stored is not None:
        assert sorted(stored) == sorted([*SCANS, "normal/t0"])
        assert len(stored["normal/s0"][0]) == len(stored["normal/t0"][0])


def test_c_dicom_a_constant_patient_id(dicom: Set) -> None:
    shutil.rmtree(dicom.root)
    write_series(dicom.root, PatientID="ANONYMOUS")
    ended = dicom.read()
    assert "PatientID" in ended.said
    stored = dicom.stored(**{"data.patient": "'*/{patient}'"})
    assert len({row["patient"] for row in rows(stored.folder / "index.csv")}) == 10


def test_c_dicom_two_views_in_one_series(server: Server, tmp_path: Path) -> None:
    own = {"PatientID": "both", "SeriesInstanceUID": "1.2.9", "Modality": "DX"}
    views = films(server, tmp_path / "set", shown=chest(PIXELS))
    for view in ("front", "side"):
        film = chest(np.asarray(noise(len(view))), **own, SOPClassUID=DigitalXRayImageStorageForPresentation)
        save(film, tmp_path / "set" / "anomalous" / "both" / view)
    assert len(views.stored()) == 12 + 1 + 2


def test_c_dicom_without_masks_the_default_names_the_way_out(dicom: Set) -> None:
    del dicom.values["data.cut"]
    ended = dicom.read()
    assert ended.is_refusal, ended.said
    assert "data.cut.label=case" in ended.said


# D. Security


def canary_section(canary: Path) -> dict[str, object]:
    """A section that makes a file when its class is built."""
    return {"_target_": "subprocess.Popen", "args": ["touch", str(canary)]}


@pytest.mark.parametrize(
    ("verb", "section"),
    [
        ("evaluate", "data"), ("evaluate", "detector"), ("predict", "data"), ("predict", "detector"),
        ("resume", "data"), ("resume", "detector"), ("resume", "callbacks.record"),
    ],
)  # fmt: skip
def test_d1_a_received_run_folder_runs_no_code(
    place: Place, new: Path, tmp_path: Path, verb: str, section: str
) -> None:
    run = place.stopped() if verb == "resume" else place.train()
    content = yaml.safe_load((run / "config.yaml").read_text())
    *above, last = section.split(".")
    inner = content[above[0]] if above else content
    inner[last] = canary_section(tmp_path / "canary")
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    place.run(verb, run, *([new] if verb == "predict" else []))
    assert not (tmp_path / "canary").exists()


def test_d1_a_received_experiment_runs_no_code(place: Place, tmp_path: Path) -> None:
    section = yaml.safe_dump(canary_section(tmp_path / "canary"), default_flow_style=True, width=10**6).strip()
    place.run("train", *place.words("fanogan_headct"), f"callbacks.mine={section}")
    assert not (tmp_path / "canary").exists()


def test_d1_a_module_of_the_working_folder_is_not_imported(place: Place, tmp_path: Path) -> None:
    (place.base / "mine.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Thing: pass\n")
    place.run("train", *place.words("fanogan_headct"), "callbacks.record._target_=mine.Thing")
    assert not (tmp_path / "canary").exists()


def test_d1_the_name_of_an_experiment_is_no_path(place: Place) -> None:
    ended = place.run("train", *place.words("fanogan_headct"), "name=../../escaped")
    assert ended.is_refusal, ended.said
    assert not list(place.base.parent.rglob("escaped"))


def claiming(shape: tuple[int, ...], kind: type = nibabel.Nifti1Image) -> bytes:
    """A NIfTI header that promises a shape, and a few bytes behind it."""
    header = kind.header_class()
    header["dim"][: len(shape) + 1] = [len(shape), *shape]
    header["datatype"], header["bitpix"], header["sform_code"] = 4, 16, 1
    header["srow_x"][0] = header["srow_y"][1] = header["srow_z"][2] = 1
    header["vox_offset"] = len(header.binaryblock) + 4
    return header.binaryblock + bytes(4) + bytes(60_000)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("flair.nii", claiming((10_000,) * 3, nibabel.Nifti2Image)),
        ("flair.nii.gz", gzip.compress(claiming((1500,) * 3))),
        ("flair.nii", claiming((2**62, 2**62, 4), nibabel.Nifti2Image)),
    ],
    ids=["10^12 voxels", "1500^3 in 64 kB", "overflow"],
)
def test_d2_a_nifti_header_is_not_believed(server: Server, tmp_path: Path, name: str, content: bytes) -> None:
    write_volumes(tmp_path / "set", patients=4)
    mask = np.ones((40, 40, 3), np.uint8)
    (write_volume(tmp_path / "set" / "odd" / "lesion.nii.gz", mask, np.eye(4)).parent / name).write_bytes(content)
    ended = Set(server, tmp_path / "set", "fanogan_nifti", **VOLUMES).read()
    assert ended.is_refusal, ended.said
    assert f"odd/{name}" in ended.said


@pytest.mark.parametrize("frames", [1_000_000, -4])
def test_d2_a_number_of_frames_is_not_believed(dicom: Set, frames: int) -> None:
    film = dicom_slice(np.zeros((140, 140), np.int16), PatientID="P0", SeriesInstanceUID="1.2.3.50")
    film.NumberOfFrames = frames
    save(film, dicom.root / "normal" / "odd" / "frames")
    ended = dicom.read()
    assert ended.is_refusal, ended.said


def test_d2_a_decoder_s_panic_leaves_one_file_out(dicom: Set) -> None:
    dataset = dicom_slice(ct(0)[0], 8.0, PatientID="P0", SeriesInstanceUID="1.2.3.50")
    dataset.compress(RLELossless, generate_instance_uid=False)
    segment = bytes([127]) + bytes(128)
    segments = (
        segment * 12 + bytes([99]) + bytes(100)
    )  # more bytes than there are pixels: the decoder runs past its end
    length = 64 + len(segments)
    dataset.PixelData = encapsulate([struct.pack("<16I", 2, 64, length, *[0] * 13) + 2 * segments])
    save(dataset, dicom.root / "normal" / "odd" / "panic")
    ended = dicom.read()
    assert ended.is_refusal, ended.said
    assert sorted(dicom.stored(**{"data.store.on_bad": "skip"})) == sorted(SCANS)


def test_d2_names_that_are_not_utf8(pictures: Set) -> None:
    shutil.copy(pictures.root / "odd" / "upright.png", os.fsencode(pictures.root / "odd") + b"/\xff.png")
    ended = pictures.read()
    assert ended.status == 0 or ended.is_refusal, ended.said


def test_d3_tables_hold_no_formulas(server: Server, place: Place) -> None:
    root = place.base / "pictures"
    for folder, count in (("normal", 12), ("=cmd|' _C calc'!A0", 3), ("@odd", 2), ("-1+1", 2), ("+odd", 2)):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            noise(number + 7 * count).save(root / folder / f"{number}.png")
    run = place.train("fanogan_folder", **{"data.root": root})
    ended = place.run("data", *place.words("fanogan_folder", **{"data.root": root}))
    assert ended.status == 0, ended.said
    tables = [run / "scores.csv", place.base / "runs" / "fanogan_folder" / "data" / "manifest.csv"]
    for table in tables:
        cells = [cell for row in csv.reader(table.open(newline="")) for cell in row]
        assert not [cell for cell in cells if cell[:1] in "=+-@" and cell and not is_number(cell)]


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_d3_a_patient_s_key_tells_nothing_of_the_number(server: Server, tmp_path: Path) -> None:
    keys = []
    for name, numbers in (("one", range(10)), ("other", reversed(range(10)))):
        for place, number in enumerate(numbers):
            folder = tmp_path / name / "set" / ("normal" if place < 6 else "anomalous") / f"s{place}"
            own = {"PatientID": f"1234567{number}", "SeriesInstanceUID": f"1.2.{place}"}
            write_dicom_series(folder, ct(place), **own)
        stored = Set(server, tmp_path / name / "set", "fanogan_dicom", **SERIES).stored()
        keys.append({row["case"]: row["patient"] for row in rows(stored.folder / "index.csv")})
    assert keys[0] == keys[1]


def test_d3_wandb_is_not_told_where_it_runs(place: Place) -> None:
    first = "import platform, socket\nsocket.gethostname = platform.node = lambda: 'host-of-the-clinic'\n"
    run = place.train(first=first, **{"callbacks.wandb": None, "callbacks.wandb.mode": "offline"})
    files = [path for path in (run / "wandb").rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        for secret in ("host-of-the-clinic", str(place.base), "pytest=="):
            assert secret.encode() not in content, (path, secret)


# E. Tracebacks and late refusals


DAMAGES = {
    "provenance is a list": lambda run: (run / "provenance.json").write_text("[]"),
    "provenance is torn": lambda run: (run / "provenance.json").write_text('{"budget": '),
    "provenance has other types": lambda run: (run / "provenance.json").write_text('{"data": 3, "seconds": "x"}'),
    "metrics is a list": lambda run: (run / "metrics.json").write_text("[1]"),
    "metrics is torn": lambda run: (run / "metrics.json").write_text('{"threshold": {'),
    "metrics lacks the threshold": lambda run: (run / "metrics.json").write_text('{"detector": {}}'),
    "checkpoint has no weights": lambda run: record_newest(run, sealed(newest_checkpoint(run), dict.clear)),
    "checkpoint is a list of weights": lambda run: record_newest(
        run, sealed(newest_checkpoint(run), lambda content: content.update(state_dict={"x": torch.zeros(1)}))
    ),
}


def record_newest(run: Path, checkpoint: Path) -> None:
    """Have the record name a checkpoint, where records name one."""
    file = run / "provenance.json"
    text = json.loads(file.read_text())
    if not OLD:
        text["checkpoint"]["file"] = checkpoint.name
        file.write_text(json.dumps(text))


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_e_a_damaged_run_folder_is_used_or_refused_in_one_line(
    server: Server, run: Path, new: Path, tmp_path: Path, damage: str
) -> None:
    for verb in ("report", "predict", "evaluate", "resume"):
        copy = Path(shutil.copytree(run, tmp_path / verb / run.name))
        DAMAGES[damage](copy)
        ended = server.run(verb, copy, *([new] if verb == "predict" else []))
        assert ended.status == 0 or ended.is_refusal, (verb, ended.said)


@pytest.mark.parametrize("name", ["scores.csv", "checkpoints/*4-*.ckpt"])
def test_e_a_pipe_in_a_run_folder_keeps_nobody_waiting(server: Server, run: Path, new: Path, name: str) -> None:
    (file,) = run.glob(name)
    file.unlink()
    os.mkfifo(file)
    ended = server.run("predict", run, new, first=LITTLE_MEMORY)
    assert ended.is_refusal, ended.said
    assert file.name in ended.said or file.suffix == ".ckpt", ended.said  # of those the folder is named


@pytest.mark.parametrize(
    ("name", "device"), [("head_ct/head_ct/005.png", ""), ("labels.csv", ""), ("labels.csv", "/dev/zero")]
)
@pytest.mark.parametrize("verb", ["train", "data"])
def test_e_a_pipe_or_device_among_the_data_is_named(place: Place, verb: str, name: str, device: str) -> None:
    file = place.base / "data" / "headct" / name
    file.unlink()
    file.symlink_to(device) if device else os.mkfifo(file)
    ended = place.run(verb, *place.words("fanogan_headct"), first=LITTLE_MEMORY)
    assert ended.is_refusal, ended.said
    assert file.name in ended.said


def test_e_a_pipe_in_the_place_of_a_picture_is_left_out_and_counted(place: Place) -> None:
    file = place.base / "data" / "headct" / "head_ct" / "head_ct" / "005.png"
    file.unlink()
    os.mkfifo(file)
    run = place.train(**{"data.store.on_bad": "skip", "data.split.train_normals": 7})
    (done,) = (place.base / "store").glob("*/done.json")
    assert [Path(entry["file"]).name for entry in json.loads(done.read_text())["skipped"]] == [file.name]
    assert "005" not in {row["id"] for row in rows(run / "scores.csv")}


def spoilt_row(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-512:] = bytes(512)
    path.write_bytes(content)


STORE_DAMAGES = {
    "pixels are zero": lambda store: spoilt_row(store / "images.npy"),
    "done is a list": lambda store: (store / "done.json").write_text("[]"),
    "index is rubbish": lambda store: (store / "index.csv").write_text("x" * (store / "index.csv").stat().st_size),
    "images is no array": lambda store: (store / "images.npy").write_bytes(
        b"x" * (store / "images.npy").stat().st_size
    ),
    "cases is rubbish": lambda store: (store / "cases.jsonl").write_text("x" * (store / "cases.jsonl").stat().st_size),
}


@pytest.mark.parametrize("damage", list(STORE_DAMAGES))
def test_e_a_damaged_store_is_refused_or_built_anew(place: Place, damage: str) -> None:
    run = place.train()
    scores = (run / "scores.csv").read_bytes()
    STORE_DAMAGES[damage](next(path.parent for path in (place.base / "store").glob("*/images.npy")))
    for words in (["train", *place.words("fanogan_headct")], ["data", *place.words("fanogan_headct")]):
        ended = place.run(*words)
        assert ended.status == 0 or ended.is_refusal, ended.said
    for other in set(place.runs()) - {run}:
        assert (other / "scores.csv").read_bytes() == scores


@pytest.mark.parametrize(
    "word",
    [
        "data.augment=[1]", "data.volume=[1]", "budgets=[1]", "callbacks.record=[1]", "seed=-1", "detector.width=0",
        "callbacks.record.every=0", "evaluation.quantile=2", "evaluation.quantile=.nan", "evaluation.replicates=0",
        "detector.gan_iterations=0", "detector.latent_dim=0",
    ],
)  # fmt: skip
def test_e_a_setting_that_cannot_be_is_refused_before_the_training(place: Place, word: str) -> None:
    ended = place.run("train", *place.words("fanogan_headct"), word)
    assert ended.is_refusal, ended.said
    assert not place.runs()


def test_e_a_full_disk_in_training_is_said_in_one_line(place: Place) -> None:
    ended = place.run("train", *place.words("fanogan_headct"), first=fail_in("metrics.jsonl", "ENOSPC"))
    assert ended.is_refusal, ended.said
    assert "No space left" in ended.said


@pytest.mark.parametrize("verb", ["report", "evaluate", "resume"])
def test_e_a_run_folder_that_cannot_be_written_is_said_in_one_line(place: Place, verb: str) -> None:
    run = place.stopped() if verb == "resume" else place.train()
    ended = place.run(verb, run, first=fail_in(run.name, "EROFS"))
    assert ended.is_refusal, ended.said


def test_e_a_full_disk_in_a_prediction_is_not_the_store_s(server: Server, run: Path, new: Path, tmp_path: Path) -> None:
    ended = server.run("predict", run, new, "--out", tmp_path / "out", first=fail_in("/out", "ENOSPC"))
    assert ended.is_refusal, ended.said
    assert "store" not in ended.said


def test_e_two_makes_at_once_set_up_once(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(TREE / name, tmp_path)
    stub = tmp_path / "python"
    stub.write_text(
        '#!/bin/sh\ncase "$1 $2" in\n'
        '  "-m venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo venv >> log;;\n'
        '  "-m pip") sleep 0.3;;\n'
        f'  *) exec {sys.executable} "$@";;\nesac\n'
    )
    stub.chmod(0o755)
    words = ["make", "setup", f"PYTHON={stub}"]
    both = [subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert (tmp_path / "log").read_text().split() == ["venv"]
