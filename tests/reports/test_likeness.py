"""Likeness, joined patients and cases in no split, on the data sheet and the run report."""

from anomaly_lab.experiment.record import Likeness, check
from anomaly_lab.reports.datasheet import write_datasheet
from anomaly_lab.reports.likeness import curve, sentences
from anomaly_lab.reports.run_report import write_report

from .conftest import HOSTILE
from .test_datasheet import AUDIT, facts, sheet

POINTS = [{"apart": lag, "low": 0.4, "median": 0.9 - lag / 100, "high": 1.0} for lag in (1, 10, 20)]
NEAR = {"pairs": 99, "alike": 52, "threshold": 0.8, "p": 0.0005, "together": True, "judged": 25, "leaking": 13}
FOUND = {
    "nearest": {"test_normal": {"count": 25, "low": 0.1234, "median": 0.5, "high": 0.9}},
    "auroc": {"value": 0.8712, "low": None, "high": None},
    "worst": [{"ids": [HOSTILE, "b"], "splits": ["test", "train"], "likeness": 0.9876}],
    "neighbours": NEAR | {"curve": POINTS},
}
GROUPS = {"rule": "a rule", "thresholds": {"normal": 0.8}, "groups": [["a", HOSTILE]], "patients": 3}
ASIDE = {"count": 3, "ids": [HOSTILE, "x", "y"]}
WORDS = ("13 of 25 judged", "of 99 normals, 52", "AUROC .871", ".988", ".12 to .90", "Likeness of normals", "a rule")


def test_the_data_sheet_shows_them(tmp_path):
    check(FOUND, Likeness)
    content = sheet(facts=facts(audit=AUDIT | {"likeness": FOUND}, groups=GROUPS, in_no_split=ASIDE), alike="data:,x")
    page = write_datasheet(tmp_path / "sheet.html", content).read_text()
    assert HOSTILE not in page
    assert all(words in page for words in WORDS)
    assert "3 cases are in no split" in page


def test_the_report_shows_them(fake_run, edit):
    def audited(provenance):
        provenance["data"]["audit"]["likeness"] = FOUND
        provenance["data"] |= {"groups": GROUPS, "in_no_split": ASIDE}

    edit(fake_run / "provenance.json", audited)
    page = write_report(fake_run).read_text()
    assert HOSTILE not in page
    assert all(words in page for words in WORDS if words != ".988")  # which stands below the sheet, where there is one
    assert "3 cases are in no split" in page


def test_a_set_without_alike_neighbours_is_said_to_be_one():
    calm = FOUND | {"neighbours": NEAR | {"together": False, "alike": 6, "p": 0.3, "curve": POINTS}}
    assert sentences(calm)[0].startswith("Neighbouring files are not more alike than others")
    assert not any("judged" in sentence for sentence in sentences(calm))


def test_too_few_patients_are_said_to_be_too_few():
    few = FOUND | {"neighbours": None, "auroc": None}
    assert sentences(few) == ["There are too few normal patients to tell whether neighbouring files are alike."]
    assert curve(few) is None
