"""Runs are judged by new rules without training: from their recorded scores, and a folder of them in one go."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from data.conftest import write_headct
from pipeline.conftest import settings
from reports.conftest import fake_run, labelled_run  # noqa: F401
from typer.testing import CliRunner

from anomaly_lab.__main__ import INCOMPLETE, app
from anomaly_lab.callbacks.mirror import caveats_of
from anomaly_lab.evaluation.protocol import CAVEATS
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment import run_folder
from anomaly_lab.experiment.config import Evaluation
from anomaly_lab.pipeline import engine, reevaluate, run_commands
from anomaly_lab.pipeline.reevaluate import TABLE, evaluate_recorded, figures_of, runs_below, source_of
from anomaly_lab.pipeline.scorer import Scorer
from anomaly_lab.reports.gallery import read_gallery
from anomaly_lab.types import UserError

SMALL = ("callbacks.wandb=null", "evaluation.replicates=20")
RECORDED = ["scores=recorded", "evaluation.replicates=20"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on pictures that are gone."""
    base = tmp_path_factory.mktemp("trained")
    write_headct(base / "headct")
    lengths = ("detector.gan_iterations=2", "detector.encoder_iterations=2", "data.epoch_length=2")
    run = engine.train(settings(base, *SMALL, *lengths, "detector.n_critic=1"))
    shutil.rmtree(base / "headct")
    shutil.rmtree(base / "store", ignore_errors=True)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs" / "toy" / "one"))


def metrics_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def test_without_its_data_a_run_is_judged_by_its_scores(run: Path) -> None:
    before, scores = metrics_of(run), Scores.read(run / "scores.csv")
    checkpoints = sorted(path.name for path in (run / "checkpoints").iterdir())
    with pytest.raises(UserError):
        run_commands.evaluate(str(run), ["evaluation.purpose=.2"])
    run_commands.evaluate(str(run), [*RECORDED, "evaluation.purpose=.2"])
    now, facts = metrics_of(run), run_folder.read_json(run / "provenance.json")
    for key in ("detector", "versus_baselines"):
        assert now[key].get("auroc") == before[key].get("auroc")
    assert now["threshold"]["quantile"] == 0.2
    assert now["threshold"]["value"] < before["threshold"]["value"]
    assert now["pixels"] == before["pixels"]
    again = Scores.read(run / "scores.csv")
    assert (again.id, again.score.tolist()) == (scores.id, scores.score.tolist())
    (entry,) = facts["evaluated"]
    assert (entry["scores"], entry["changed"]["purpose"]["to"]) == ("recorded", 0.2)
    assert entry["before"]["threshold"] == before["threshold"]["value"]
    assert facts["code"]["evaluation"] == ""  # of no code: a study evaluates it again, with its data
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == checkpoints
    assert ".20 of new normals below it" in (run / "report.html").read_text()


def test_a_picture_is_listed_under_the_outcome_that_it_has_now(run: Path) -> None:
    run_commands.evaluate(str(run), [*RECORDED, "evaluation.purpose=.1"])
    rows = {row["id"]: row for row in csv.DictReader((run / "scores.csv").open())}
    gallery = read_gallery(run)
    shown = [(rows[id], kind) for id, kind in zip(gallery["id"], gallery["kind"], strict=True) if kind != "fixed"]
    assert shown
    for row, kind in shown:
        assert kind == reevaluate.OUTCOMES[int(row["label"]), row["pred_label"] == "1"]


