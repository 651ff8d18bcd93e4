"""Trials are shared, killed ones go on, failed ones are told, nothing of the test split is looked at."""

import html
import json
import math
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from data.conftest import write_headct
from launching import ROOT, launch

from anomaly_lab.evaluation.planted import Ranked
from anomaly_lab.experiment import config as configuration
from anomaly_lab.pipeline import engine
from anomaly_lab.tuning import tuner
from anomaly_lab.types import UserError

SPACE = "params=detector.components=int(2,20) detector.blur=uniform(0,2)"


def words(tmp_path: Path, *more: str) -> list[str]:
    places = [f"folder={tmp_path / 'tuning'}", f"data.store.folder={tmp_path / 'store'}", f"runs={tmp_path / 'runs'}"]
    return [SPACE, "budget=smoke", "data.source=twin", *places, *more]


def study(tmp_path: Path) -> optuna.Study:
    planned = tuner._planned("pca_headct", words(tmp_path))
    return tuner._study(planned)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Instead of a training: the more components, the better; returns what was tried."""
    tried: list[dict] = []

    def measure(tuning: tuner.Tuning, trial: optuna.Trial) -> Ranked:
        tried.append(dict(trial.params))
        return Ranked("", trial.params["detector.components"] / 40, 0.0, {"disc": 0.5}, 1.0)

    monkeypatch.setattr(tuner, "_measured", measure)
    monkeypatch.setattr(tuner, "_ranked", lambda run, rule, kinds: Ranked("", 0.6, 0.0, {"blur": 0.6}))
    monkeypatch.setattr(tuner.record, "read_provenance", lambda run: {"source": "twin", "data": VAL})
    return tried


VAL = {"counts": {"val": {"normal": 8}}}


def test_as_many_trials_as_asked_and_the_best_is_an_experiment(tmp_path: Path, measured: list, monkeypatch) -> None:
    page = tuner.tune("pca_headct", words(tmp_path, "trials=6", "data.batch_size=16"))
    assert len(measured) == 6
    best = max(params["detector.components"] for params in measured)
    assert study(tmp_path).best_params["detector.components"] == best  # Optuna searches and prunes by the same order
    monkeypatch.setenv("ANOMALY_EXPERIMENTS", str(tmp_path / "tuning" / "experiments"))
    config = configuration.load("pca_headct_tuned", ["budget=smoke"])
    assert config.detector.components == best
    assert config.data.batch_size == 16
    assert config.data.source == "twin"
    assert json.loads((tmp_path / "tuning" / "best.json").read_text())["detector.components"] == best
    assert "Synthetic twin" in page.read_text()


@pytest.mark.parametrize("budget", ["smoke", "laptop", "paper", None])
def test_tuned_values_hold_at_every_budget(budget: str | None, tmp_path: Path, measured: list, monkeypatch) -> None:
    """A budget's own values must not come back under the name of the tuned ones; what was tuned is the default."""
    folder = tmp_path / "mine"
    (folder / "detectors").mkdir(parents=True)
    values = ", ".join(f"{name}: {{detector.blur: 9}}" for name in ("smoke", "laptop"))
    (folder / "detectors" / "mine.yaml").write_text(f"extends: pca\nbudgets: {{{values}}}\n")
    monkeypatch.setenv("ANOMALY_EXPERIMENTS", str(folder))
    tuner.tune("mine_headct", words(tmp_path, "trials=2"))
    monkeypatch.setenv("ANOMALY_EXPERIMENTS", f"{folder}{os.pathsep}{tmp_path / 'tuning' / 'experiments'}")
    config = configuration.load("mine_headct_tuned", [f"budget={budget}"] if budget else [])
    best = json.loads((tmp_path / "tuning" / "best.json").read_text())
    assert [config.detector[key] for key in ("components", "blur")] == [
        best[f"detector.{k}"] for k in ("components", "blur")
    ]
    assert config.budget == (budget or "smoke")


def test_the_command_it_tells_works_with_a_folder_of_ones_own(tmp_path: Path, measured: list, monkeypatch) -> None:
    folder = tmp_path / "my experiments"
    (folder / "detectors").mkdir(parents=True)
    (folder / "detectors" / "mine.yaml").write_text("extends: pca\n")
    monkeypatch.setenv("ANOMALY_EXPERIMENTS", str(folder))  # as --experiments sets it
    monkeypatch.setenv("ANOMALY_TRUST", "mypackage")
    told = list[str]()
    monkeypatch.setattr(tuner, "say", told.append)
    page = tuner.tune("mine_headct", words(tmp_path, "trials=1", "callbacks.wandb.project=07"))
    line = next(line for text in told for line in text.splitlines() if "make train" in line)
    assert line.strip() in html.unescape(page.read_text())
    _, _, *said = shlex.split(line)
    assert "TRUST=mypackage" in said
    given = dict(word.split("=", 1) for word in said)
    monkeypatch.setenv("ANOMALY_EXPERIMENTS", given["ANOMALY_EXPERIMENTS"])
    assert configuration.load(given["EXP"], [f"budget={given['budget']}"]).callbacks.wandb.project == "07"


