"""A run goes on with its own data, split and checkpoints, or refuses in one line."""

import io
import json
import shutil
from pathlib import Path

import fuzzing
import numpy as np
import pytest
import torch
from data.conftest import write_headct
from PIL import Image
from pipeline.conftest import settings

from anomaly_lab.experiment import checkpoint_files, run_folder
from anomaly_lab.pipeline import engine, run_commands
from anomaly_lab.pipeline.identity import DataAsked
from anomaly_lab.pipeline.scorer import Scorer
from anomaly_lab.types import UserError

SMALL = ("detector.gan_iterations=2", "detector.encoder_iterations=2", "data.epoch_length=2", "detector.n_critic=1",
         "callbacks.wandb=null", "evaluation.replicates=20", "trainer.precision=32-true")  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder around a finished run on thirteen pictures: headct, runs, store."""
    base = tmp_path_factory.mktemp("trained")
    write_headct(base / "headct")
    engine.train(settings(base, *SMALL))
    return base


@pytest.fixture
def base(trained: Path, tmp_path: Path) -> Path:
    """A copy of it in which the run believes to lie where it was made."""
    shutil.copytree(trained, tmp_path / "copy")
    run = the_run(tmp_path / "copy")
    for name in ("config.yaml", "provenance.json"):
        content = (run / name).read_text().replace(str(trained), str(tmp_path / "copy"))
        (run / name).write_text(content)
    return tmp_path / "copy"


def the_run(base: Path) -> Path:
    (run,) = (base / "runs" / "fanogan_headct").iterdir()
    return run


def files(run: Path) -> dict[str, bytes]:
    """Content of the record and the report."""
    names = (
        "scores.csv",
        "metrics.json",
        "provenance.json",
        "config.yaml",
        "report.html",
        "metrics.jsonl",
        "split.csv",
    )
    return {name: (run / name).read_bytes() for name in names}


def facts(run: Path) -> dict[str, object]:
    return run_folder.read_json(run / "provenance.json")


def refused(run: Path, message: str, **words: object) -> None:
    """Evaluate says no in one line and touches nothing."""
    before = files(run)
    with pytest.raises(UserError, match=message) as said:
        run_commands.evaluate(str(run), **words)
    assert "\n" not in str(said.value)
    assert files(run) == before


def add_pictures(root: Path, count: int) -> None:
    """Further normal pictures, which a split drawn anew would train on."""
    with (root / "labels.csv").open("a") as table:
        for number in range(13, 13 + count):
            pixels = np.random.default_rng(number).integers(0, 256, (20, 18), np.uint8)
            Image.fromarray(pixels).save(root / "head_ct" / "head_ct" / f"{number:03d}.png")
            table.write(f"{number},0\n")


def test_the_record_knows_source_root_and_split(base: Path) -> None:
    recorded = facts(the_run(base))
    assert recorded["source"] == "real"
    assert recorded["data"]["root"] == str(base / "headct")
    assert Path(recorded["data"]["root"]).is_absolute()
    split = (the_run(base) / "split.csv").read_text().splitlines()
    assert split[0] == "id,case,split,digest"
    assert len(split) == 14


def test_an_unmounted_disk_is_no_twin(base: Path) -> None:
    (base / "headct").rename(base / "away")
    run = the_run(base)
    refused(run, r"headct: the real files that .* was trained on are not there.*--data-root DIR")
    scores = (run / "scores.csv").read_bytes()
    run_commands.evaluate(str(run), asked=DataAsked(root=str(base / "away")))
    assert (run / "scores.csv").read_bytes() == scores
    assert facts(run)["data"]["root"] == str(base / "away")
    run_commands.evaluate(str(run))  # the new place is remembered
    assert facts(run)["source"] == "real"


def test_a_relative_root_means_the_same_from_another_folder(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base)
    run = engine.train(settings(base, *SMALL, "data.root=headct", "runs=relative"))
    scores = (run / "scores.csv").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run_commands.evaluate(str(base / run))
    assert (base / run / "scores.csv").read_bytes() == scores


def test_another_folder_is_not_the_same_data(base: Path) -> None:
    write_headct(base / "other", normal=11)
    refused(the_run(base), "1 added", asked=DataAsked(root=str(base / "other")))


def test_a_run_on_a_twin_stays_one_when_real_files_appear(base: Path, tmp_path: Path) -> None:
    run = engine.train(settings(tmp_path, *SMALL, "data.source=twin", "data.twin.size=24"))
    write_headct(tmp_path / "headct")
    scores = (run / "scores.csv").read_bytes()
    run_commands.evaluate(str(run))
    assert (run / "scores.csv").read_bytes() == scores
    refused(run, "synthetic twin", asked=DataAsked(root=str(base / "headct")))


def test_added_pictures_are_refused_or_counted_and_never_used(base: Path) -> None:
    run = the_run(base)
    add_pictures(base / "headct", 12)
    refused(run, r"12 added \(013, …\)")
    before = (run / "scores.csv").read_bytes()
    run_commands.evaluate(str(run), asked=DataAsked(accept_changes=True))
    assert (run / "scores.csv").read_bytes() == before
    (entry,) = facts(run)["accepted_changes"]
    assert (entry["verb"], entry["changes"], entry["named"]) == ("evaluate", "12 added", "12 added (013, …)")
    run_folder.update_provenance(run, finished=None)  # as if killed in its evaluation, with nothing left to train
    engine.resume(str(run), asked=DataAsked(accept_changes=True))
    (entry,) = facts(run)["accepted_changes"]
    assert entry["verb"] == "evaluate"
    assert "12 added (013, …)" in (run / "report.html").read_text()
    run_commands.report(str(run))
    assert "Changed data" in (run / "report.html").read_text()
    shutil.rmtree(base / "headct")
    write_headct(base / "headct")
    run_commands.evaluate(str(run))  # of the files as they were: nothing is to be said of these results
    assert facts(run)["accepted_changes"] == []
    assert "Changed data" not in (run / "report.html").read_text()


def test_a_stopped_run_goes_on_with_the_split_it_began_with(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = (the_run(base) / "scores.csv").read_bytes()
    shutil.rmtree(base / "runs")

    def stop(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "evaluate_run", stop)
        with pytest.raises(RuntimeError):
            engine.train(settings(base, *SMALL))
    run = the_run(base)
    add_pictures(base / "headct", 12)
    with pytest.raises(UserError, match="12 added"):
        engine.resume(str(run))
    assert "resumed" not in facts(run)
    engine.resume(str(run), asked=DataAsked(accept_changes=True))
    assert (run / "scores.csv").read_bytes() == scores
    assert "resumed" in (run / "report.html").read_text()


def test_a_damaged_last_checkpoint_is_not_replaced_in_silence(base: Path) -> None:
    run = the_run(base)
    newest, older = checkpoint_files.by_age(run / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    refused(run, rf"{newest.name} is damaged .*CHECKPOINT={older.name}")
    with pytest.raises(UserError, match="is damaged"):
        Scorer.open(run)
    newest.unlink()
    refused(run, rf"the checkpoint of its result.* is not there.*CHECKPOINT={older.name}|{newest.name} is not there")


def test_an_older_checkpoint_is_taken_only_if_asked_for_and_said(trained: Path, tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    lengths = ["detector.encoder_iterations=4", *(word for word in SMALL if "encoder_iterations" not in word)]
    run = engine.train(settings(tmp_path, *lengths))
    newest, older = checkpoint_files.by_age(run / "checkpoints")
    scores = (run / "scores.csv").read_bytes()
    refused(run, "no such intact checkpoint; there are: 00000006", checkpoint="99")
    run_commands.evaluate(str(run), checkpoint=older.name[:8])
    assert (run / "scores.csv").read_bytes() != scores
    assert facts(run)["checkpoint"]["file"] == older.name
    assert facts(run)["checkpoint"]["rule"] == "asked for"
    assert "Not the last checkpoint" in (run / "report.html").read_text()
    run_commands.evaluate(str(run), checkpoint=newest.name)
    assert (run / "scores.csv").read_bytes() == scores
    assert "Not the last checkpoint" not in (run / "report.html").read_text()


def test_another_runs_checkpoint_is_refused(base: Path, tmp_path: Path) -> None:
    run = the_run(base)
    other = engine.train(settings(base, *SMALL, "seed=1", f"runs={tmp_path / 'others'}"))
    for own in checkpoint_files.by_age(run / "checkpoints"):
        own.unlink()
    (foreign, *_) = checkpoint_files.by_age(other / "checkpoints")
    shutil.copy(foreign, run / "checkpoints")
    recorded = facts(run)
    del recorded["checkpoint"]["file"]  # as if it named none
    run_folder.write_json(run / "provenance.json", recorded)
    refused(run, "was written by another run")


def test_settings_of_the_evaluation_may_change_and_are_kept(base: Path) -> None:
    run = the_run(base)
    weights = [path.name for path in checkpoint_files.by_age(run / "checkpoints")]
    run_commands.evaluate(str(run), ["evaluation.quantile=.5", "evaluation.replicates=10"])
    metrics = json.loads((run / "metrics.json").read_text())
    assert "0.5 quantile" in str(metrics["threshold"]) or metrics["threshold"]["quantile"] == 0.5
    assert metrics["bootstrap"]["replicates"] == 10
    assert [path.name for path in checkpoint_files.by_age(run / "checkpoints")] == weights
    (entry,) = facts(run)["evaluated"]
    assert entry["changed"]["purpose"] == {"from": "rule_in", "to": 0.5}
    run_commands.evaluate(str(run))  # now they are the run's
    assert json.loads((run / "metrics.json").read_text()) == metrics


@pytest.mark.parametrize(
    ("verb", "word", "message"),
    [
        ("evaluate", "detector.width=8", "detector.width cannot be changed"),
        ("evaluate", "data.split.fold=1", "data.split.fold cannot be changed"),
        ("evaluate", "evaluation.purpos=.9", "Did you mean: 'purpose'"),
        ("evaluate", "evaluation.quantile=2", "evaluation.purpose=2"),
        ("resume", "data.batch_size=2", "data.batch_size cannot be changed"),
        ("resume", "evaluation.quantile=.9", "evaluation.purpose cannot be changed"),
        (
            "resume",
            "callbacks.fakepool={_target_: anomaly_lab.callbacks.fakepool.FakePool}",
            "may change the run's scores",
        ),
    ],
)
def test_what_cannot_be_changed_is_refused_by_name(base: Path, verb: str, word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        getattr(engine if verb == "resume" else run_commands, verb)(str(the_run(base)), [word])


def test_a_warm_start_from_a_run_that_saw_the_test_pictures_is_refused(base: Path) -> None:
    run = the_run(base)
    start = f"start_from={run}"
    with pytest.raises(UserError, match=r"was trained on \d of the cases this one is tested on .*same seed"):
        engine.train(settings(base, *SMALL, start, "seed=1", f"runs={base / 'leaky'}"))
    with pytest.raises(UserError, match=r"was trained on \d of the cases"):  # the same files, made into other pixels
        engine.train(settings(base, *SMALL, start, "seed=1", "data.picture.fit=stretch", f"runs={base / 'leaky'}"))
    assert not (base / "leaky").exists()
    engine.train(settings(base, *SMALL, start, f"runs={base / 'fine'}"))


def test_a_warm_start_from_a_run_that_saw_the_validation_normals_has_a_caveat(base: Path) -> None:
    run = the_run(base)
    words = (*SMALL, f"start_from={run}", f"runs={base / 'started'}")
    other = engine.train(settings(base, *words))
    assert not any("start_from" in caveat for caveat in facts(other)["detector"]["caveats"])
    split = run / "split.csv"
    normals = split.read_text().count(",val,")
    assert normals > 1
    split.write_text(split.read_text().replace(",val,", ",train,", 1))  # as of another seed, the test split being given
    started = engine.train(settings(base, *words))
    (caveat,) = (caveat for caveat in facts(started)["detector"]["caveats"] if "start_from" in caveat)
    assert f"trained on 1 of its {normals} validation normals" in caveat
    assert "validation normals, so that these score lower than new normals" in (started / "report.html").read_text()


def test_a_warm_start_goes_by_content_where_names_mean_other_pictures(base: Path) -> None:
    start, other = f"start_from={the_run(base)}", base / "renamed"
    shutil.copytree(base / "headct", other)
    pictures = sorted((other / "head_ct" / "head_ct").iterdir())
    contents = [path.read_bytes() for path in pictures]
    for number, path in enumerate(pictures[3:]):  # every normal has the name of its neighbour
        path.write_bytes(contents[3 + (number + 1) % 10])
    words = (*SMALL, start, f"runs={base / 'others'}", f"data.root={other}")
    with pytest.raises(UserError, match=r"was trained on \d of the cases this one is tested on"):
        engine.train(settings(base, *words))
    for path in pictures:  # the same names, none of the pictures
        pixels = np.random.default_rng(int(path.stem) + 100).integers(0, 256, (20, 18), np.uint8)
        Image.fromarray(pixels).save(path)
    engine.train(settings(base, *words, "seed=1"))


def test_a_finished_run_without_its_report_is_completed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = the_run(base)
    with pytest.raises(UserError, match="is finished, there is nothing to resume"):
        engine.resume(str(run))
    scores = (run / "scores.csv").read_bytes()
    (run / "report.html").unlink()
    engine.resume(str(run))
    assert (run / "report.html").exists()
    assert (run / "scores.csv").read_bytes() == scores


def test_finished_is_the_last_thing_written(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(base / "runs")

    def stop(*_: object) -> Path:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(run_commands, "write_report", stop)
        with pytest.raises(RuntimeError):
            engine.train(settings(base, *SMALL))
    run = the_run(base)
    assert "finished" not in facts(run)
    engine.resume(str(run))
    assert "Unfinished" not in (run / "report.html").read_text()
    assert facts(run)["finished"]


@pytest.mark.parametrize("part", ["optimizer_states", "loops", "callbacks", "state_dict"])
@pytest.mark.parametrize("value", [None, 3, [{"x": 1}]])
def test_a_checkpoint_of_right_digest_and_wrong_content_is_blamed(base: Path, part: str, value: object) -> None:
    run = the_run(base)
    known = {key: kept for key, kept in facts(run).items() if key not in ("finished", "checkpoint")}
    run_folder.write_json(run / "provenance.json", known)
    newest = checkpoint_files.by_age(run / "checkpoints")[0]
    content = io.BytesIO()
    torch.save(checkpoint_files.load(newest) | {part: value}, content)
    fuzzing.write_checkpoint(newest, content.getvalue())
    with pytest.raises(UserError, match=r"\.ckpt .*delete it") as said:
        engine.resume(str(run))
    assert "\n" not in str(said.value)
