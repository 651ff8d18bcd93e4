"""classes.csv and its metrics: bit-exact rows, damage in one line, validation alone decides, odd classes are named."""

import json
from dataclasses import replace

import numpy as np
import pytest
import toy_classes
from sklearn import metrics as sklearn_metrics

from anomaly_lab.evaluation.classes import ClassTable, Supervision, evaluate_classes
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment import record
from anomaly_lab.metrics.calibration import fit_temperature
from anomaly_lab.metrics.classification import MEANS, PER_CLASS
from anomaly_lab.types import UserError


def evaluated(table, scores, told, replicates=50, threshold=0.6):
    return evaluate_classes(table, scores, told, threshold, replicates)


def changed(table, scores, split, **columns):
    """The same cases with other columns in a split: name -> function of its values."""
    rows = scores.of(split)
    new = {}
    for name, change in columns.items():
        values = getattr(table, name).copy()
        values[rows] = change(values[rows])
        new[name] = values
    return replace(table, **new)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_rows_are_read_back_bit_for_bit(tmp_path, task):
    table, _, _ = toy_classes.example(task)
    path = tmp_path / "classes.csv"
    path.write_text(table.to_csv())
    back = ClassTable.read(path)
    assert (back.id, back.patient, back.split, back.classes) == (table.id, table.patient, table.split, table.classes)
    assert back.target.tolist() == table.target.tolist()
    assert back.probability.tobytes() == table.probability.tobytes()


def test_names_that_a_spreadsheet_takes_for_formulas_come_back(tmp_path):
    table = ClassTable(["=1+1"], ["@p"], ["test"], ("=a,b", 'say "x"'), np.array([[1, 0]], np.int8), np.ones((1, 2)))
    (tmp_path / "classes.csv").write_text(table.to_csv())
    back = ClassTable.read(tmp_path / "classes.csv")
    assert (back.id, back.patient, back.classes) == (table.id, table.patient, table.classes)
    assert "\n=" not in table.to_csv()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e-9, 1 + 1e-9])
def test_a_probability_that_is_none_is_named_with_its_case(value):
    table, _, _ = toy_classes.example()
    probability = table.probability.copy()
    probability[7, 1] = value
    with pytest.raises(UserError, match=r"^classes: the probability of benign for '007' is .*diverged"):
        replace(table, probability=probability)


@pytest.mark.parametrize(
    ("old", "new"),
    [("target:Gun", "target:Gum"), ("id,", "name,"), ("val,", "train,"), (",0.", ",x"), (",0.", ",7."), (",0.", ",nan"),
     (",1,", ",2,"), (",1,", ",-1,"), ("001,p0", "000,p0"), (",0.", ",,0.")],
)  # fmt: skip
def test_a_damaged_table_is_refused_in_one_line(tmp_path, old, new):
    table, _, _ = toy_classes.example("multilabel")
    path = tmp_path / "classes.csv"
    text = table.to_csv()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as said:
        ClassTable.read(path)
    assert str(said.value).startswith(str(path))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"id,patient,split\n", b"a\0b", b"id,patient,split\n1,2,val\n"])
def test_what_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "classes.csv").write_bytes(content)
    with pytest.raises(UserError, match="evaluate the run to write it again"):
        ClassTable.read(tmp_path / "classes.csv")
    with pytest.raises(UserError, match="evaluate the run to write it again"):
        ClassTable.read(tmp_path / "none.csv")


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_the_record_knows_every_figure_and_survives_json(tmp_path, task):
    content = {"classes": evaluated(*toy_classes.example(task))}
    (tmp_path / "metrics.json").write_text(json.dumps(content, allow_nan=False))
    assert record.read_metrics(tmp_path) == content
    for name in content["classes"]:
        assert name in record.Classes.__annotations__
    for name in (*MEANS, "brier"):
        figure = content["classes"][name]
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert set(content["classes"]["each"]["normal" if task == "multiclass" else "Gun"]) >= {*PER_CLASS, "prevalence"}


