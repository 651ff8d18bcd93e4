from pathlib import Path

import numpy as np
import pytest
import yaml
from dashboard_runs import add_run
from study_runs import keep_pictures

from anomaly_lab.dashboard import compare
from anomaly_lab.dashboard.index import Index
from anomaly_lab.metrics import joint
from anomaly_lab.metrics.comparison import delong
from anomaly_lab.metrics.joint import Sample
from anomaly_lab.studies.results import Result, within_split


@pytest.fixture
def index(place: Path) -> Index:
    index = Index(place)
    index.update()
    return index


def group(index: Index, path: str) -> compare.Group:
    return next(of for of in compare.groups(index) if of.id == index.rows[path].group)


def test_repeats_have_the_joint_interval_of_their_scores(index: Index):
    results = [Result.read(index.place / f"vae_set/{seed}") for seed in range(3)]
    mean = joint.auroc([Sample(run.label, run.score, run.patient) for run in results])
    gain = joint.auroc_difference(
        [Sample(run.label, run.score, run.patient, run.baselines["mean_image"]) for run in results]
    )
    found = group(index, "vae_set/0")
    assert (found.repeats, found.auroc, found.low, found.high) == (3, mean.value, mean.low, mean.high)
    assert (found.gain, found.gain_low, found.gain_high, found.best) == (gain.value, gain.low, gain.high, "mean_image")


def test_a_single_run_has_its_own_interval(index: Index):
    row, found = index.rows["vae_set/wide"], group(index, "vae_set/wide")
    assert (found.repeats, found.auroc, found.low, found.high) == (1, row.auroc, row.low, row.high)
    assert (found.gain, found.best) == (row.gain, row.best)


def test_groups_of_one_experiment_are_told_apart_by_their_settings(index: Index):
    assert group(index, "vae_set/0").differs == "width=8"
    assert group(index, "vae_set/wide").differs == "width=16"
    assert group(index, "pca_set/a").differs == ""


def test_groups_are_told_apart_by_what_runs_recorded_or_else_by_a_number(place: Path):
    for seed, name in enumerate(("a", "b", "c")):
        code = {"training": f"code-{'new' if name == 'c' else 'old'}", "evaluation": "1"}
        run = add_run(place, f"own_set/{name}", 1.0, seed, code=code)
        with (run / "config.yaml").open("a") as file:
            file.write(f"data: {{seed: {seed}, split: {{file: /{name.replace('c', 'b')}/split.csv}}}}\n")
    index = Index(place)
    index.update()
    told = [group(index, f"own_set/{name}").differs for name in ("a", "b", "c")]
    assert told == ["training=code-old (1)", "training=code-old (2)", "training=code-new"]


def test_runs_on_two_folders_of_pictures_are_neither_repeats_nor_compared(place: Path):
    for name, seed in (("one", 0), ("two", 0), ("two", 1)):
        run = add_run(
            place, f"own_set/{name}{seed}", 1.0, seed, source="real", data={"name": "set", "root": f"/d/{name}"}
        )
        told = (run / "config.yaml").read_text().replace("/secret/place/scans", f"/d/{name}")
        (run / "config.yaml").write_text(told)
        rows = "".join(f"{i:03},{i:03},test,{name}{i}\n" for i in range(60))
        (run / "split.csv").write_text(f"id,case,split,digest\n{rows}")
        keep_pictures(run)
    index = Index(place)
    index.update()
    assert [group(index, f"own_set/{path}").repeats for path in ("one0", "two0", "two1")] == [1, 2, 2]
    assert [group(index, f"own_set/{path}").differs for path in ("one0", "two0")] == ["root=one", "root=two"]
    tested = compare.tests(index, ["own_set/one0", "own_set/two0", "own_set/two1"])
    assert [(test.a, test.b) for test in tested] == [("own_set/two0", "own_set/two1")]
    assert len(compare.galleries(index, ["own_set/one0", "own_set/two0"])) == 2
    moved = (place / "own_set/two0/split.csv").read_text()
    (place / "own_set/one0/split.csv").write_text(moved)  # the same files, copied to another folder
    assert within_split(*(Result.read(place / "own_set" / run) for run in ("one0", "two0")))[0] == 60


