"""The plan: rows × data sets × seeds, and one line for every mistake in a study's file."""

import dataclasses
from pathlib import Path

import pytest

from anomaly_lab.experiment import compose, config
from anomaly_lab.studies import plan
from anomaly_lab.studies.plan import Key
from anomaly_lab.types import UserError

pytestmark = pytest.mark.usefixtures("trusted_toys")
TOY = """
# A toy.
seed: 0
data: {_target_: study_runs.Data, seed: "${seed}"}
detector: {_target_: study_runs.Detector}
trainer: {_target_: study_runs.Trainer}
budgets: {smoke: {detector.width: 2}, paper: {}}
"""
STUDY = """
title: Toys
budget: smoke
seeds: [0, 1]
datasets:
  set: {title: Set}
  other: {title: Other, experiments: set, overrides: {data.root: there}, budgets: {smoke: {data.limit: 5}}}
rows:
  wide: {title: Wide, experiment: "toy_{dataset}", overrides: {detector.width: 9}, start_from: base, datasets: [set]}
  base: {title: Base, experiment: "toy_{dataset}", paper: {set: 0.9}, budgets: {paper: {data.limit: 7}}}
"""


@pytest.mark.parametrize("name", ["hq_anogan", "hq_anogan_folder"])
def test_rows_of_the_hq_anogan_studies_differ_from_what_they_start_from_in_what_is_made_anew(name: str) -> None:
    """After `gan` the encoder's losses, after `encoder` what is gathered, after `gather` the score alone."""
    anew = {
        "gan": {"perceptual_weight", "feature_weight", "norm_weight"},
        "encoder": {"truncation"},
        "gather": {"score"},
    }
    study = plan.narrowed(dataclasses.replace(plan.load(name), budget="laptop"), seeds=[0])
    runs = {run.key: run.config for run in plan.plan(study)}
    assert {key.dataset for key in runs} == {*study.datasets}
    for run in plan.plan(study):
        if run.start is not None:
            own, start = run.config["detector"], runs[run.start]["detector"]
            changed = {key for key in own if own[key] != start[key]}
            assert changed, run.key
            assert changed <= anew[run.config["start_phase"]], run.key


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    plan._budget.cache_clear()
    plan._resolved.cache_clear()
    (tmp_path / "experiments" / "studies").mkdir(parents=True)
    (tmp_path / "experiments" / "toy_set.yaml").write_text(TOY)

    def to_file(text: str = STUDY) -> plan.Study:
        (tmp_path / "experiments" / "studies" / "toys.yaml").write_text(text)
        return plan.load("toys")

    return to_file


def test_rows_by_data_sets_by_seeds_each_after_what_it_starts_from(write):
    runs = plan.plan(write())
    assert [str(run.key) for run in runs] == [
        "base-set-seed0", "wide-set-seed0", "base-other-seed0", "base-set-seed1", "wide-set-seed1", "base-other-seed1",
    ]  # fmt: skip
    assert runs[1].start == Key("base", "set", 0)


def test_overrides_are_laid_over_each_other(write):
    runs = {str(run.key): run for run in plan.plan(write(), ["detector.rate=0.5"])}
    assert runs["wide-set-seed1"].config["detector"] == {"_target_": "study_runs.Detector", "width": 9, "rate": 0.5}
    assert runs["base-set-seed0"].config["detector"]["width"] == 2
    assert runs["base-other-seed1"].config["data"] == {
        "_target_": "study_runs.Data", "root": "there", "seed": 1, "limit": 5,
    }  # fmt: skip
    assert runs["base-other-seed0"].overrides[0] == "budget=smoke"
    assert runs["base-other-seed0"].overrides[-1] == "seed=0"


def test_a_planned_config_is_what_the_command_line_would_load(write):
    for run in plan.plan(write()):
        loaded = config.show(config.load(run.experiment, list(run.overrides)))
        assert run.config == plan.plain(loaded)


def test_a_row_has_overrides_for_one_budget(write):
    study = write(STUDY.replace("budget: smoke", "budget: paper"))
    assert {run.config["data"]["limit"] for run in plan.plan(study) if run.key.row == "base"} == {7}


def test_narrowing_keeps_what_is_started_from_but_hides_it(write):
    some = plan.narrowed(write(), rows=["wide"], seeds=[1])
    assert [str(run.key) for run in plan.plan(some)] == ["base-set-seed1", "wide-set-seed1", "base-other-seed1"]
    assert some.rows["base"].hidden


def test_a_row_that_is_named_is_shown_and_a_hidden_one_is_no_reference(write):
    study = write(STUDY.replace("title: Toys", "title: Toys\nreference: base"))
    some = plan.narrowed(study, rows=["wide"])
    assert (some.rows["base"].hidden, some.reference) == (True, None)
    hidden = plan.narrowed(some, rows=["base"])
    assert not hidden.rows["base"].hidden
    assert plan.narrowed(study, rows=["wide", "base"]).reference == "base"