def test_cards_follow_an_evaluation(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card, checklist = run_commands.card(str(run))
    checklist.write_text(checklist.read_text() + "Our notes.\n")
    before = card.read_text()
    run_commands.evaluate(str(run), [*RECORDED, "evaluation.purpose=.2"])
    assert card.read_text() != before
    assert ".20 of new normals below it" in card.read_text()
    said = " ".join("".join(capsys.readouterr()).split())
    assert "claim.md, edited or by an older version, is of the run as it was; make card" in said
    assert checklist.read_text().endswith("Our notes.\n")
    assert run_commands.evaluate_all(str(run.parent), [*RECORDED, "evaluation.purpose=.8"])
    assert ".80 of new normals below it" in card.read_text()


def test_the_caveats_are_those_of_the_rule_that_sets_the_threshold_now(run: Path) -> None:
    others = caveats_of(run)
    for rule in ("test_max_f1", "test_min_max", "test_min_max", "normal_quantile"):
        run_commands.evaluate(str(run), [*RECORDED, f"evaluation.threshold={rule}"])
        assert caveats_of(run) == (*others, *([CAVEATS[rule]] if rule in CAVEATS else []))
        assert metrics_of(run)["threshold"]["uses_test"] == (rule in CAVEATS)
        shown = (run / "report.html").read_text()
        assert [name for name, caveat in CAVEATS.items() if caveat in shown] == [rule] * (rule in CAVEATS)
    facts = run_folder.read_json(run / "provenance.json")["detector"]  # as of a run begun with the switch
    run_folder.update_provenance(run, detector=facts | {"caveats": ["evaluation.threshold=test_max_f1: old", "x"]})
    run_commands.evaluate(str(run), RECORDED)
    assert run_folder.read_json(run / "provenance.json")["detector"] == facts | {"caveats": ["x"]}


def test_evaluating_twice_is_evaluating_once(run: Path) -> None:
    run_commands.evaluate(str(run), [*RECORDED, "evaluation.purpose=screening"])
    once = metrics_of(run), (run / "scores.csv").read_bytes()
    run_commands.evaluate(str(run), ["scores=recorded"])
    assert (metrics_of(run), (run / "scores.csv").read_bytes()) == once
    assert once[0]["threshold"]["purpose"] == "screening"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluation.case_score=max"], "evaluation.case_score=max: the recorded scores are those of case_score=none"),
        (["evaluation.top_k=3"], "evaluation.top_k=3"),
        (["detector.width=8"], "detector.width cannot be changed"),
        (["scores=new"], "scores=new: takes anew"),
        (["evaluation.planted=true"], "evaluation.planted=true: the recorded scores are those of planted=false"),
        (["evaluation.feature_baselines=always"], "evaluation.feature_baselines=always: .* needs the model"),
        (["evaluation.reference=crossfit"], "evaluation.reference=crossfit"),
        (["score.from=map"], "score: the recorded scores are of other settings"),
        (["trainer.accelerator=cpu"], "trainer.accelerator=cpu: scores=recorded scores nothing"),
        (["data.store.num_workers=1"], "data.store.num_workers=1: scores=recorded scores nothing"),
    ],
)
def test_what_recorded_scores_cannot_say_is_refused(run: Path, words: list[str], message: str) -> None:
    before = {path: path.read_bytes() for path in run.glob("*.*") if path.is_file()}
    with pytest.raises(UserError, match=message):
        run_commands.evaluate(str(run), [*RECORDED, *words])
    assert {path: path.read_bytes() for path in run.glob("*.*") if path.is_file()} == before


@pytest.mark.parametrize("word", ["score.smooth=2", "score.features=true", "score.sign=bright"])
def test_an_evaluation_refuses_what_a_training_refuses(run: Path, word: str) -> None:
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(UserError, match=r"no effect on the score; set score\.from=map"):
        run_commands.evaluate(str(run), [word])
    assert (run / "config.yaml").read_bytes() == before


def test_a_checkpoint_or_data_are_not_asked_for(run: Path) -> None:
    with pytest.raises(UserError, match="asks neither data nor a checkpoint"):
        run_commands.evaluate(str(run), RECORDED, checkpoint="0")
    (run / "metrics.json").unlink()
    with pytest.raises(UserError, match="was never evaluated"):
        run_commands.evaluate(str(run), RECORDED)


def test_the_last_source_counts_and_the_rest_stays() -> None:
    assert source_of(["a=1", "scores=recorded", 'scores="anew"', "b=2"]) == ("anew", ["a=1", "b=2"])


