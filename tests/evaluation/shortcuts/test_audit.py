"""The audit: it names what tells the classes apart, and nothing where nothing does."""

import numpy as np
import pytest

from anomaly_lab.evaluation.shortcuts.audit import Column, audit
from anomaly_lab.metrics.ranking import auroc

LABEL = np.repeat([0, 1], 30)
PATIENTS = [f"p{i}" for i in range(60)]


def column(values, kind="greys"):
    return Column("a rule", kind, np.asarray(values))


def only(found):
    (rule,) = found["rules"]
    return rule


def test_the_auroc_is_that_of_the_ranking_with_ties_and_gaps():
    values = np.round(np.random.default_rng(0).normal(LABEL, 1), 1)
    assert only(audit(LABEL, PATIENTS, {"x": column(values)}))["auroc"]["value"] == pytest.approx(auroc(LABEL, values))
    values[::4] = np.nan
    known = np.isfinite(values)
    rule = only(audit(LABEL, PATIENTS, {"x": column(values)}))
    assert rule["auroc"]["value"] == pytest.approx(auroc(LABEL[known], values[known]))


@pytest.mark.parametrize("sign", [1, -1])
def test_both_directions_are_told(sign):
    values = sign * np.random.default_rng(1).normal(2 * LABEL, 1)
    rule = only(audit(LABEL, PATIENTS, {"x": column(values)}))
    assert (rule["auroc"]["value"] > 0.5) == (sign > 0)
    assert rule["told"] > 0.8
    assert rule["alarm"]
    assert rule["p"] < 0.01
    assert rule["auroc"]["low"] < rule["auroc"]["value"] < rule["auroc"]["high"]


def test_what_is_the_same_in_all_is_listed_and_what_says_nothing_is_not():
    columns = {
        "x": column(np.arange(60.0)),
        "same": Column("bits", "files", np.full(60, 8.0)),
        "void": column(np.full(60, np.nan)),
    }
    found = audit(LABEL, PATIENTS, columns)
    assert [rule["name"] for rule in found["rules"]] == ["x"]
    assert found["constant"] == ["bits"]
    assert audit(LABEL, PATIENTS, {"void": columns["void"]})["rules"] == []


def test_two_patients_prove_nothing_however_many_cases_they_have():
    """Ten patients of five cases each: a rule that is the patient's is worth ten values, not fifty."""
    random, alarms = np.random.default_rng(2), 0
    label, patient = np.repeat([0, 1], 25), np.repeat(np.arange(10), 5)
    for _ in range(40):
        values = random.normal(size=10)[patient] + random.normal(size=50) / 10
        alarms += only(audit(label, patient.astype(str).tolist(), {"x": column(values)}))["p"] < 0.05
    assert alarms <= 7  # binomial: more in 3 of 1000 cases


def test_pairs_of_one_patient_are_compared_within_it():
    random = np.random.default_rng(3)
    label, patient = np.tile([0, 1], 30), np.repeat(np.arange(30), 2).astype(str).tolist()
    own = np.repeat(random.normal(size=30), 2)
    rule = only(audit(label, patient, {"x": column(own + 0.2 * label + random.normal(size=60) / 20)}))
    assert rule["p"] < 0.01  # a small difference, but in almost every pair
    assert not rule["alarm"]  # which is too small to matter: AUROC about .55
    assert rule["told"] < 0.7


class TestTexts:
    """A text that many cases of a class have tells it; rare ones cannot fit themselves."""

    def test_a_scanner_of_one_class_is_named(self):
        values = np.where(LABEL == 1, "GE", "Siemens")
        values[:6] = "GE"
        rule = only(audit(LABEL, PATIENTS, {"x": column(values, "files")}))
        assert rule["alarm"]
        assert rule["text"]
        assert 0.79 < rule["auroc"]["low"] < rule["told"] < 1

    def test_many_kernels_of_each_class_are_told_together(self):
        values = np.array([f"{label}{i % 5}" for i, label in enumerate(LABEL)])
        assert only(audit(LABEL, PATIENTS, {"x": column(values, "files")}))["told"] > 0.95

    def test_a_perfect_text_is_no_more_certain_than_a_perfect_number(self):
        label, patients = np.repeat([0, 1], 10), [str(i) for i in range(20)]
        columns = {"text": column(label.astype(str), "files"), "number": column(label, "files")}
        one, other = audit(label, patients, columns)["rules"]
        assert one["auroc"] == pytest.approx(other["auroc"])

    def test_names_of_their_own_tell_nothing(self):
        assert only(audit(LABEL, PATIENTS, {"x": column(np.array(PATIENTS), "files")}))["told"] == 0.5

    def test_chance_is_a_half_on_average(self):
        random, told = np.random.default_rng(4), []
        for _ in range(60):
            values = random.choice(list("abcd"), 60)
            told.append(only(audit(LABEL, PATIENTS, {"x": column(values, "files")}))["told"])
        assert np.mean(told) == pytest.approx(0.5, abs=0.03)


