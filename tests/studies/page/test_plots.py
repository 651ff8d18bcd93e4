"""Charts of a study: curves that keep their area, charts small enough for a table's cell."""

import re
from pathlib import Path

import numpy as np
import pytest
from study_runs import judged, write_run

from anomaly_lab.metrics import ranking
from anomaly_lab.reports.svg import Axis
from anomaly_lab.studies.decisions import Gain, decisions
from anomaly_lab.studies.findings import Findings, read_findings
from anomaly_lab.studies.health import Relation
from anomaly_lab.studies.page import plots
from anomaly_lab.studies.plan import DataSet, Key, Row, Study
from anomaly_lab.studies.results import Result

STUDY = Study(name="s", title="S", datasets={"set": DataSet("Set")}, rows={"a": Row("A", "x"), "b": Row("B", "x")})


def test_averaged_curves_keep_their_area():
    random = np.random.default_rng(0)
    label = np.arange(4000) % 2
    result = Result(None, np.arange(4000), np.arange(4000), label, random.normal(size=4000) + label, {}, {})
    recall = np.interp(plots.GRID, *plots._steps(result))
    area = np.trapezoid(recall, plots.GRID)
    assert area == pytest.approx(ranking.auroc(label, result.score), abs=0.003)


def test_a_curve_passes_over_what_has_no_figure_and_takes_equal_places():
    rows = {name: Row(name, "x", x=x) for name, x in (("a", 1), ("b", 1), ("c", 2))}
    study = Study(name="s", title="S", datasets={"set": DataSet("Set")}, rows=rows, curve="width")
    ids, both, one = np.arange(4).astype(str), np.array([0, 0, 1, 1]), np.ones(4, int)
    runs = {
        Key(name, "set", 0): Result(Path("run"), ids, ids, label, np.array([0.1, 0.4, 0.3, 0.9]), {}, {})
        for name, label in (("a", both), ("b", both), ("c", one))  # of one class there is no AUROC
    }
    panel = plots.curve_over(Findings(study, runs), "set")
    assert panel is not None
    assert "nan" not in panel.svg.lower()
    assert plots.curve_over(Findings(study, {Key("c", "set", 0): runs[Key("c", "set", 0)]}), "set") is None


def test_the_axis_of_gains_has_room_for_all_intervals_and_for_no_difference():
    gains = {"a": {"f1": Gain([0.1], 0.1, 0.05, 0.2)}, "b": {"f1": Gain([0.3], 0.3, float("nan"), float("nan"))}}
    axis = plots.axes(gains)["f1"]
    assert axis.low < 0
    assert axis.high > 0.3


def test_a_spark_is_hollow_where_the_interval_holds_nothing_at_all():
    axis = Axis("", -1, 1)
    sure, unsure = plots.spark(Gain([0.5], 0.5, 0.1, 0.9), axis), plots.spark(Gain([0.5], 0.5, -0.1, 0.9), axis, True)
    assert "hollow" not in sure
    assert "series-0" in sure
    assert "hollow" in unsure
    assert "series-1" in unsure
    nothing = plots.spark(Gain([], *[float("nan")] * 3), axis)
    assert not re.search("circle|whisker|nan", nothing)
    assert re.findall(r">([^<]+)</text>", plots.spark(None, axis)) == ["−1", "1"]


def test_what_a_trivial_rule_reaches_is_a_tick_beside_every_row(tmp_path):
    runs = {Key(row, "set", 0): judged(write_run(tmp_path / row, 1.0)) for row in ("a", "b")}
    panel = plots.decided(decisions(read_findings(STUDY, runs, {}), "set"), "accuracy")
    assert "best trivial rule, .500" in panel.svg
    assert panel.svg.count("v16") == 3  # A, B, the floor


def test_marked_runs_have_another_colour_in_a_scatter(tmp_path):
    runs = {
        Key("a", "set", 0): write_run(tmp_path / "a", 1.0, source="real"),
        Key("b", "set", 0): write_run(tmp_path / "b", 1.0, source="twin"),
    }
    svg = plots.scatter(Relation("FID", list(runs), [1, 2], [0.5, 0.6], 1, 0, 1), read_findings(STUDY, runs, {})).svg
    assert svg.count('class="dot series-0"') == 2  # and in the legend
    assert svg.count('class="dot series-1"') == 2