@pytest.fixture
def folder(run: Path) -> Path:
    """A folder of five: two that can be judged, one damaged, one that was never evaluated, and what is no run."""
    place = run.parent
    for name in ("two", "damaged", "unfinished"):
        shutil.copytree(run, place / name)
    (place / "damaged" / "scores.csv").write_text("id,score\n")
    (place / "unfinished" / "metrics.json").unlink()
    run_folder.update_provenance(place / "unfinished", finished=None)
    (place / ".hidden").mkdir()
    shutil.copytree(run, place / ".hidden" / "making")
    (place / "notes").mkdir()
    return place.parent


def test_a_folder_of_runs_goes_on_after_one_that_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["damaged", "one", "two", "unfinished"]
    assert [path.name for path in runs_below(folder)] == names
    before = figures_of(folder / "toy" / "one")
    assert not run_commands.evaluate_all(str(folder), [*RECORDED, "evaluation.purpose=.2"])
    rows = list(csv.DictReader((folder / TABLE).open()))
    assert [row["run"] for row in rows] == [f"toy/{name}" for name in names]
    by_name = {row["run"].removeprefix("toy/"): row for row in rows}
    assert "scores.csv" in by_name["damaged"]["error"]
    assert by_name["unfinished"]["left_out"] == "not evaluated yet"
    for name in ("one", "two"):
        assert float(by_name[name]["threshold_before"]) == before["threshold"]
        assert float(by_name[name]["threshold"]) == figures_of(folder / "toy" / name)["threshold"] < before["threshold"]
    said = capsys.readouterr().err.splitlines()
    lines = [line for line in said if line.startswith("[")]
    assert len(lines) == 4
    assert "→" in lines[1]
    assert said[-1].startswith("2 of 4 runs evaluated, 1 left out, 1 failed")


def test_the_exit_status_says_that_one_failed(folder: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["evaluate", str(folder), *RECORDED]).exit_code == INCOMPLETE
    shutil.rmtree(folder / "toy" / "damaged")
    assert runner.invoke(app, ["evaluate", str(folder), *RECORDED]).exit_code == 0
    answer = runner.invoke(app, ["evaluate", str(folder), *RECORDED, "--checkpoint", "0"])
    assert answer.exit_code == 2
    assert runner.invoke(app, ["evaluate", str(folder / "toy" / "notes"), *RECORDED]).exit_code == 2


def test_any_error_is_one_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of this run")

    monkeypatch.setattr(run_commands, "evaluate_recorded", broken)
    assert not run_commands.evaluate_all(str(folder), RECORDED)
    rows = list(csv.DictReader((folder / TABLE).open()))
    assert [row["error"] for row in rows[:3]] == ["ZeroDivisionError: of this run"] * 3


@pytest.mark.parametrize("name", ["metrics.json", "config.yaml"])
def test_after_an_interruption_a_run_scores_once_it_is_judged_again(
    run: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, words = run_folder.write_atomic, [*RECORDED, "evaluation.purpose=.2"]

    def killed(path: Path, content: bytes | str) -> None:
        if path.name == name:
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            run_commands.evaluate(str(run), words)
    with pytest.raises(UserError, match="its evaluation was interrupted"):
        Scorer.open(run)
    run_commands.evaluate(str(run), words)  # still without its data
    assert Scorer.open(run).threshold == metrics_of(run)["threshold"]["value"]


def test_classes_are_judged_again_from_their_table(labelled_run: Path) -> None:  # noqa: F811
    before = metrics_of(labelled_run)
    rows = [row["id"] for row in csv.DictReader((labelled_run / "classes.csv").open())]
    random = np.random.default_rng(0)
    split = [row["split"] for row in csv.DictReader((labelled_run / "classes.csv").open())]
    label = random.integers(0, 2, len(rows))
    scores = Scores(rows, rows, split, label, random.uniform(0.1, 0.9, len(rows)))
    (labelled_run / "scores.csv").write_text(scores.to_csv(0.5))
    evaluate_recorded(labelled_run, Evaluation(), Evaluation(replicates=20))
    now = metrics_of(labelled_run)
    assert now["classes"]["names"] == before["classes"]["names"]
    assert now["classes"]["each"].keys() == before["classes"]["each"].keys()
    assert 0 < now["threshold"]["value"] < 1
