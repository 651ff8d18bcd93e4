"""The verb: words for the study and words for its runs, a plan without a training, a page in the end."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from anomaly_lab import __main__
from anomaly_lab.studies import command, ledger, plan
from anomaly_lab.types import UserError

pytestmark = pytest.mark.usefixtures("trusted_toys")
TOY = """
# A toy.
data: {_target_: study_runs.Data}
detector: {_target_: study_runs.Detector}
trainer: {_target_: study_runs.Trainer}
budgets: {smoke: {}, laptop: {}}
"""
STUDY = """
title: Toys
budget: smoke
datasets: {set: {title: Set}}
rows:
  base: {title: Base, experiment: "toy_{dataset}"}
  child: {title: Child, experiment: "toy_{dataset}", start_from: base, overrides: {detector.width: 2}}
"""


@pytest.fixture(autouse=True)
def _toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan._budget.cache_clear()
    plan._resolved.cache_clear()
    (tmp_path / "experiments" / "studies").mkdir(parents=True)
    (tmp_path / "experiments" / "toy_set.yaml").write_text(TOY)
    (tmp_path / "experiments" / "studies" / "toys.yaml").write_text(STUDY)
    monkeypatch.setattr(ledger, "data_fingerprint", lambda section: "data")
    monkeypatch.setattr(command, "_measure", lambda run: {"gan": 100.0, "encoder": 20.0})


def test_a_dry_run_trains_nothing_and_leaves_out_phases_that_are_taken_over(capsys, tmp_path):
    assert command.main("toys", ["jobs=2"], dry_run=True) == 0
    said = capsys.readouterr().err
    assert "2 of 2 runs would train: about 1 min 10 s with jobs=2" in said
    assert "starts from base-set-seed0" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("data", ["folder", "planted_folder"])
def test_a_dry_run_says_that_the_data_are_not_there(data: str):
    with pytest.raises(UserError, match=r"nowhere: no such folder \(data.root\)"):
        command.main("which_detector", [f"data={data}", "rows=[pca]", "data.root=nowhere"], dry_run=True)


@pytest.mark.parametrize("dry_run", [True, False])
def test_folds_of_data_that_have_a_split_are_refused_before_anything_trains(tmp_path: Path, dry_run: bool):
    for name in ("train/normal/a.png", "train/normal/b.png", "test/normal/c.png", "test/crack/d.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    words = ["data=folder", "rows=[pca]", f"data.root={tmp_path / 'data'}", "budget=smoke"]
    with pytest.raises(UserError, match="folds=3: the data set has an official split"):
        command.main("which_detector", words, dry_run=dry_run)
    assert not (tmp_path / "runs").exists()


def test_a_page_of_what_is_finished_trains_nothing(capsys, tmp_path):
    assert command.main("toys", [], page_only=True) == 1
    assert "0 of 2 runs have a result" in capsys.readouterr().err
    assert "not trained yet" in (tmp_path / "runs/studies/toys/index.html").read_text()


def test_a_part_of_a_study_has_its_own_page_and_leaves_that_of_the_whole(capsys, tmp_path):
    folder = tmp_path / "runs/studies/toys"
    command.main("toys", [], page_only=True)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for words, part, title in (
        (["rows=[base]"], "only-base", "Toys: only rows base"),
        (["rows=[base]", "seeds=[3,1]"], "only-base-seed1-seed3", "Toys: only rows base; seeds 1, 3"),
    ):
        command.main("toys", words, page_only=True)
        assert f"toys/{part}/index.html" in "".join(capsys.readouterr().err.splitlines())
        assert f"<h1>{title}</h1>" in (folder / part / "index.html").read_text()
        assert "rows" in (folder / part / "study.yaml").read_text()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == whole
    command.main("toys", ["rows=[child,base]", "datasets=[set]"], page_only=True)  # which is all of it
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["only-base", "only-base-seed1-seed3"]


def test_a_study_on_other_data_or_with_other_settings_leaves_the_page_of_the_whole_as_it_is(tmp_path):
    folder = tmp_path / "runs/studies/toys"
    for words in ([], ["data.root=one/set"], ["data.root=two/set"], ["detector.width=4"]):
        command.main("toys", words, page_only=True)
    pages = {path.parent.name: path.read_text() for path in folder.glob("*/index.html")}
    assert len(pages) == 3
    how = [
        "trainer.devices=2",
        "data.store.folder=fast",
        "callbacks.wandb=null",
        "callbacks.samples.every=2",
    ]  # made so, and no other runs for it
    assert not command._telling(command.Options(), how)  # made so, and no other runs for it
    for word in (
        "data.source=twin",
        "data.store.on_bad=skip",
        "callbacks.best_test_epoch._target_=anomaly_lab.callbacks.best_test_epoch.BestTestEpoch",
        "callbacks.fakepool.every=5",
        "callbacks.samples._target_=mine.Samples",
    ):
        assert command._telling(command.Options(), [word]) == {word: ""}
    assert all(name.startswith("with-d") and len(name) <= command.MAX_NAME for name in pages)
    assert sum("<h1>Toys: with data.root=set</h1>" in page for page in pages.values()) == 2
    assert "<h1>Toys</h1>" in (folder / "index.html").read_text()
    before = sorted(folder.glob("*/index.html"))
    command.main("toys", [f"data.root={tmp_path}/one/set"], page_only=True)  # the same folder
    assert sorted(folder.glob("*/index.html")) == before


def test_a_study_at_another_budget_leaves_the_page_of_the_whole_as_it_is(tmp_path):
    folder = tmp_path / "runs/studies/toys"
    command.main("toys", ["budget=smoke"], page_only=True)  # its own
    assert not list(folder.glob("*/index.html"))
    whole = (folder / "index.html").read_bytes()
    command.main("toys", ["budget=laptop"], page_only=True)
    (part,) = folder.glob("with-budget_laptop-*/index.html")
    assert "<h1>Toys: with budget=laptop</h1>" in part.read_text()
    assert (folder / "index.html").read_bytes() == whole


def test_a_budget_said_aloud_is_kept_where_the_study_has_auto(tmp_path, monkeypatch):
    file = tmp_path / "experiments" / "studies" / "toys.yaml"
    file.write_text(STUDY.replace("budget: smoke", "budget: auto"))
    monkeypatch.setattr(plan, "_budget", lambda experiment, budget: "laptop" if budget == "auto" else budget)
    for words in (["budget=laptop"], ["budget=auto"], []):
        command.main("toys", words, page_only=True)
    assert not list((tmp_path / "runs/studies/toys").glob("*/index.html"))
    seen = []
    monkeypatch.setattr(command, "_launcher", lambda options, study, overrides: seen.append(study.budget))
    command.main("toys", ["budget=laptop"], page_only=True)  # a cluster's login node refuses auto, not this
    assert seen == ["laptop"]


def test_the_folder_of_a_part_has_a_name_that_every_disk_takes():
    rows = {f"row {i}/{'x' * 20}": plan.Row("R", "toy_set") for i in range(12)}
    study = plan.Study("toys", "Toys", datasets={"set": plan.DataSet("Set")}, rows=rows)
    parts = [command._narrowed(study, command.Options(rows=list(rows)[:last]))[1] for last in (1, 8, 9, 12)]
    assert all(len(part) <= command.MAX_NAME and "/" not in part and " " not in part for part in parts)
    assert len(set(parts)) == 4
    assert parts[-1] == ""


@pytest.mark.parametrize(("word", "complaint"), [
    ("jobs=0", "must be at least 1"),
    ("jobs=x", "jobs"),
    ("rows=[bass]", "rows: no 'bass'"),
    ("code=new", "code"),
    ("seed=1", "select runs with seeds"),
    ("nonsense", "is not of the form key=value"),
    ("datasets=${nope}", "datasets: Interpolation key 'nope' not found"),
    ("rows=[[a]]", "rows"),
    ("jobs=[1", "is not valid YAML"),
    ("detector.widht=3", "Did you mean: 'width'"),
    ("partition=gpu", "partition: says what a job on a cluster asks for; add launcher=slurm"),
    ("sbatch.account=lab", "sbatch: says what"),
    ("launcher=ray", "launcher"),
])  # fmt: skip
def test_a_wrong_word_is_one_line(word, complaint):
    with pytest.raises(UserError, match=complaint.replace("[", r"\[")) as refused:
        command.main("toys", [word], dry_run=True)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("words", "complaint"), [
    (["budget=auto"], "this host, which will not train, cannot know it"),
    (["time=4"], "takes a number with its unit"),
    (["cpus=0"], "gpus=0 cpus=0"),
])  # fmt: skip
def test_a_study_on_a_cluster_refuses_what_this_host_cannot_know(words, complaint):
    with pytest.raises(UserError, match=complaint):
        command.main("toys", ["launcher=slurm", *words], dry_run=True)


def test_the_status_of_a_study_trains_nothing(capsys, tmp_path):
    assert command.main("toys", [], status=True) == 1
    assert capsys.readouterr().err.count("not begun") == 2
    assert not list((tmp_path / "runs").glob("*"))


def test_the_front_door_hands_over_words_and_the_exit_status():
    result = CliRunner().invoke(__main__.app, ["study", "toys", "--page", "seeds=[3]"])
    assert result.exit_code == 1
    assert CliRunner().invoke(__main__.app, ["study", "toy"]).exit_code == 2
