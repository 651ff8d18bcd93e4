"""The report says all the run folder holds, escapes what strangers wrote, and needs nothing from outside."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import own, scripts_of
from PIL import Image

from anomaly_lab.reports.charts import rate
from anomaly_lab.reports.html import Banner, number
from anomaly_lab.reports.record import read_run
from anomaly_lab.reports.run_report import banners, calls, stalled, verdict, write_report
from anomaly_lab.types import UserError

from .conftest import HOSTILE, fake_metrics, fake_provenance

EditFile = Callable[[Path, Callable[[dict[str, Any]], None]], None]


def page(run: Path) -> str:
    return write_report(run).read_text()


def test_one_file_that_asks_nobody(fake_run: Path) -> None:
    text = page(fake_run)
    assert "http://" not in text
    assert "https://" not in text
    assert scripts_of(text) == own()
    assert "url(" not in text
    assert "@import" not in text
    assert all(value.startswith("data:image/png;base64,") for value in re.findall(r'src="([^"]*)"', text))
    assert all(value.startswith(("data:", "#")) for value in re.findall(r'href="([^"]*)"', text))


def test_hostile_text_is_shown_as_text(fake_run: Path) -> None:
    text = page(fake_run)
    assert HOSTILE not in text
    assert (
        text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    )  # gallery, skipped file, audit, configuration, record


def numbers(node: Any) -> list[float]:
    if isinstance(node, dict):
        return [n for child in node.values() for n in numbers(child)]
    return [node] if isinstance(node, int | float) and not isinstance(node, bool) else []


def test_every_number_of_the_metrics_is_shown(fake_run: Path) -> None:
    text = page(fake_run)
    stored = text.index("<summary>Stored metrics")  # there they all are, of course
    shown = written(re.sub(r'src="[^"]*"', "", text[:stored]))
    missing = [n for n in numbers(fake_metrics()) if not {rate(n), rate(n, 2), number(n), str(n)} & shown]
    assert not missing


def written(text: str) -> set[str]:
    return set(re.findall(r"[−-]?\d*\.?\d+", re.sub(r"(?<=\d)\u202f(?=\d)", "", text)))


@pytest.mark.parametrize(
    ("difference", "beaten", "kind", "title"),
    [
        ((0.1, 0.02, 0.2), True, "good", "Better than the baselines"),
        ((0.1, -0.02, 0.2), True, "open", "Better than the baselines, but not clearly"),
        ((-0.1, -0.2, 0.1), False, "bad", "Not better than the baselines"),
        ((None, None, None), False, "open", "No verdict"),
    ],
)
def test_the_verdict_weighs_the_interval(
    difference: tuple[float | None, ...], beaten: bool, kind: str, title: str
) -> None:
    metrics = fake_metrics()
    metrics["versus_baselines"] |= {
        "difference": dict(zip(("value", "low", "high"), difference, strict=True)),
        "beaten": beaten,
        "sentence": "It is so.",
    }
    assert verdict(metrics) == Banner(kind, title, "It is so.")


def test_terms_of_the_score_stand_beside_each_other(fake_run: Path, edit: EditFile) -> None:
    assert "Terms of the score" not in page(fake_run)
    auroc = {"round_trip": {"value": 0.871, "low": 0.812, "high": 0.913}, "image": {"value": 0.642}}
    correlation = {"round_trip": {"round_trip": 1.0, "image": -0.37}}
    terms = {"auroc": auroc, "correlation": correlation}
    edit(fake_run / "metrics.json", lambda metrics: metrics.update(components=terms))
    text = page(fake_run)
    assert 'href="#components"' in text
    assert "round trip" in text
    assert {".871", ".81", ".91", ".642", "−.37"} <= written(text)
    edit(fake_run / "metrics.json", lambda metrics: metrics.update(components={}))
    assert "Terms of the score" not in page(fake_run)


def test_the_verdict_stands_on_the_page(fake_run: Path) -> None:
    text = page(fake_run)
    assert 'class="verdict open"' in text
    assert fake_metrics()["versus_baselines"]["sentence"] in text


def test_every_baseline_is_compared_and_older_records_say_that_they_are(fake_run: Path, edit: EditFile) -> None:
    older = page(fake_run)
    assert "made by an older version" in older
    assert older.count("AUROC minus") == 1
    each = {"pca_32": {"value": 0.065, "low": -0.012, "high": 0.143, "p": 0.0004}, "other": {"value": 0.1, "p": None}}
    new = {"versus_baselines": fake_metrics()["versus_baselines"] | {"each": each}}
    new["intervals"] = {"patients": {"normal": 40, "anomalous": 60}, "remark": None}
    edit(fake_run / "metrics.json", lambda content: content.update(new))
    text = page(fake_run)
    assert "made by an older version" not in text
    assert "For new patients, level 0.95" in text
    assert text.count("AUROC minus") == 2
    assert "p < .001" in text or "p &lt; .001" in text


def test_few_patients_are_said_where_intervals_would_stand(fake_run: Path, edit: EditFile) -> None:
    few = "No intervals: 3 normal and 40 anomalous patients were judged, and an interval needs 5 of each."
    edit(fake_run / "metrics.json", lambda content: content.update(intervals={"remark": few}))
    text = page(fake_run)
    assert text.count(few) == 3  # the banner, the caption below the figures, the record at the end
    assert "% confidence interval" not in text


def test_cases_judged_by_patches_and_limits_are_told(fake_run: Path, edit: EditFile) -> None:
    assert "rule “top_k”" not in page(fake_run)
    edit(fake_run / "metrics.json", lambda content: content.update(unit={"judged": "case", "rule": "top_k"}))
    more = {"limits": {"train": 500.0}, "census": {"images": 120}, "official": {"images": 322}}
    edit(fake_run / "provenance.json", lambda content: content["data"].update(more))
    text = page(fake_run)
    assert "the mean of their highest scores (rule “top_k”)" in text
    assert "Limits, sampled with the seed: train 500." in text
    assert "120 of the 322 images of the official data set are present." in text


PAIR = {"ids": ["a.png", "b.png"], "splits": ["train", "test"]}


def _audited(**found: Any) -> dict[str, Any]:
    return {"audit": {"shared_patients": [], "crossing": 0, "contradicting": []} | found}


@pytest.mark.parametrize(
    ("change", "titles"),
    [
        ({}, ["Synthetic twin", "Reduced budget: laptop"]),
        ({"source": "real"}, ["Reduced budget: laptop"]),
        ({"source": "real", "budget": "paper"}, []),
        ({"source": "real", "budget": "paper", "finished": None}, ["Unfinished run"]),
        ({"source": "real", "budget": "paper", "evaluating": "anew"}, ["Interrupted evaluation"]),
        ({"source": "real", "budget": "paper", "evaluating": None}, []),
        ({"source": "real", "budget": "paper", "data": {"contamination": 0.05}}, ["Contaminated training"]),
        ({"source": "real", "budget": "paper", "data": _audited(crossing=1)}, ["Images in several splits"]),
        (
            {"source": "real", "budget": "paper", "data": _audited(shared_patients=["p"])},
            ["Patients in several splits"],
        ),
        ({"source": "real", "budget": "paper", "data": _audited(contradicting=[PAIR])}, ["Contradicting labels"]),
        (
            {"source": "real", "budget": "paper", "health": {"collapsed": True, "diversity": 0.31}},
            ["Generator collapsed"],
        ),
        ({"source": "real", "budget": "paper", "detector": {"caveats": ["random weights"]}}, ["Read with care"]),
        ({"source": "real", "budget": "paper", "health": {"collapsed": False, "diversity": 0.9}}, []),
    ],
)
def test_banners_stand_exactly_when_due(change: dict[str, Any], titles: list[str]) -> None:
    provenance = fake_provenance() | {"data": _audited(identical=[PAIR])} | change
    assert [b.title for b in banners(provenance, fake_metrics())] == titles


def test_the_threshold_warning_and_the_paper_lengths_are_named() -> None:
    metrics = fake_metrics()
    metrics["threshold"]["warning"] = "only 7 validation normals"
    found = {b.title: b.text for b in banners(fake_provenance(), metrics)}
    assert found["Threshold"] == "only 7 validation normals"
    assert "gan 50\u202f000" in found["Reduced budget: laptop"]


def test_a_threshold_drawn_from_the_test_split_is_told(fake_run: Path, edit: EditFile) -> None:
    assert "No test image and no anomalous image influences it." in page(fake_run)
    cheat = {"rule": "highest F1 on the test labels", "uses_test": True, "quantile": None, "num_normals": 0}
    edit(fake_run / "metrics.json", lambda content: content["threshold"].update(cheat))
    caveat = "the threshold is where F1 on the test labels is highest"
    edit(fake_run / "provenance.json", lambda content: content["detector"].update(caveats=[caveat]))
    text = page(fake_run)
    assert text.index(caveat) < text.index('id="verdict"')  # above every number
    assert "(rule: highest F1 on the test labels). Each baseline" in text
    assert "Set on the test split itself" in text
    assert "influences it" not in text


def test_the_epoch_that_was_chosen_is_told(fake_run: Path, edit: EditFile) -> None:
    facts = {"rule": "best epoch by test labels", "iteration": 700, "auroc": 0.871, "last_auroc": 0.823}
    edit(fake_run / "provenance.json", lambda content: content.update(checkpoint=facts))
    told = (
        "Rule “best epoch by test labels”, iteration 700: its AUROC on the test split was .871, the last epoch’s .823."
    )
    assert told in page(fake_run)


def test_an_unfinished_run_has_a_report(fake_run: Path) -> None:
    for name in ("metrics.json", "scores.csv", "samples/gallery.npz", "provenance.json"):
        (fake_run / name).unlink()
    log = fake_run / "metrics.jsonl"
    log.write_text(log.read_text() + '{"iteration": 20')
    text = page(fake_run)
    for sentence in ("Not evaluated yet", "No scores have been recorded", "no pictures of cases", "no leakage audit"):
        assert sentence in text
    assert "1 unreadable line left out" in text


def test_a_network_that_stopped_learning_is_named() -> None:
    def log(*norms: float) -> list[dict[str, Any]]:
        return [{"phase": "encoder", "iteration": 10 * i, "train/grad_encoder": g} for i, g in enumerate(norms)]

    assert "gradient of encoder is 0 from iteration 20 on" in stalled(log(1.0, 0.5, 0, 0, 0, 0, 0))[0].text
    assert stalled(log(1.0, 0.5, 0, 0, 0, 0)) == stalled(log(0, 0, 0, 0, 0, 0, 1e-9)) == stalled([]) == []


def test_maps_stand_beside_those_of_the_floors(fake_run: Path, edit: EditFile) -> None:
    text = page(fake_run)
    assert "no better than those of the best baseline" in text
    for figure in (".913 [.88, .94]", ".931 [.90, .96]", ".601 [.55, .65]", "jackknife over 100 patients"):
        assert figure in text
    edit(fake_run / "metrics.json", lambda metrics: metrics["pixels"]["versus_baselines"].update(beaten=True))
    text = page(fake_run)
    assert "better than those of the best baseline" in text
    assert "no better than" not in text


def test_a_record_from_before_maps_had_intervals(fake_run: Path, edit: EditFile) -> None:
    old = {"auroc": 0.913, "pro": 0.547, "num_masks": 60}
    edit(fake_run / "metrics.json", lambda metrics: metrics.update(pixels=old))
    text = page(fake_run)
    assert ".913</td>" in text
    assert "jackknife" not in text


def test_a_run_without_threshold_masks_or_floors(fake_run: Path, edit: EditFile) -> None:
    def strip(metrics: dict[str, Any]) -> None:
        metrics["threshold"] |= {"value": None, "warning": "no normals were held out"}
        metrics["pixels"] = metrics["versus_baselines"] = metrics["oracle"] = None
        metrics["baselines"] = {}
        for name in ("accuracy", "precision", "recall", "specificity", "f1"):
            metrics["detector"][name] = None
        metrics["detector"]["auroc"] = {"value": None, "low": None, "high": None}

    edit(fake_run / "metrics.json", strip)
    scores = fake_run / "scores.csv"
    scores.write_text("id,patient,split,label,score,p_value,pred_label\na,p,test,1,.5,,\nb,q,test,0,.2,,\n")
    text = page(fake_run)
    assert "Reason: no normals were held out." in text
    assert "No lesion masks" in text
    assert "No verdict" in text


def test_one_class_has_no_curves(fake_run: Path) -> None:
    lines = (fake_run / "scores.csv").read_text().splitlines()
    (fake_run / "scores.csv").write_text("\n".join([lines[0], *(line for line in lines if "test,0" in line)]))
    assert "need both classes" in page(fake_run)


def test_calls_are_counted_on_the_test_split() -> None:
    said = [("test", 1, 1), ("test", 1, 0), ("test", 0, 0), ("test", 0, 0), ("val", 0, 1), ("test", 0, None)]
    rows = [dict(zip(("split", "label", "pred_label"), row, strict=True)) for row in said]
    assert calls(rows) == {"tp": 1, "fp": 0, "tn": 2, "fn": 1}


def test_a_failed_write_leaves_the_old_report(fake_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = page(fake_run)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_report(fake_run)
    assert (fake_run / "report.html").read_text() == before
    assert sorted(p.name for p in fake_run.iterdir() if p.suffix not in (".json", ".jsonl", ".csv", ".yaml")) == [
        "report.html",
        "samples",
    ]


def test_sheets_of_the_generator_are_shown_where_they_are_whole(fake_run: Path) -> None:
    assert 'id="generator"' not in page(fake_run)
    for name in ("interpolation", "style_mixing"):
        Image.new("L", (7, 5)).save(fake_run / "samples" / f"{name}.png")
    text = page(fake_run)
    shown = text.split('<section id="generator">')[1].split("</section>")[0]
    assert text.count('href="#generator"') == 1
    assert re.findall(r"<h3>(.*?)</h3>", shown) == ["Interpolation", "Style mixing"]
    assert shown.count("data:image/png") == 2
    torn = fake_run / "samples" / "style_mixing.png"
    torn.write_bytes(torn.read_bytes()[:40])
    assert "Style mixing" not in page(fake_run)


def test_the_same_record_gives_the_same_report(fake_run: Path) -> None:
    assert page(fake_run) == page(fake_run)


def test_a_folder_that_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_broken_metrics_are_named(fake_run: Path) -> None:
    (fake_run / "metrics.json").write_text(json.dumps(fake_metrics())[:-9])
    with pytest.raises(UserError, match=r"metrics\.json cannot be read .* make evaluate"):
        write_report(fake_run)


def test_shortcuts_stand_above_and_have_a_section(fake_run: Path, edit: EditFile) -> None:
    assert 'id="shortcuts"' not in page(fake_run)  # a run from before the audit
    width = {"name": "files.width", "title": HOSTILE, "kind": "files", "p": 0.0001, "chance": 0.1, "alarm": True}
    width |= {"auroc": {"value": 0.83, "low": 0.7, "high": 0.9}, "told": 0.83, "follows": 0.41, "text": False}
    counts = {"normal": 25, "anomalous": 100}
    stratum = {
        "name": "files.width",
        "title": HOSTILE,
        "auroc": {"value": 0.6, "low": None, "high": None},
        "pairs": 0.2,
    }
    found = {
        "cases": counts,
        "of": counts | {"anomalous": 1234},
        "patients": 99,
        "unit": "image",
        "constant": [HOSTILE],
    }
    found |= {"rules": [width], "score": 0.79, "strata": [stratum]}
    edit(fake_run / "metrics.json", lambda metrics: metrics.update(shortcuts=found))
    text = page(fake_run)
    assert text.index("A shortcut.") < text.index('<section id="verdict">') < text.index('<section id="shortcuts">')
    assert HOSTILE not in text
    for words in ("This detector has .79", "drawn from 25 and 1\u202f234", "&lt; .001", ">.41<", "The same in all"):
        assert words in text, words
    edit(fake_run / "metrics.json", lambda metrics: metrics.update(shortcuts=None))
    assert "Not looked for" in page(fake_run)


def test_the_method_says_what_cross_fitted_normals_are(fake_run: Path, edit: EditFile) -> None:
    def crossfit(metrics: dict[str, Any]) -> None:
        metrics["threshold"] |= {"num_normals": 100, "num_cross_fitted": 75}

    before = page(fake_run)
    edit(fake_run / "metrics.json", crossfit)
    text = page(fake_run)
    method = text.split('<section id="method">')[1].split("</section>")[0]
    assert "100 normals: 25 of validation, which are not used for training, and 75 of training, cross-fitted" in method
    assert "number of validation and cross-fitted normals" in method
    assert "and 75 of training, cross-fitted" in text.split('<section id="method">')[0]
    assert "cross-fitted" not in before


def test_all_missed_cases_are_shown_and_the_section_says_whether_it_is_all(fake_run: Path) -> None:
    record = read_run(fake_run)
    missed = [row["id"] for row in record.scores if (row["split"], row["label"], row["pred_label"]) == ("test", 1, 0)]
    for ids, words in (
        (missed, f"All {len(missed)} missed"),
        (missed[1:], f"{len(missed) - 1} of the {len(missed)} missed"),
    ):
        pictures = np.zeros((len(ids), 1, 8, 8), np.float16)
        path, kind = fake_run / "samples" / "missed.npz", np.array(["fn"] * len(ids))
        np.savez(path, id=np.array(ids), kind=kind, image=pictures, anomaly_map=pictures)
        found = page(fake_run).split('<details class="missed">')[1].split("</details>")[0]
        assert words in found
        assert found.count('class="pictures stack"') == len(ids)
        assert found.count('data-layer="Anomaly map over the input"') == len(ids)


def test_only_the_runs_own_report_names_cases() -> None:
    """The same warnings go into exports, servers' answers, prediction pages and cards."""
    said = "1 scan not cropped: look at it."
    pair = {"ids": ["smith_1.png", "smith_2.png"], "splits": ["train", "test"]}
    audit = {"identical": [pair], "near_identical": [pair], "crossing": 2, "shared_patients": ["smith"],
             "contradicting": [pair]}  # fmt: skip
    change = {"at": "2026", "verb": "evaluate", "changes": "1 removed", "named": "1 removed (smith_3.png)"}
    older = {"at": "2025", "verb": "resume", "changes": "1 removed (smith_4.png)"}
    data = {
        "remarks": [said],
        "concerned": {said: ["smith_5.png"]},
        "audit": audit,
        "in_no_split": {"ids": ["smith_6"]},
    }
    provenance = {"data": data, "accepted_changes": [older, change], "skipped": [{"file": "smith_7.png"}]}
    assert "smith" not in str(banners(provenance, {}))
    told = str(banners(provenance, {}, named=True))
    assert all(f"smith_{number}" in told for number in (1, 2, 3, 4, 5))