def test_choices_are_read_by_the_type_of_their_setting(tmp_path: Path) -> None:
    planned = tuner._planned(
        "pca_headct", ["budget=smoke", "params=data.crop=choice(none,head) detector.blur=choice(1,1e-1)"]
    )
    assert [each.values for each in planned.space] == [("none", "head"), (1, 0.1)]
    config = configuration.load("ganomaly_folder", ["budget=smoke"])
    assert [tuner._as_word(config, "callbacks.wandb.project", text) for text in ("07", "no")] == ["07", "no"]


def test_more_trials_go_on_with_the_same_and_other_words_are_refused(tmp_path: Path, measured: list) -> None:
    tuner.tune("pca_headct", words(tmp_path, "trials=2"))
    tuner.tune("pca_headct", words(tmp_path, "trials=2"))
    assert len(measured) == 2
    tuner.tune("pca_headct", words(tmp_path, "trials=5"))
    assert len(measured) == 5
    assert len({tuple(params.values()) for params in measured}) == 5
    with pytest.raises(UserError, match="a tuning with other words"):
        tuner.tune("pca_headct", words(tmp_path, "trials=5", "data.batch_size=4"))


def test_files_and_their_twin_have_no_ranking_in_common(tmp_path: Path, measured: list) -> None:
    """The same words mean the twin where the files are not mounted."""
    same = [word for word in words(tmp_path) if word != "data.source=twin"]
    with pytest.MonkeyPatch.context() as patch:
        write_headct(tmp_path / "all" / "headct")
        patch.setenv("ANOMALY_DATA", str(tmp_path / "all"))
        more = ["data.protocol=random", "data.group=patient", "data.split.train_normals=0.5"]
        tuner.tune("pca_headct", [*same, *more, "trials=1"])
    with pytest.raises(UserError, match="a tuning with other data; give it the same words and data"):
        tuner.tune("pca_headct", [*same, *more, "trials=2"])
    assert len(measured) == 1
    place = tmp_path / "tuning" / "tuning.json"  # older code noted no data
    place.write_text(json.dumps({key: value for key, value in json.loads(place.read_text()).items() if key != "data"}))
    tuner.tune("pca_headct", [*same, *more, "trials=2"])
    assert len(measured) == 2


def test_an_edited_experiment_and_another_budget_are_other_tunings(tmp_path: Path, measured: list, monkeypatch) -> None:
    """Two machines, of which one has a GPU, would share a ranking under `budget=auto`."""
    own = tmp_path / "experiments" / "mine.yaml"
    own.parent.mkdir()
    own.write_text("extends: pca_headct\n")
    monkeypatch.setenv("ANOMALY_EXPERIMENTS", str(own.parent))
    tuner.tune("mine", words(tmp_path, "trials=1"))
    laptop = [word for word in words(tmp_path, "trials=2") if word != "budget=smoke"]
    with pytest.raises(UserError, match=r"holds a tuning with other .*budget"):
        tuner.tune("mine", [*laptop, "budget=laptop"])
    own.write_text("extends: pca_headct\nseed: 5\n")
    with pytest.raises(UserError, match="holds a tuning with other settings"):
        tuner.tune("mine", words(tmp_path, "trials=2"))
    assert len(measured) == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, measured: list) -> None:
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "thesis.txt").write_text("dear")
    with pytest.raises(UserError, match="something else than a tuning"):
        tuner.tune("pca_headct", words(tmp_path))
    assert [path.name for path in (tmp_path / "tuning").iterdir() if path.name != ".lock"] == ["thesis.txt"]


def test_the_experiments_own_values_come_first(tmp_path: Path, measured: list) -> None:
    tuner.tune("pca_headct", [word.replace("int(2,20)", "int(2,40)") for word in words(tmp_path, "trials=2")])
    assert measured[0] == {"detector.components": 32, "detector.blur": 0.0}