def test_multiclass_figures_equal_scikit_learn():
    table, scores, told = toy_classes.example()
    metrics = evaluated(table, scores, told)
    test = scores.of("test")
    truth, predicted = table.target[test].argmax(1), table.probability[test].argmax(1)
    assert metrics["accuracy"]["value"] == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted))
    assert metrics["macro_f1"]["value"] == pytest.approx(sklearn_metrics.f1_score(truth, predicted, average="macro"))
    assert metrics["confusion"] == sklearn_metrics.confusion_matrix(truth, predicted).tolist()
    assert metrics["majority"] == {"class": "normal", "accuracy": pytest.approx(1 / 3)}  # the largest of the training
    assert metrics["mean_auroc"]["value"] == pytest.approx(
        sklearn_metrics.roc_auc_score(truth, table.probability[test], multi_class="ovr")
    )


def test_the_unweighted_figures_against_normal_equal_scikit_learn():
    table, scores, told = toy_classes.example("multilabel")
    metrics = evaluated(table, scores, told)
    test = scores.of("test")
    for rule in ("run", "validation"):
        at = metrics["anomalous"][rule]
        predicted = scores.score[test] > at["threshold"]
        theirs = sklearn_metrics.precision_recall_fscore_support(scores.label[test], predicted, average="macro")[:3]
        assert [at[name]["value"] for name in ("precision", "recall", "f1")] == pytest.approx(theirs)
    assert metrics["anomalous"]["run"]["threshold"] == 0.6


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_test_labels_move_no_threshold_and_no_temperature(task):
    table, scores, told = toy_classes.example(task)
    before = evaluated(table, scores, told)
    shuffled = np.random.default_rng(9).permutation
    after = evaluated(changed(table, scores, "test", target=shuffled), scores, told)
    assert after["calibration"]["temperature"] == before["calibration"]["temperature"] != 1
    for name in table.classes:
        assert after["each"][name].get("threshold") == before["each"][name].get("threshold")
    assert after["anomalous"]["validation"]["threshold"] == before["anomalous"]["validation"]["threshold"]
    assert after["mean_average_precision"] != before["mean_average_precision"]
    other = evaluated(changed(table, scores, "val", target=shuffled), scores, told)
    assert other["calibration"]["temperature"] != before["calibration"]["temperature"]
    assert other["mean_average_precision"] == before["mean_average_precision"]


def test_the_temperature_is_that_of_validation_and_improves_the_test_cases():
    table, scores, told = toy_classes.example(num_val=300, num_test=600, sharpness=4.0)
    calibration = evaluated(table, scores, told)["calibration"]
    val = scores.of("val")
    assert (
        calibration["temperature"] == fit_temperature(table.target[val], table.probability[val], exclusive=True) > 1.5
    )
    assert calibration["cases"] == 300
    for name in ("error", "brier", "log_loss"):
        assert calibration["after"][name] < calibration["before"][name]
    assert sum(place["claims"] for place in calibration["before"]["curve"]) == 600


def test_no_validation_case_leaves_the_probabilities_as_they_are():
    table, scores, told = toy_classes.example("multilabel", num_val=0)
    metrics = evaluated(table, scores, told)
    assert metrics["calibration"]["temperature"] == 1
    assert metrics["calibration"]["cases"] == 0
    assert [metrics["each"][name]["threshold"] for name in table.classes] == [0.5] * 3
    assert list(metrics["anomalous"]) == ["run"]
    assert "Gun: no validation case has it" in " ".join(metrics["remarks"])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "Wrench: no test case has it"),
        (1, "Wrench: every test case has it"),
        (-1, "Wrench: whether a test case has"),
    ],
)
def test_a_class_that_cannot_be_measured_is_named_and_left_out(value, words):
    table, scores, told = toy_classes.example("multilabel")

    def only(target):
        target[:, 2] = value
        return target

    metrics = evaluated(changed(table, scores, "test", target=only), scores, told)
    assert [remark for remark in metrics["remarks"] if remark.startswith(words)]
    wrench = metrics["each"]["Wrench"]
    assert wrench["average_precision"] == wrench["auroc"] == {"value": None, "low": None, "high": None}
    others = [metrics["each"][name]["average_precision"]["value"] for name in ("Gun", "Knife")]
    assert metrics["mean_average_precision"]["value"] == pytest.approx(np.mean(others))


