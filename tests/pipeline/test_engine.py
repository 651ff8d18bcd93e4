"""The engine's promises before and around a training: nothing is left behind when it cannot start."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from data.conftest import write_headct
from PIL import Image
from pipeline.conftest import settings, words

from anomaly_lab.callbacks.mirror import Mirror
from anomaly_lab.callbacks.record import Record
from anomaly_lab.detectors.fanogan import FAnoGAN
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import run_folder
from anomaly_lab.pipeline import engine
from anomaly_lab.pipeline.training import construct
from anomaly_lab.types import Stopped, UserError


def remove_labels(root: Path) -> None:
    (root / "labels.csv").unlink()


def truncate(root: Path) -> None:
    picture = root / "head_ct" / "head_ct" / "004.png"
    picture.write_bytes(picture.read_bytes()[:60])


def empty(root: Path) -> None:
    for picture in root.rglob("*.png"):
        picture.unlink()


@pytest.mark.parametrize(
    ("damage", "overrides", "message"),
    [
        (remove_labels, [], "labels.csv"),
        (truncate, [], "004.png"),
        (empty, [], "no pictures"),
        (None, ["data.batch_size=7"], "data.batch_size=7: only 6 normals train"),
        (None, ["data.split.file=nowhere.csv"], "nowhere.csv"),
        (None, ["data.root=nowhere", "data.source=real"], "nowhere: no such folder"),
    ],
)
def test_data_that_cannot_be_used_leave_nothing(tmp_path: Path, damage, overrides: list[str], message: str) -> None:
    root = write_headct(tmp_path / "headct")
    if damage:
        damage(root)
    with pytest.raises(UserError, match=message) as said:
        engine.train(settings(tmp_path, *overrides))
    assert "\n" not in str(said.value)
    assert not (tmp_path / "runs").exists()
    store = tmp_path / "store"
    left = [path for path in store.rglob("*") if path.is_file() and path.suffix != ".lock"] if store.exists() else []
    assert damage is None or left == []


@pytest.mark.parametrize(
    ("callback", "overrides", "message"),
    [
        ("best_validation.BestValidation", (), "FAnoGAN gives no class probabilities"),
        ("best_test_epoch.BestTestEpoch", ("data.split.val_fraction=0",), "needs validation normals and test images"),
        ("fakepool.FakePool", (), "KDE cannot generate images"),
        ("fakepool.FakePool", ("callbacks.record=null",), "without it no curve is kept"),
    ],
)
def test_callbacks_that_cannot_take_part_leave_nothing(
    tmp_path: Path, callback: str, overrides: tuple[str, ...], message: str
) -> None:
    write_headct(tmp_path / "headct")
    words = [f"callbacks.it={{_target_: anomaly_lab.callbacks.{callback}}}", *overrides]
    asked = settings(tmp_path, *words)
    if "KDE" in message:
        asked.detector = {"_target_": "anomaly_lab.detectors.kde.KDE", "patch_size": asked.detector.patch_size}
    with pytest.raises(UserError, match=message) as said:
        engine.train(asked)
    assert "\n" not in str(said.value)
    assert not (tmp_path / "runs").exists()


def test_callbacks_are_told_that_a_run_has_stopped(asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Path] = []
    monkeypatch.setattr(Record, "on_run_stopped", lambda self, run: told.append(run))
    with monkeypatch.context() as patch:
        patch.setattr(FAnoGAN, "encoder_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            asked("data.epoch_length=3")
        assert told == [tmp_path / "run"]
        with pytest.raises(ZeroDivisionError):
            engine.resume(str(tmp_path / "run"))
    assert told == [tmp_path / "run"] * 2
    engine.resume(str(tmp_path / "run"))
    assert len(told) == 2


def test_a_run_that_goes_back_into_its_queue_waits_for_no_dashboard(tmp_path: Path, monkeypatch) -> None:
    told: list[Path] = []
    monkeypatch.setattr(Record, "on_run_stopped", lambda self, run: told.append(run))
    work = SimpleNamespace(callbacks=[Record()], run=tmp_path)
    for kind, expected in ((None, 0), (Stopped, 0), (KeyboardInterrupt, 1)):
        engine._release(work, kind)  # type: ignore[arg-type]
        assert len(told) == expected


def test_dashboards_come_after_those_whose_pictures_they_show(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    asked = settings(tmp_path, "callbacks.it={_target_: anomaly_lab.callbacks.best_test_epoch.BestTestEpoch}")
    data, detector = construct(asked)
    data.prepare_data()
    data.setup()
    kinds = [isinstance(callback, Mirror) for callback in engine._callbacks(asked, data, detector)]
    assert kinds == sorted(kinds)
    assert kinds[-1]
    assert len(kinds) == len(asked.callbacks)


BARE = (
    "callbacks.wandb=null",
    "detector.gan_iterations=3",
    "detector.encoder_iterations=2",
    "evaluation.replicates=20",
)


@pytest.fixture
def asked(tmp_path: Path):
    """Train by name into `run`, with files and settings of a small test."""
    write_headct(tmp_path / "headct")
    small = [*words(tmp_path), *BARE]
    return lambda *more: engine.train_by_name("fanogan_headct", [*small, *more], str(tmp_path / "run"))


def test_the_same_command_begins_continues_and_leaves_a_run(
    asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "evaluate_run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            asked()
    assert run_folder.read_json(run / "provenance.json")["run"] == "run"
    assert not (run / "report.html").exists()
    assert asked() == run
    assert "resuming" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert asked() == run
    assert f"{run} is finished" in capsys.readouterr().err.replace("\n", "")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    with pytest.raises(UserError, match=r"is a run with detector.gan_iterations=3, not 4; name another folder"):
        asked("detector.gan_iterations=4")
    with pytest.raises(UserError, match=r"is a run with start_from=None, not runs/other"):
        asked("start_from=runs/other")


def test_without_test_cases_nothing_is_trained_and_nothing_left(tmp_path: Path) -> None:
    """Such a run could not be judged in the end; it can be tuned, which looks at no test case."""
    for name in (*(f"train/normal/{i}" for i in range(8)), "val/normal/8", "val/hole/9"):
        path = tmp_path / "kaggle" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng().integers(0, 255, (32, 32)).astype(np.uint8)).save(path)
    places = [f"{key}={tmp_path / name}" for key, name in (("data.root", "kaggle"), ("runs", "runs"))]
    places.append(f"data.store.folder={tmp_path / 'store'}")
    config = configuration.load("pca_folder", ["budget=smoke", "data.batch_size=4", "callbacks.wandb=null", *places])
    with pytest.raises(UserError, match="no case is in the split test"):
        engine.train(config)
    assert not (tmp_path / "runs").exists()
    assert engine.train(config, watchers=[]).is_dir()


def test_a_start_of_the_same_name_is_another_run(tmp_path: Path) -> None:
    """Runs of several seeds are often called alike, such as `night`; a run that was moved is still the same."""
    run = tmp_path / "run"
    for folder, identity in ((run, "new"), (tmp_path / "wgan_0" / "night", "a"), (tmp_path / "wgan_7" / "night", "b")):
        folder.mkdir(parents=True)
        run_folder.write_json(folder / "provenance.json", {"id": identity})
    begun = str(tmp_path / "wgan_0" / "night")
    run_folder.update_provenance(run, started_from={"id": "a"})
    assert not engine._is_another_start(run, begun, begun)
    assert engine._is_another_start(run, begun, str(tmp_path / "wgan_7" / "night"))
    (tmp_path / "wgan_0" / "night").rename(tmp_path / "moved")
    assert not engine._is_another_start(run, begun, str(tmp_path / "moved"))
    assert not engine._is_another_start(run, begun, begun)  # not there: by its name
    assert engine._is_another_start(run, begun, "elsewhere/wgan_3/night")
    assert engine._is_another_start(run, begun, None)
    assert engine._is_another_start(run, None, begun)
    assert not engine._is_another_start(run, None, None)
    assert not engine._is_another_start(run, None, "")  # `start_from=` is none


def test_the_same_command_on_other_data_is_refused(asked, tmp_path: Path) -> None:
    run = asked()
    shutil.copytree(tmp_path / "headct", tmp_path / "other")
    for finished in (True, False):
        if not finished:
            (run / "report.html").unlink()
        for word in (f"data.root={tmp_path / 'other'}", "data.source=twin"):
            with pytest.raises(UserError, match=r"is a run on the files in .*headct, not on .*name another folder"):
                asked(word)
    (tmp_path / "link").symlink_to(tmp_path / "headct")
    assert asked(f"data.root={tmp_path / 'link'}") == run
    (tmp_path / "headct").rename(tmp_path / "unmounted")
    assert asked() == run  # finished, it needs no data


def test_the_same_command_with_another_split_is_refused(asked, tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    rows = [f"{i:03d},{'test' if i < 4 else 'val' if i < 6 else 'train'}" for i in range(13)]
    split.write_text("\n".join(["id,split", *rows]))
    word = f"data.split.file={split}"
    run = asked(word)
    assert asked(word) == run
    rows[5], rows[6] = "005,train", "006,val"
    split.write_text("\n".join(["id,split", *rows]))
    for finished in (True, False):
        if not finished:
            (run / "report.html").unlink()
        with pytest.raises(UserError, match=r"is a run with another split, .* than .*headct has now; name another"):
            asked(word)


def test_a_folder_that_holds_something_else_is_refused_before_anything_is_read(asked, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(UserError, match="exists and is not a run folder"):
        asked()
    assert not (tmp_path / "store").exists()


def test_an_empty_folder_is_trained_into(asked, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert (asked() / "report.html").exists()


@pytest.mark.parametrize("parts", [1, 2])
def test_another_number_of_processes_is_refused_only_where_it_trains_something_else(
    asked, tmp_path: Path, parts: int
) -> None:
    """Batch norm of parts of a mini-batch sees other parts; that of a whole one is that of all processes."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "evaluate_run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            asked(f"trainer.accumulate_grad_batches={parts}")
    run_folder.update_provenance(run, world_size=2)
    if parts > 1:
        with pytest.raises(UserError, match=r"couples the images .*trainer\.devices=2, or say trainer\.devices=1"):
            engine.resume(str(run))
        assert "resumed" not in run_folder.read_json(run / "provenance.json")
    engine.resume(str(run), ["trainer.devices=1"] if parts > 1 else [])
    caveats = run_folder.read_json(run / "provenance.json")["detector"].get("caveats", [])
    assert any("another number of processes" in caveat for caveat in caveats) == (parts > 1)