def test_a_killed_process_leaves_its_trial_to_the_next(tmp_path: Path, measured: list) -> None:
    planned = tuner._planned("pca_headct", words(tmp_path, "trials=3"))
    tuner._open_folder(planned)
    left = tuner._next(planned, study(tmp_path))
    assert left is not None
    left.set_user_attr("process", [*left.user_attrs["process"][:1], 2**22 + 1, 0.0])  # no process has this number
    tuner.tune("pca_headct", words(tmp_path, "trials=3"))
    trials = study(tmp_path).trials
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert trials[1].params == trials[0].params
    assert trials[1].user_attrs["run"] == trials[0].user_attrs["run"] == "00000"


@pytest.mark.parametrize("asked", [0, 1])
def test_a_process_killed_while_it_asks_leaves_its_trial_to_the_next(
    tmp_path: Path, measured: list, asked: int
) -> None:
    """Of the first trial, whose values are the experiment's own, and of one that is drawn."""
    told = [each.replace("int(2,20)", "int(2,40)") for each in words(tmp_path, "trials=3")]
    planned = tuner._planned("pca_headct", told)
    tuner._open_folder(planned)
    if asked:
        first = tuner._next(planned, study(tmp_path))
        assert first is not None
        tuner._study(planned).tell(first.number, 0.1)
    else:
        tuner._study(planned).enqueue_trial(dict(planned.own))
    tuner._study(planned).ask()
    tuner.tune("pca_headct", told)
    trials = tuner._study(planned).trials
    assert sum(trial.state.name == "COMPLETE" for trial in trials) == 3
    assert sum(trial.params == planned.own for trial in trials if trial.state.name == "COMPLETE") == 1


def test_a_running_process_keeps_its_trial(tmp_path: Path, measured: list) -> None:
    planned = tuner._planned("pca_headct", words(tmp_path, "trials=3"))
    tuner._open_folder(planned)
    assert tuner._next(planned, study(tmp_path)) is not None
    tuner.tune("pca_headct", words(tmp_path, "trials=3"))
    assert [trial.state.name for trial in study(tmp_path).trials] == ["RUNNING", "COMPLETE", "COMPLETE"]


def test_failures_are_told_and_three_in_a_row_end_it(tmp_path: Path, measured: list, monkeypatch) -> None:
    def fail(tuning: tuner.Tuning, trial: optuna.Trial) -> Ranked:
        raise UserError("the loss is no number")

    monkeypatch.setattr(tuner, "_measured", fail)
    with pytest.raises(UserError, match=r"3 trials in a row failed.*the loss is no number"):
        tuner.tune("pca_headct", words(tmp_path, "trials=9"))
    assert "failed: the loss is no number" in (tmp_path / "tuning" / "tuning.html").read_text()


def test_an_error_of_any_kind_is_a_failure_and_not_tried_again(tmp_path: Path, measured: list, monkeypatch) -> None:
    def fail(tuning: tuner.Tuning, trial: optuna.Trial) -> Ranked:
        raise ValueError("Expected more than 1 value per channel when training")

    monkeypatch.setattr(tuner, "_measured", fail)
    for _ in range(2):
        with pytest.raises(UserError, match=r"3 trials in a row failed.*ValueError: Expected more than 1 value"):
            tuner.tune("pca_headct", words(tmp_path, "trials=9"))
    assert [trial.state.name for trial in study(tmp_path).trials] == ["FAIL"] * 6


def test_where_others_are_at_all_trials_one_waits_for_them(tmp_path: Path, measured: list, capsys) -> None:
    planned = tuner._planned("pca_headct", words(tmp_path, "trials=1"))
    tuner._open_folder(planned)
    assert tuner._next(planned, study(tmp_path)) is not None
    tuner.tune("pca_headct", words(tmp_path, "trials=1"))
    assert "other processes are at all of the trials" in capsys.readouterr().err
    assert measured == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (["objective=test"], "would say nothing of new patients"),
        (["objective=auroc"], "planted"),
        (["trials=0"], "trials"),
        (["trials=many"], "trials"),
        (["params=detector.nonsense=int(1,2)"], "nonsense"),
        (["params=detector.components=int(0,4)"], "components"),
        (["params=detector.components=choice(4,many)"], "components"),
        (["params=seed=int(0,9)"], "nothing that a better detector has"),
        (["params=evaluation.threshold=choice(a,b)"], "nothing that a better detector has"),
        (["params=name=choice(a,b)"], "nothing that a better detector has"),
        (["params=data.root=choice(a,b)"], "nothing that a better detector has"),
        (["params=data.split.val_fraction=uniform(0.1,0.4)"], "nothing that a better detector has"),
        (["params=data.val_fraction=uniform(0.1,0.4)"], "nothing that a better detector has"),
        (["params=data.protocol=choice(blocks,random)"], "nothing that a better detector has"),
        (["params=data.cut.label=choice(case,mask)"], "nothing that a better detector has"),
        (["params=detector.components=int(3,4)", "params=detector.blur=uniform(0,1)"], "params is said 2 times"),
        (["detector.blur=1"], "set by another word"),
        (["trainer.devices=2"], "one process"),
        (["callbacks.it._target_=anomaly_lab.callbacks.best_test_epoch.BestTestEpoch"], "it chooses by test labels"),
    ],
)
def test_what_cannot_be_tuned_is_said_before_anything_is_trained(tmp_path: Path, said: list[str], why: str) -> None:
    with pytest.raises(UserError, match=why) as error:
        tuner.tune("pca_headct", [*words(tmp_path)[any("params=" in each for each in said) :], *said])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "tuning").exists()