def test_a_class_that_nothing_trained_is_named():
    table, scores, _ = toy_classes.example()
    metrics = evaluated(table, scores, Supervision("multiclass", {"normal": 9, "benign": 3}))
    assert "malignant: no training case has it, so that nothing of it can have been learnt." in metrics["remarks"]


def test_all_cases_of_one_class_are_accuracy_alone():
    table, scores, told = toy_classes.example()
    keep = table.target[:, 1] == 1
    alone = table.restricted(keep)
    few = Scores(alone.id, alone.patient, alone.split, scores.label[keep], scores.score[keep])
    metrics = evaluated(alone, few, told)
    assert metrics["mean_average_precision"]["value"] is None
    assert 0 < metrics["accuracy"]["value"] < 1
    assert metrics["majority"]["accuracy"] == 0
    json.dumps(metrics, allow_nan=False)


def test_positives_of_one_patient_have_no_interval_and_a_remark():
    table, scores, told = toy_classes.example("multilabel")

    def only(target):
        target[:, 2] = 0
        target[[10, 11], 2] = 1  # both of one patient
        return target

    metrics = evaluated(changed(table, scores, "test", target=only), scores, told)
    assert metrics["each"]["Wrench"]["average_precision"]["value"] is not None
    assert metrics["each"]["Wrench"]["average_precision"]["low"] is None
    assert metrics["mean_average_precision"]["low"] is None
    assert metrics["each"]["Gun"]["average_precision"]["low"] is not None
    words = "Wrench: its test cases are of one patient, and an interval needs 5; nor have means over classes any."
    assert words in metrics["remarks"]


def test_a_perfect_class_is_no_certainty():
    """It used to stand there as 1.000 [1.000, 1.000]."""
    table, scores, told = toy_classes.example("multilabel")
    told_all = changed(table, scores, "test", probability=lambda probability: probability)
    test = scores.of("test")
    told_all.probability[test, 0] = np.where(table.target[test, 0] == 1, 0.9, 0.1)
    gun = evaluated(told_all, scores, told)["each"]["Gun"]
    for name in ("average_precision", "auroc", "recall"):
        assert gun[name]["value"] == gun[name]["high"] == 1
        assert 0.7 < gun[name]["low"] < 1


def test_patches_become_cases():
    target = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.int8)
    probability = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.6, 0.4]])
    table = ClassTable(list("abcd"), list("ppqq"), ["test"] * 4, ("normal", "tumour"), target, probability)
    cases = table.by_case(np.array(["y", "y", "x", "x"]), np.array([0, 1, 0, 0]), exclusive=True)
    assert (cases.id, cases.patient) == (["x", "y"], ["q", "p"])
    assert cases.target.tolist() == [[1, 0], [0, 1]]
    assert cases.probability.ravel().tolist() == pytest.approx([0.7, 0.3, 0.6, 0.4])


def test_a_case_has_every_class_that_a_patch_of_it_has():
    target = np.array([[1, 0, -1], [0, 1, -1], [0, 0, 0]], np.int8)
    table = ClassTable(list("abc"), list("ppp"), ["test"] * 3, ("a", "b", "c"), target, np.full((3, 3), 0.5))
    cases = table.by_case(np.array(["x", "x", "y"]), np.array([1, 1, 0]), exclusive=False)
    assert cases.target.tolist() == [[1, 1, -1], [0, 0, 0]]
