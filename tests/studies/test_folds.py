"""Folds: a run for each, pooled without ranking scores of different models, and intervals that know what they share."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_classes
from study_runs import small_study, write_run

from anomaly_lab.evaluation.classes import evaluate_classes
from anomaly_lab.experiment.run_folder import write_json
from anomaly_lab.metrics import joint
from anomaly_lab.metrics.comparison import delong_of_folds, summary
from anomaly_lab.metrics.joint import Sample
from anomaly_lab.metrics.ranking import auroc
from anomaly_lab.studies import plan
from anomaly_lab.studies.decisions import decisions, gains
from anomaly_lab.studies.findings import Findings, read_findings
from anomaly_lab.studies.page import page, table
from anomaly_lab.studies.plan import DataSet, Fold, Key, Row, Study
from anomaly_lab.studies.results import Result
from anomaly_lab.types import UserError

FOLDS = 4


def in_folds(**over: object) -> Study:
    return replace(small_study(), folds=FOLDS, **over)


def runs_of(tmp_path: Path, rows: dict[str, float], seeds: int = 1) -> dict[Key, Path]:
    """A run for each fold of each row; each fold has cases of its own and another scale of scores."""
    keys = [Key(row, "set", seed, fold) for row in rows for seed in range(seeds) for fold in range(FOLDS)]
    return {
        key: write_run(tmp_path / str(key), rows[key.row], 10 * key.seed + key.fold, n=30 + 2 * key.fold)
        for key in keys
    }


def labelled(folder: Path, task: str, seed: int, sharpness: float = 2.0, **facts: object) -> Path:
    """A finished run with classes."""
    table_, scores, told = toy_classes.example(task, seed=seed, sharpness=sharpness)
    write_run(folder, 1.0, seed, **facts)
    (folder / "scores.csv").write_text(scores.to_csv(0.5))
    (folder / "classes.csv").write_text(table_.to_csv())
    metrics = {"threshold": {"value": 0.5}, "classes": evaluate_classes(table_, scores, told, 0.5, replicates=20)}
    metrics["detector"] = {name: {"value": 0.7} for name in ("accuracy", "recall", "specificity", "f1")}
    write_json(folder / "metrics.json", metrics)
    return folder


def test_a_study_with_folds_plans_a_run_for_each() -> None:
    rows = {"vae": Row("VAE", "vae_headct"), "gan": Row("GAN", "ganomaly_headct")}
    columns = {"folds": DataSet("Folds"), "single": DataSet("One split", folds=0)}
    study = Study("toy", "Toy", budget="smoke", folds=3, datasets=columns, rows=rows)
    planned = {str(run.key): run for run in plan.plan(study)}
    assert list(planned)[:4] == [
        "vae-folds-seed0-fold0",
        "gan-folds-seed0-fold0",
        "vae-single-seed0",
        "gan-single-seed0",
    ]
    assert len(planned) == 2 * 3 + 2
    for fold in range(3):
        run = planned[f"gan-folds-seed0-fold{fold}"]
        assert run.config["data"]["split"]["folds"] == 3
        assert run.config["data"]["split"]["fold"] == fold
        assert set(run.overrides) >= {"data.split.folds=3", f"data.split.fold={fold}", "seed=0"}
    assert planned["vae-single-seed0"].config["data"]["split"]["folds"] == 0


def test_a_warm_start_begins_with_the_same_fold() -> None:
    rows = {"base": Row("Base", "wgan_headct"), "warm": Row("Warm", "adganc_headct", start_from="base")}
    study = Study("toy", "Toy", budget="smoke", folds=2, datasets={"headct": DataSet("Set")}, rows=rows)
    starts = {run.key: run.start for run in plan.plan(study) if run.start}
    assert starts == {Key("warm", "headct", 0, fold): Key("base", "headct", 0, fold) for fold in range(2)}


@pytest.mark.parametrize("word", ["data.split.folds=3", "data.split.fold=1"])
def test_the_study_alone_says_which_fold(word: str) -> None:
    study = Study("toy", "Toy", folds=2, datasets={"headct": DataSet("Set")}, rows={"vae": Row("VAE", "vae_headct")})
    with pytest.raises(UserError, match="the study sets this for each run"):
        plan.plan(study, [word])


def test_a_single_fold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "studies").mkdir()
    monkeypatch.setenv("ANOMALY_EXPERIMENTS", str(tmp_path))
    text = 'title: T\nfolds: 1\ndatasets: {headct: {title: H}}\nrows: {vae: {title: V, experiment: "vae_{dataset}"}}\n'
    (tmp_path / "studies" / "one.yaml").write_text(text)
    with pytest.raises(UserError, match="folds: 1 fold has nothing to train on"):
        plan.load("one")
    (tmp_path / "studies" / "one.yaml").write_text(text.replace("folds: 1", "metric: auc"))
    with pytest.raises(UserError, match="metric"):
        plan.load("one")


def test_the_mean_over_folds_has_its_interval_and_students_beside_it(tmp_path: Path) -> None:
    findings = read_findings(in_folds(), runs_of(tmp_path, {"good": 1.5}), {})
    cell = findings.lines[0].cells["set"]
    runs = list(findings.of("good", "set").values())
    values = [auroc(run.label, run.score) for run in runs]
    assert list(cell.values) == [Fold(0, fold) for fold in range(FOLDS)]
    assert list(cell.values.values()) == values
    corrected = summary(values, overlap=1 / (FOLDS - 1))
    assert cell.same_patients == (corrected.low, corrected.high)
    found = joint.auroc([Sample(run.label, run.score, run.patient) for run in runs])
    assert (cell.low, cell.high) == (found.low, found.high)


def test_scores_of_two_folds_are_never_ranked_against_each_other(tmp_path: Path) -> None:
    findings = read_findings(in_folds(), runs_of(tmp_path, {"good": 1.5, "fair": 0.5}), {})
    moved = {key: replace(run, score=run.score * 10.0**key.fold) for key, run in findings.results.items()}
    other = replace(findings, results=moved)
    cells = [each.lines[0].cells["set"] for each in (other, findings)]
    assert (cells[0].low, cells[0].high) == pytest.approx((cells[1].low, cells[1].high))
    assert other.tests()[0].joint[:4] == pytest.approx(findings.tests()[0].joint[:4])
    assert other.tests()[0].delong == pytest.approx(findings.tests()[0].delong)


def test_rows_are_compared_fold_by_fold(tmp_path: Path) -> None:
    findings = read_findings(in_folds(), runs_of(tmp_path, {"good": 1.5, "fair": 0.5}), {})
    test = findings.tests()[0]
    pairs = [(findings.of("fair", "set")[Fold(0, k)], findings.of("good", "set")[Fold(0, k)]) for k in range(FOLDS)]
    samples = [Sample(a.label, a.score, a.patient, b.score) for a, b in pairs]
    assert test.paired.n == FOLDS
    assert math.isnan(test.paired.wilcoxon)
    assert test.cases == sum(len(a.label) for a, _ in pairs)
    assert test.delong == pytest.approx(delong_of_folds(samples))
    assert test.joint == joint.auroc_difference(samples)
    gain = gains(findings, "set")["fair"]["auroc"]
    assert gain.mean == pytest.approx(test.paired.difference)
    assert (gain.low, gain.high) == (test.joint.low, test.joint.high)


def test_a_missing_fold_leaves_the_others(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, {"good": 1.5})
    del runs[Key("good", "set", 0, 2)]
    cell = read_findings(in_folds(), runs, {Key("good", "set", 0, 2): "it broke"}).lines[0].cells["set"]
    assert cell.summary.n == FOLDS - 1
    assert cell.low < cell.summary.mean < cell.high


def test_several_seeds_of_folds_share_their_patients(tmp_path: Path) -> None:
    findings = read_findings(in_folds(), runs_of(tmp_path, {"good": 1.5}, seeds=2), {})
    cell = findings.lines[0].cells["set"]
    assert cell.summary.n == 2 * FOLDS
    patients = len({name for run in findings.of("good", "set").values() for name in run.patient})
    found = joint.auroc([Sample(r.label, r.score, r.patient) for r in findings.of("good", "set").values()])
    assert (cell.low, cell.high) == (found.low, found.high)
    assert sum(found.patients) == patients  # not once for every seed


def test_the_page_says_what_the_intervals_of_folds_are(tmp_path: Path) -> None:
    findings = read_findings(in_folds(), runs_of(tmp_path, {"good": 1.5, "fair": 0.5}), {})
    text, made = page.render(findings), table.markdown(findings)
    for said in ("Nadeau and Bengio", "LeDell"):
        assert said in text
        assert said in made
    assert "these patients only [" in text
    assert "Results by fold" in text
    assert table.runs_csv(findings).splitlines()[0].startswith("row,dataset,seed,fold,auroc")
    assert table.runs_csv(findings).splitlines()[1].startswith("good,set,0,0,")


def labelled_findings(tmp_path: Path, task: str, metric: str, repeats: int = 1, **over: object) -> Findings:
    paper = {"paper_classes": {"set": {"Gun": 0.9, "Knife": 0.5}}}
    rows = {"sharp": Row("Sharp", "x", **paper), "dull": Row("Dull", "x")}
    study = Study("s", "S", datasets={"set": DataSet("Set")}, rows=rows, metric=metric, **over)
    folds = range(study.folds) if study.folds else [None] * repeats
    runs = {
        Key(row, "set", 0 if study.folds else i, fold): labelled(tmp_path / f"{row}{i}", task, i, sharpness)
        for row, sharpness in (("sharp", 2.0), ("dull", 0.5)) for i, fold in enumerate(folds)
    }  # fmt: skip
    return read_findings(study, runs, {})


@pytest.mark.parametrize(
    ("task", "metric", "name"),
    [("multilabel", "map", "mean_average_precision"), ("multiclass", "accuracy", "accuracy"),
     ("multiclass", "macro_f1", "macro_f1")],
)  # fmt: skip
def test_a_study_may_show_another_metric(tmp_path: Path, task: str, metric: str, name: str) -> None:
    findings = labelled_findings(tmp_path, task, metric)
    cell = findings.lines[0].cells["set"]
    value = json.loads((tmp_path / "sharp0" / "metrics.json").read_text())["classes"][name]["value"]
    assert cell.summary.mean == value
    assert cell.low <= value <= cell.high
    assert findings.metric in page.render(findings)
    gain = gains(findings, "set")["dull"][metric]
    assert gain.mean == pytest.approx(findings.lines[1].cells["set"].summary.mean - value)
    assert gain.low <= gain.mean <= gain.high  # paired: both were judged on the same replicates
    assert next(iter(gains(findings, "set")["dull"])) == metric


def test_a_paired_interval_of_the_same_run_is_nothing(tmp_path: Path) -> None:
    findings = labelled_findings(tmp_path, "multilabel", "map")
    twice = {key: findings.results[Key("sharp", "set", 0)] for key in findings.results}
    gain = gains(replace(findings, results=twice), "set")["dull"]["map"]
    assert (gain.mean, gain.low, gain.high) == (0, 0, 0)


def test_folds_of_another_metric_are_drawn_together(tmp_path: Path) -> None:
    findings = labelled_findings(tmp_path, "multilabel", "map", folds=3)
    cell = findings.lines[0].cells["set"]
    assert cell.low < cell.summary.mean < cell.high
    assert cell.same_patients[0] < cell.summary.mean < cell.same_patients[1]


def test_each_class_stands_beside_its_published_value(tmp_path: Path) -> None:
    findings = labelled_findings(tmp_path, "multilabel", "map", repeats=2)
    text = page.render(findings)
    assert "Average precision of each class" in text
    assert "Sharp †: Published" in text
    assert ">.900</td>" in text
    made = table.markdown(findings)
    assert "| Average precision, Set | Gun | Knife | Wrench | mean |" in made
    assert "| Sharp †, published | .900 | .500 | – | .700 |" in made
    assert "Anomalous against normal, unweighted" in text


def test_a_row_without_classes_has_no_figure_of_them(tmp_path: Path) -> None:
    findings = labelled_findings(tmp_path, "multilabel", "map")
    rows = findings.study.rows | {"gan": Row("GAN", "x")}
    runs = findings.results | {Key("gan", "set", 0): Result.read(write_run(tmp_path / "gan", 1.0))}
    other = replace(findings, study=replace(findings.study, rows=rows), results=runs)
    assert other.lines[2].cells["set"].values == {}
    assert "gan" not in {test.row for test in other.tests()}
    assert "GAN †" in page.render(other)
    assert decisions(other, "set") is not None


def test_test_cases_of_one_label_have_no_curve_and_the_page_is_written(tmp_path: Path) -> None:
    findings = labelled_findings(tmp_path, "multiclass", "accuracy")
    alone = {key: replace(run, label=np.ones_like(run.label)) for key, run in findings.results.items()}
    text = page.render(replace(findings, results=alone))
    assert "Sharp †: ROC" not in text
    assert "Sharp †: scores" in text


@pytest.mark.parametrize("damage", ["gone", "torn", "other"])
def test_damaged_classes_of_a_run_are_one_line(tmp_path: Path, damage: str) -> None:
    findings = labelled_findings(tmp_path, "multilabel", "map")
    path = tmp_path / "sharp0" / "classes.csv"
    text = path.read_text()
    path.unlink()
    if damage != "gone":
        path.write_text(text[:2000] if damage == "torn" else text.replace("Gun", "Gum"))
    with pytest.raises(UserError, match=r"classes\.csv.* evaluate the run to write it again"):
        page.render(findings)