def test_a_damaged_journal_is_an_error_in_one_line(tmp_path: Path, measured: list) -> None:
    tuner.tune("pca_headct", words(tmp_path, "trials=1"))
    journal = tmp_path / "tuning" / "journal.log"
    journal.write_text("{torn\n" + journal.read_text())
    with pytest.raises(UserError, match=r"journal.log cannot be read"):
        tuner.tune("pca_headct", words(tmp_path, "trials=2"))


def test_no_test_case_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For real: trials are trained and measured; the best can be judged afterwards, from where it is."""

    def scored(*words: object, **more: object) -> None:
        raise AssertionError("test cases were scored")

    with monkeypatch.context() as patched:
        patched.setattr(engine, "score_all", scored)
        patched.setattr(engine, "evaluate_run", scored)
        tuner.tune("pca_headct", words(tmp_path, "trials=2"))
    runs = sorted((tmp_path / "tuning" / "runs").iterdir())
    assert len(runs) == 2
    assert not any((run / name).exists() for run in runs for name in ("scores.csv", "metrics.json", "report.html"))
    values = [trial.value for trial in study(tmp_path).trials]
    assert all(0 < value < 1 for value in values)
    assert set(study(tmp_path).trials[0].user_attrs["kinds"]) == {kind.name for kind in tuner.TUNING}
    assert (runs[0] / "config.yaml").exists()
    assert (engine.resume(str(runs[0])) / "report.html").exists()


def begin(*words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_two_processes_one_of_them_killed(tmp_path: Path) -> None:
    """Each trial is trained once; the killed one goes on from its checkpoint."""
    space = "params=detector.lr=log(1e-5,1e-2) detector.width=choice(4,8)"
    places = [f"folder={tmp_path / 'tuning'}", f"data.store.folder={tmp_path / 'store'}"]
    command = ("-m", "anomaly_lab", "tune", "ganomaly_headct", space, "trials=6", "budget=smoke", *places)
    command += ("data.source=twin", "detector.gan_iterations=200")
    first = begin(*command)
    while not any((tmp_path / "tuning" / "runs").glob("*/checkpoints/*.ckpt")):
        assert first.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    first.kill()
    first.wait()
    second = begin(*command)
    third = launch(*command)
    second.wait()
    assert third.returncode == 0, third.stderr
    trials = optuna.load_study(
        study_name="ganomaly_headct",
        storage=tuner.JournalStorage(tuner.JournalFileBackend(str(tmp_path / "tuning" / "journal.log"))),
    ).trials
    ended = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len(ended) == 6
    left = [trial for trial in trials if trial.state.name == "FAIL"]
    assert [trial.user_attrs["run"] for trial in left] == ["00000"]
    again = [trial for trial in ended if trial.user_attrs["run"] == "00000"]
    assert [trial.params for trial in again] == [left[0].params]
    assert (tmp_path / "tuning" / "experiments" / "ganomaly_headct_tuned.yaml").exists()
    done = launch("-m", "anomaly_lab", "--experiments", tmp_path / "tuning" / "experiments", "train",
                  "ganomaly_headct_tuned", "budget=smoke", f"runs={tmp_path / 'runs'}", places[1])  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_equal_figures_are_told_apart_by_their_lift() -> None:
    made = optuna.create_study(direction="maximize")
    for lift in (1.0, 3.0, 2.0):
        trial = made.ask()
        trial.set_user_attr("lift", lift)
        made.tell(trial, 1.0)
    best = tuner.best_of(made)
    assert best is not None
    assert best.number == 1
    assert tuner._finite(math.nan) is None