def test_a_training_begun_anew_with_other_code_is_of_that_code(asked, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FAnoGAN, "gan_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            asked()
    code = run_folder.read_json(run / "provenance.json")["code"]
    run_folder.update_provenance(run, code=code | {"training": "0123456789abcdef"})
    engine.resume(str(run))
    facts = run_folder.read_json(run / "provenance.json")
    assert facts["code"]["training"] == code["training"]
    assert not any("other code" in caveat for caveat in facts["detector"]["caveats"])


@pytest.mark.parametrize("changed", [False, True])
def test_a_training_that_goes_on_with_other_code_is_said_to_be_of_two(asked, tmp_path: Path, changed: bool) -> None:
    """Its fingerprint is that of neither, so that no study takes it for a run of the present code."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FAnoGAN, "encoder_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            asked("data.epoch_length=3")  # a checkpoint at the end of the first phase
    code = run_folder.read_json(run / "provenance.json")["code"]
    begun = "0123456789abcdef" if changed else code["training"]
    run_folder.update_provenance(run, code=code | {"training": begun})
    engine.resume(str(run))
    facts = run_folder.read_json(run / "provenance.json")
    assert facts["code"]["training"] == (f"{begun} {code['training']}" if changed else begun)
    said = [caveat for caveat in facts["detector"]["caveats"] if "resumed with other code" in caveat]
    assert len(said) == changed
    assert ("resumed with other code" in (run / "report.html").read_text()) == changed


@pytest.mark.parametrize(("budget", "estimated"), [("smoke", None), ("laptop", "paper"), ("paper", "paper")])
def test_the_cost_of_the_published_length_is_estimated_unless_nobody_asks(
    budget: str, estimated: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(engine, "train", lambda config, paper, *_: asked.append(paper and paper.budget))
    engine.train_by_name("fanogan_headct", [f"budget={budget}"])
    assert asked == [estimated]