class TestDetector:
    """What a detector's score owes to a rule."""

    def test_a_ruler_is_unmasked(self):
        """Its score is the width and noise: good over all, no better than guessing among like widths."""
        random = np.random.default_rng(5)
        label = np.repeat([0, 1], 300)
        width = random.normal(1.5 * label, 1)
        real = random.normal(1.5 * label, 1)
        columns = {"width": column(width, "files")}
        patients = [str(i) for i in range(600)]
        ruler = audit(label, patients, columns, width + random.normal(size=600) / 10)
        honest = audit(label, patients, columns, real)
        assert ruler["score"] > 0.8 < honest["score"]
        assert only(ruler)["follows"] > 0.95
        assert abs(only(honest)["follows"]) < 0.2
        (of_ruler,), (of_honest,) = ruler["strata"], honest["strata"]
        assert of_ruler["auroc"]["value"] < ruler["score"] - 0.15
        assert of_honest["auroc"]["value"] > honest["score"] - 0.05
        assert of_honest["auroc"]["low"] < of_honest["auroc"]["value"] < of_honest["auroc"]["high"]
        assert 0.05 < of_honest["pairs"] < 0.25

    def test_equal_values_stay_together_and_texts_are_strata(self):
        label, patients = np.tile([0, 1], 30), PATIENTS
        score = np.arange(60.0)
        site = np.where(np.arange(60) < 30, "a", "b")
        wide = np.repeat([1.0, 2.0], 30)
        for values in (site, wide):
            told = np.where(label == 1, values, values[::-1])
            found = audit(label, patients, {"x": column(told, "files")}, score)
            for stratum in found["strata"]:
                assert 0 < stratum["pairs"] <= 1

    @pytest.mark.parametrize("sign", [1, -1, 0])
    def test_a_ruler_of_two_widths_is_unmasked_whichever_is_rare(self, sign):
        """Cases of one width are alike; those of both never are, though less than a fifth have the smaller one."""
        width = np.repeat([512.0, 600.0, 600.0], [23, 2, 100])
        label, patients = np.repeat([0, 1], [25, 100]), [str(i) for i in range(125)]
        values = np.where(width > 550, "wide", "narrow") if sign == 0 else sign * width
        (stratum,) = audit(label, patients, {"x": column(values, "files")}, width)["strata"]
        assert stratum["auroc"]["value"] == 0.5
        assert stratum["pairs"] == pytest.approx(2 * 100 / (25 * 100))

    def test_a_handful_of_pairs_has_no_interval(self):
        """Two normals share their value with anomalous cases; the other patients say nothing."""
        label, patients = np.repeat([0, 1], [30, 30]), [str(i) for i in range(60)]
        values = np.repeat([0.0, 1.0], [28, 32])
        (stratum,) = audit(label, patients, {"x": column(values, "files")}, np.arange(60.0))["strata"]
        assert stratum["auroc"]["value"] == 1
        assert np.isnan(stratum["auroc"]["low"])

    def test_names_are_no_strata(self):
        found = audit(LABEL, PATIENTS, {"x": column(np.arange(60.0), "names")}, np.arange(60.0))
        assert found["strata"] == []
        assert only(found)["alarm"]


def noisy(random, label):
    """Rules on pure noise, in groups that resemble each other, one of them a text."""
    base = random.normal(size=(6, len(label)))
    rules = {f"r{i}": column(base[i % 6] + random.normal(size=len(label))) for i in range(30)}
    return rules | {"text": column(random.choice(list("abc"), len(label)), "files")}


@pytest.mark.slow
def test_noise_is_accused_in_five_percent_of_cases():
    """2 × 30 cases, 31 rules, 400 sets: the alarm of any rule; binomial, 5 % ± 2 sd is 2.8 to 7.2 %."""
    random = np.random.default_rng(6)
    accused = [min(rule["p"] for rule in audit(LABEL, PATIENTS, noisy(random, LABEL))["rules"]) for _ in range(400)]
    assert 0.025 <= np.mean(np.array(accused) < 0.05) <= 0.07