def test_of_two_runs_of_one_seed_the_newest_counts(place: Path, index: Index):
    add_run(place, "vae_set/0b", 2.0, 0, started="2026-02-01T10:00:00+00:00")
    index.update()
    found = group(index, "vae_set/0")
    assert found.repeats == 3
    values = [index.rows[path].auroc for path in ("vae_set/0b", "vae_set/1", "vae_set/2")]
    assert found.auroc == pytest.approx(np.mean(values))


def test_repeats_whose_scores_are_damaged_have_a_mean_and_a_reason(index: Index):
    (index.place / "vae_set/1/scores.csv").write_text("id\n")
    index.update()
    found = group(index, "vae_set/0")
    assert found.auroc == pytest.approx(np.mean([index.rows[f"vae_set/{seed}"].auroc for seed in range(3)]))
    assert (found.low, found.gain) == (None, None)
    assert str(found.why).startswith("vae_set/1/scores.csv: no rows with")


def test_two_runs_are_tested_on_the_cases_that_both_judged(index: Index):
    one, other = (Result.read(index.place / path) for path in ("vae_set/0", "vae_set/wide"))
    expected = delong(one.label, one.score, other.score, one.patient)
    (test,) = compare.tests(index, ["vae_set/0", "vae_set/wide"])
    assert test == compare.Test("vae_set/0", "vae_set/wide", 60, *expected)
    (turned,) = compare.tests(index, ["vae_set/wide", "vae_set/0"])
    assert (turned.auroc_a, turned.p) == (test.auroc_b, pytest.approx(test.p))


def test_runs_without_scores_or_without_common_cases_are_not_tested(index: Index):
    table = index.place / "vae_set/2/scores.csv"
    table.write_text(table.read_text().replace("\n0", "\nother-0"))
    paths = ["vae_set/0", "vae_set/2", "pca_set/stopped", "pca_set/damaged"]
    index.update()
    assert compare.tests(index, paths) == []


def test_pictures_of_the_same_cases_lie_side_by_side(index: Index):
    (found,) = compare.galleries(index, ["vae_set/0", "vae_set/wide", "pca_set/damaged"])
    assert {case["id"]: case["anomalous"] for case in found["cases"]} == {"001": True, "002": False}
    assert list(found["strips"]) == ["vae_set/0", "vae_set/wide"]
    for strip in found["strips"].values():
        assert {*strip["parts"]} == {"reconstruction", "anomaly_map"}
        assert all(uri.startswith("data:image/jpeg") for by in strip["parts"].values() for uri in by.values())


def test_a_damaged_index_does_not_pass_for_a_result(index: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index, "remembered", lambda what, paths, compute: ["too", "short"])
    assert compare.groups(index) == []
    assert compare.tests(index, ["vae_set/0", "vae_set/1"]) == []


def test_runs_before_and_after_all_pictures_of_a_folder_were_replaced_are_neither_repeats_nor_compared(place: Path):
    for name, seed, content in (("old", 0, "x"), ("new", 1, "y"), ("newer", 0, "y")):
        data = {"name": "set", "root": "/d", "fingerprint": content}
        run = add_run(place, f"own_set/{name}", 1.0, seed, source="real", data=data)
        rows = "".join(f"{i:03},{i:03},test,{content}{i}\n" for i in range(60))
        (run / "split.csv").write_text(f"id,case,split,digest\n{rows}")
    index = Index(place)
    index.update()
    assert [group(index, f"own_set/{name}").repeats for name in ("old", "new", "newer")] == [1, 2, 2]
    tested = compare.tests(index, [f"own_set/{name}" for name in ("old", "new", "newer")])
    assert [(test.a, test.b) for test in tested] == [("own_set/new", "own_set/newer")]
    config = place / "own_set" / "new" / "config.yaml"  # one that reads other pixels has other digests anyway
    content = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(content | {"data": content["data"] | {"patch_size": [7, 7]}}))
    old, new = (Result.read(place / "own_set" / name) for name in ("old", "new"))
    assert within_split(old, new)[0] == 60
