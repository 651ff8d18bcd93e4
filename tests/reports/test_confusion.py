"""The table of confusion is that of the run's decisions, and the scores on the page give it again."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from anomaly_lab.reports.confusion import MOST_SCORES, confusion
from anomaly_lab.reports.record import read_run
from anomaly_lab.reports.run_report import calls, write_report


def rows(*scored: tuple[int, float], split: str = "test") -> list[dict[str, object]]:
    return [{"split": split, "label": label, "score": score} for label, score in scored]


def test_counts_are_those_of_the_decisions(fake_run: Path) -> None:
    record = read_run(fake_run)
    found = confusion(record.scores, record.metrics["threshold"]["value"])
    assert found is not None
    assert found._asdict().items() >= calls(record.scores).items()


def test_a_score_at_the_threshold_is_no_alarm_and_other_splits_do_not_count() -> None:
    found = confusion([*rows((0, 0.5), (1, 0.5), (1, 0.7)), *rows((0, 0.9), split="val")], threshold=0.5)
    assert found is not None
    assert (found.tp, found.fn, found.fp, found.tn) == (1, 1, 0, 1)
    assert (found.sensitivity, found.specificity) == (0.5, 1.0)


def test_scores_on_the_page_read_back_to_the_same_bits() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = confusion(rows(*((0, float(value)) for value in values)), 0.0)
    assert found is not None
    assert sorted(map(float, found.normal.split())) == sorted(values.tolist())
    assert (found.anomalous, found.sensitivity) == ("", None)


@pytest.mark.parametrize(
    ("scores", "threshold"), [([], 0.5), (rows((1, 0.5)), None), (rows((0, 1.0), split="val"), 1.0)]
)
def test_without_a_decision_there_is_no_table(scores: list[dict[str, object]], threshold: float | None) -> None:
    assert confusion(scores, threshold) is None


def test_too_many_scores_stay_off_the_page_which_says_so(fake_run: Path) -> None:
    found = confusion(rows(*[(0, 0.1)] * (MOST_SCORES + 1)), 0.5)
    assert found is not None
    assert (found.tn, found.normal) == (MOST_SCORES + 1, "")
    head, *_ = (fake_run / "scores.csv").read_text().splitlines()
    many = "\n".join(f"n{i},p{i},test,{i % 2},0.{i},,{int(i > 5)},0,0" for i in range(MOST_SCORES + 1))
    (fake_run / "scores.csv").write_text(f"{head}\n{many}\n")
    page = write_report(fake_run).read_text()
    assert "data-threshold" not in re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    assert "more than 20\u202f000 scores" in page


def test_the_page_has_the_table_without_scripts_and_a_slider_that_waits_for_one(fake_run: Path) -> None:
    page = write_report(fake_run).read_text()
    table = page.split('class="confusion"')[1].split("</table>")[0]
    found = confusion((record := read_run(fake_run)).scores, record.metrics["threshold"]["value"])
    assert found is not None
    shown = {key: int(value) for key, value in re.findall(r'data-count="(tp|fp|fn|tn)">(\d+)<', table)}
    assert shown == {key: getattr(found, key) for key in ("tp", "fn", "fp", "tn")}
    assert '<div class="slide" hidden>' in page