def test_published_figures_stay_with_the_data_set_they_are_of() -> None:
    study = plan.load("adgan_ablation")
    (column,) = plan.on(study, "headct").datasets.values()
    assert (column.title, column.notes, column.experiments) == ("headct", [], "headct")
    assert not any(row.paper or row.paper_classes for row in plan.on(study, "headct").rows.values())
    assert plan.on(study, "abmnist") == study
    assert plan.on(plan.load("which_detector"), "dicom").datasets["own"].title == "These data"


def test_narrowing_leaves_no_empty_row(write):
    assert list(plan.narrowed(write(), datasets=["other"]).rows) == ["base"]  # wide is for `set` alone
    assert list(plan.narrowed(write(), datasets=["set"]).rows) == ["wide", "base"]


def test_narrowing_leaves_only_the_footnotes_of_what_is_shown(write):
    text = STUDY.replace("paper: {set: 0.9}", "paper: {set: 0.9}, notes: [a]").replace("datasets: [set]", "notes: [b]")
    study = write(text + "footnotes: {b: Wide., a: Base.}\n")
    assert plan.narrowed(study).footnotes == {"b": "Wide.", "a": "Base."}
    assert plan.narrowed(study, rows=["wide"]).footnotes == {"b": "Wide."}  # base is there, but hidden


@pytest.mark.parametrize(("old", "new", "complaint"), [
    ("start_from: base", "start_from: bass", "rows.wide.start_from: no 'bass'. Did you mean: 'base'?"),
    ("paper: {set: 0.9}", "paper: {sett: 0.9}", "rows.base.paper: no 'sett'. Did you mean: 'set'?"),
    ("datasets: [set]", "against: bas", "rows.wide.against: no 'bas'. Did you mean: 'base'?"),
    ("datasets: [set]", "notes: [n]", "rows.wide.notes: no 'n'. There are: none"),
    ("title: Toys", "titel: Toys", "titel"),
    ("title: Toys\n", "", "Missing mandatory value: title"),
    ("{title: Set}", "{titles: Set}", "titles"),
    ("seeds: [0, 1]", "seeds: [x]", "seeds"),
    ("title: Toys", "title: Toys\nfootnotes: {n: {x: y}}", "footnotes.n is {'x': 'y'}, not text"),
    ("datasets: [set]", "datasets: [[set]]", "rows.wide.datasets"),
    ("title: Toys", "title: Toys\nquestion: ${nope}", "question"),
    ("title: Toys", "title: Toys\nnull: 1", "not readable as YAML"),
    ("title: Wide", "title: Base", "rows: two have the title 'Base'"),
    ("title: Toys", "title: Toys\nadvice: true\nmetric: map", "advice: which method to take is said by AUROC"),
])  # fmt: skip
def test_a_mistake_is_one_line_that_names_file_and_key(write, old, new, complaint):
    with pytest.raises(UserError) as refused:
        write(STUDY.replace(old, new))
    assert complaint in str(refused.value)
    assert "toys.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_strangers_are_refused(write):
    write()
    with pytest.raises(UserError, match=r"no study 'toy'\. Did you mean: 'toys'"):
        plan.load("toy")
    with pytest.raises(UserError, match="rows: no 'wid'"):
        plan.narrowed(write(), rows=["wid"])
    with pytest.raises(UserError, match="no experiment 'toi_set'"):
        plan.plan(write(STUDY.replace("toy_{dataset}", "toi_{dataset}")))


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("experiments/studies/*.yaml")), ids=lambda p: p.stem
)
def test_a_shipped_study_has_experiments_and_notes_for_all_it_names(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(path.parents[2])
    study = plan.load(path.stem)
    for row in study.rows.values():
        for name in row.datasets or study.datasets:
            experiment = row.experiment.format(dataset=study.datasets[name].experiments or name)
            assert compose.layers_of(experiment)
    used = {note for part in (*study.rows.values(), *study.datasets.values()) for note in part.notes}
    assert used == set(study.footnotes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "adgan_tables",
        "adgan_ablation",
        "adgan_alpha",
        "medical_images",
        "sixray_tables",
        "fundus_supervised",
    ],
)
@pytest.mark.parametrize("budget", ["paper", "laptop", "smoke"])
def test_a_shipped_study_plans_with_every_budget(name: str, budget: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    study = plan.narrowed(plan.load(name), seeds=[0])
    study.budget = budget
    assert plan.plan(study)


def test_a_study_of_one_data_set_moves_to_another() -> None:
    moved = plan.on(plan.load("which_detector"), "planted_folder")
    assert [column.experiments for column in moved.datasets.values()] == ["planted_folder"]
    with pytest.raises(UserError, match=r"Did you mean: 'folder'"):
        plan.on(plan.load("which_detector"), "foldr")
    with pytest.raises(UserError, match="has several data sets"):
        plan.on(plan.load("medical_images"), "folder")
