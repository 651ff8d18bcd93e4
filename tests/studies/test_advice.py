"""The advice follows what is told apart, and costs; where nothing is, it says so."""

from pathlib import Path

import numpy as np

from anomaly_lab.studies.advice import advice
from anomaly_lab.studies.findings import Findings
from anomaly_lab.studies.plan import DataSet, Key, Row, Study
from anomaly_lab.studies.results import Result

LABEL = np.repeat([0, 1], 100)


def result(shift: float, seconds: float, baseline: float | None = None, **metrics: object) -> Result:
    """Scores of 100 + 100 patients, whose anomalies lie higher by `shift` standard deviations."""
    ids, random = np.arange(200).astype(str), np.random.default_rng(int(shift * 10))
    score = random.normal(size=200) + shift * LABEL
    baselines = {} if baseline is None else {"pca_32": random.normal(size=200) + baseline * LABEL}
    facts = {"seconds": {"gan": seconds}, "detector": {"phases": {"gan": 1}}}
    return Result(Path("run"), ids, ids, LABEL, score, baselines, facts, metrics)


def findings(**runs: Result) -> Findings:
    rows = {name: Row(name, name) for name in runs}
    study = Study("s", "S", datasets={"own": DataSet("Own")}, rows=rows, advice=True)
    return Findings(study, {Key(name, "own", 0): run for name, run in runs.items()})


def said(of: Findings) -> str:
    found = advice(of, "own")
    assert found is not None
    return " ".join(found.paragraphs)


def test_a_method_that_stands_out_is_taken() -> None:
    of = findings(good=result(2.5, 60.0), bad=result(0.2, 1.0))
    found = advice(of, "own")
    assert found is not None
    assert found.choice == "good"
    assert [(place.line.name, place.is_alike) for place in found.ranked] == [("good", True), ("bad", False)]
    assert "Take it: it trains in 1 min 0 s" in said(of)


def test_of_methods_that_are_not_told_apart_the_cheapest_is_taken() -> None:
    of = findings(slow=result(1.8, 600.0), quick=result(1.5, 5.0), bad=result(0.0, 1.0))
    found = advice(of, "own")
    assert found is not None
    assert found.choice == "quick"
    assert {place.line.name for place in found.ranked if place.is_alike} == {"slow", "quick"}
    assert "not told apart from" in said(of)
    assert "trained in 5 s" in said(of)
    assert "100 patients without and 100 with anomalies" in said(of)


def test_a_method_that_was_judged_on_other_repeats_is_not_compared() -> None:
    """Its mean is of other patients: the one fold that it has may be the easy one."""
    rows = {name: Row(name, name) for name in ("whole", "part")}
    study = Study("s", "S", datasets={"own": DataSet("Own")}, rows=rows, advice=True)
    runs = {Key("whole", "own", seed): result(1.0, 5.0) for seed in (0, 1)} | {Key("part", "own", 0): result(2.5, 5.0)}
    found = advice(Findings(study, runs, {Key("part", "own", 1): "it broke"}), "own")
    assert found is not None
    assert [place.line.name for place in found.ranked] == ["whole"]
    assert "Not compared, because runs of theirs are missing: part." in found.paragraphs
    runs[Key("whole", "own", 0)] = result(1.0, 5.0, baseline=2.0)  # on one of its two seeds
    first = advice(Findings(study, runs, {Key("whole", "own", 1): "it broke"}), "own")
    assert first is not None
    assert [place.line.name for place in first.ranked] == ["part"]  # nor are baselines of the reference's runs
    planned_otherwise = advice(Findings(study, runs), "own")  # by its own `seeds`: nothing is missing
    assert planned_otherwise is not None
    assert len(planned_otherwise.ranked) == 3
    apart = {Key("whole", "own", 0): result(1.0, 5.0), Key("part", "own", 1): result(1.0, 5.0)}
    alone = advice(Findings(study, apart, {Key("whole", "own", 1): "", Key("part", "own", 0): ""}), "own")
    assert alone is not None
    assert (alone.ranked, alone.choice) == ([], "")


def test_a_baseline_as_good_as_the_best_is_said_to_be_enough() -> None:
    near = findings(gan=result(1.6, 60.0, baseline=1.4))
    found = advice(near, "own")
    assert found is not None
    assert found.choice == "pca_32"
    assert "costs nothing, every report has it" in said(near)
    far = findings(gan=result(0.5, 60.0, baseline=3.0))
    assert "no detector of this list is worth its training" in said(far)


def test_the_time_of_what_a_method_starts_from_is_its_own() -> None:
    """Scored otherwise, a trained GANomaly has no time of its own; it would have been advised as one of no time."""
    late = result(2.5, 60.0)
    late.facts.update(seconds={}, started_from={"phase": "gan", "seconds": 60.0})
    assert "it trains in 1 min 0 s" in said(findings(late=late, bad=result(0.2, 1.0)))
    late.facts.pop("started_from")
    assert "Take it." in said(findings(late=late, bad=result(0.2, 1.0)))


def test_of_many_that_are_alike_a_sentence_names_four() -> None:
    of = findings(**{f"m{i}": result(i / 10, 10.0 + i) for i in range(12)})
    found = advice(of, "own")
    assert found is not None
    others = sum(place.is_alike for place in found.ranked) - 1
    assert 4 < others < 11
    assert f" and {others - 4} more." in said(of)


def test_guessing_is_called_so() -> None:
    assert "reaches down to guessing" in said(findings(gan=result(0.0, 60.0)))
    assert "reaches down to guessing" not in said(findings(gan=result(2.0, 60.0)))


def test_shortcuts_and_what_planted_lesions_would_have_chosen_are_named() -> None:
    rule = {
        "name": "files.width",
        "title": "width",
        "kind": "files",
        "auroc": {"value": 0.9},
        "told": 0.9,
        "alarm": True,
    }
    of = findings(
        gan=result(2.0, 60.0, shortcuts={"rules": [rule], "unit": "image"}, planted={"detector": {"auroc": 0.6}}),
        vae=result(1.0, 60.0, planted={"detector": {"auroc": 0.7}}),
    )
    assert "can be told apart by the width" in said(of)
    assert "would have chosen vae" in said(of)


def test_neighbours_that_train_flatter_and_the_way_out_is_named() -> None:
    def audited(together: bool, leaking: int) -> Findings:
        of = findings(gan=result(2.0, 60.0), vae=result(1.0, 60.0))
        near = {"together": together, "leaking": leaking, "judged": 34}
        for run in of.results.values():
            run.facts["data"] = {"audit": {"likeness": {"neighbours": near}}}
        return of

    assert "14 of 34 judged normals have such a neighbour that trains" in said(audited(together=True, leaking=14))
    assert "data.group=likeness" in said(audited(together=True, leaking=14))
    joined = audited(together=True, leaking=2)
    for run in joined.results.values():
        run.facts["data"]["groups"] = {"patients": 120}
    assert "2 of 34 judged normals have such a neighbour that trains" in said(joined)
    assert "has joined the others" in said(joined)
    assert "Give data.group=likeness" not in said(joined)
    for harmless in (audited(together=False, leaking=3), audited(together=True, leaking=0)):
        assert "data.group=likeness" not in said(harmless)


def test_without_results_there_is_none() -> None:
    rows = {"gan": Row("gan", "gan")}
    assert advice(Findings(Study("s", "S", datasets={"own": DataSet("Own")}, rows=rows), {}), "own") is None
