"""metrics.json: no test label ever reaches a threshold."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats
from scipy.stats import spearmanr
from toy_scores import example, rows_of

from anomaly_lab.evaluation.protocol import (
    CAVEATS,
    RULES,
    _versus_baselines,
    evaluate_maps,
    evaluate_scores,
    interval_of,
)
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.config import ThresholdRule
from anomaly_lab.experiment.record import Metrics, check
from anomaly_lab.metrics.segmentation import Pointing
from anomaly_lab.types import UserError

RATES = {"accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1"}
RANKS = {"auroc", "average_precision", "sensitivity_at_95_specificity"}


def test_test_labels_and_scores_never_reach_the_threshold():
    scores = example()
    test = scores.of("test")
    label = scores.label.copy()
    label[test] = np.random.default_rng(1).permutation(label[test])
    flipped = np.where(test, 1 - scores.label, scores.label)
    shifted = dataclasses.replace(scores, score=np.where(test, scores.score * 7 + 3, scores.score))
    expected = evaluate_scores(scores, replicates=20)["threshold"]
    for other in (dataclasses.replace(scores, label=label), dataclasses.replace(scores, label=flipped)):
        assert evaluate_scores(other, replicates=20)["threshold"] == expected
        assert (other.p_values() == scores.p_values()).all()
        for column in ("p_value", "pred_label"):
            assert [row[column] for row in rows_of(other)] == [row[column] for row in rows_of(scores)]
    assert evaluate_scores(shifted, replicates=20)["threshold"] == expected


def test_every_term_of_the_score_is_measured_by_itself():
    scores = example()
    noise = np.random.default_rng(0).normal(size=len(scores.score))
    terms = {"same": scores.score * 2, "opposite": -scores.score, "noise": noise, "constant": 0 * noise}
    plain = evaluate_scores(scores, replicates=100)
    verdict = evaluate_scores(dataclasses.replace(scores, components=terms), replicates=100)
    components = verdict.pop("components")
    assert verdict == plain  # nothing else depends on them
    json.dumps(components, allow_nan=False)
    check({"components": components}, Metrics)
    auroc = components["auroc"]
    assert auroc["same"] == verdict["detector"]["auroc"]
    assert auroc["opposite"]["value"] == pytest.approx(1 - auroc["same"]["value"])
    assert auroc["constant"]["value"] == 0.5
    test = scores.of("test")
    expected = spearmanr(scores.score[test], noise[test]).statistic
    assert components["correlation"]["same"]["noise"] == pytest.approx(expected)
    assert components["correlation"]["same"]["opposite"] == pytest.approx(-1)
    assert components["correlation"]["noise"]["constant"] is None


def test_the_whole_verdict():
    verdict = evaluate_scores(example(), replicates=300)
    assert set(verdict) == {
        "counts", "threshold", "detector", "baselines", "trivial", "versus_baselines", "oracle", "bootstrap",
        "intervals",
    }  # fmt: skip
    assert verdict["counts"] == {
        "val": {"normal": 25, "anomalous": 0},
        "test": {"normal": 30, "anomalous": 30},
    }
    for table in (verdict["detector"], *verdict["baselines"].values()):
        assert set(table) == RANKS | RATES
        assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in table.values())
    assert verdict["threshold"]["value"] == np.sort(example().score[:25])[24]  # ceil(26 * .95) = 25
    assert verdict["threshold"]["warning"] is None
    assert verdict["trivial"]["all_anomalous"] == pytest.approx(
        {
            "accuracy": 0.5,
            "balanced_accuracy": 0.5,
            "precision": 0.5,
            "recall": 1,
            "specificity": 0,
            "f1": 2 / 3,
        }
    )
    assert verdict["trivial"]["all_normal"]["specificity"] == 1
    assert verdict["oracle"]["best_f1"]["value"] >= verdict["detector"]["f1"]["value"]
    assert verdict["bootstrap"] == {
        "replicates": 300, "unit": "patient", "strata": "label", "level": 0.95, "seed": 0,
    }  # fmt: skip
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict


def test_a_beaten_floor_and_an_unbeaten_one():
    won = evaluate_scores(example(shift=3.0), replicates=300)["versus_baselines"]
    assert won["beaten"]
    assert won["best"] == "pca_32"
    assert won["difference"]["low"] > 0
    assert won["sentence"].startswith("The detector beats the PCA-32 baseline: AUROC .9")
    assert won["sentence"].endswith("The interval excludes 0.")
    lost = evaluate_scores(example(shift=-1.0, floor_shift=3.0), replicates=300)["versus_baselines"]
    assert not lost["beaten"]
    assert lost["difference"]["high"] < 0
    assert lost["sentence"].startswith("The detector does not beat the PCA-32 baseline")
    assert "(difference -." in lost["sentence"]
    assert lost["sentence"].endswith("The interval excludes 0.")


def test_a_draw_is_not_a_win():
    scores = example()
    same = dataclasses.replace(scores, baselines={"mean_image": scores.score, "pca_32": scores.score * 2})
    versus = evaluate_scores(same, replicates=50)["versus_baselines"]
    assert versus["difference"] == {"value": 0, "low": 0, "high": 0}
    assert not versus["beaten"]
    assert "includes 0" in versus["sentence"]


def test_a_flipped_sign_is_noticed():
    scores = example()
    right = evaluate_scores(scores, replicates=20)
    wrong = evaluate_scores(dataclasses.replace(scores, score=-scores.score), replicates=20)
    assert right["detector"]["auroc"]["value"] > 0.7
    assert wrong["detector"]["auroc"]["value"] == pytest.approx(1 - right["detector"]["auroc"]["value"])


def test_without_held_out_normals_there_is_no_threshold():
    scores = example(num_val=0)
    verdict = evaluate_scores(scores, replicates=50)
    assert verdict["threshold"]["value"] is None
    assert "no validation normals" in verdict["threshold"]["warning"]
    assert all(verdict["detector"][name] == {"value": None, "low": None, "high": None} for name in RATES)
    assert verdict["detector"]["auroc"]["value"] > 0.5
    assert {(row["p_value"], row["pred_label"]) for row in rows_of(scores)} == {("", "")}


def test_too_few_normals_are_said():
    assert (
        "10 validation normals are too few"
        in evaluate_scores(example(num_val=10), replicates=20)["threshold"]["warning"]
    )


def test_one_class_and_no_floors():
    scores = example()
    normal = dataclasses.replace(scores, label=np.zeros_like(scores.label))
    verdict = evaluate_scores(normal, replicates=20)
    assert verdict["detector"]["auroc"] == {"value": None, "low": None, "high": None}
    assert verdict["detector"]["specificity"]["value"] is not None
    assert "have the same label" in verdict["versus_baselines"]["sentence"]
    assert evaluate_scores(dataclasses.replace(scores, baselines={}), replicates=20)["versus_baselines"] is None


def test_no_test_cases():
    with pytest.raises(UserError, match="no case of the test split to evaluate"):
        evaluate_scores(example(num_test=0))


def hand_table() -> Scores:
    """Two held-out normals, then test scores: normals 1, 2, 4, 11; anomalies 3, 5, 6, 2.5."""
    score = np.array([0.0, 9.0, 1.0, 2.0, 4.0, 11.0, 3.0, 5.0, 6.0, 2.5])
    label = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    names = [f"{i}" for i in range(10)]
    return Scores(names, names, ["val"] * 2 + ["test"] * 8, label, score, {"pca_32": -score})


@pytest.mark.parametrize(
    ("rule", "above", "rates"),
    [
        # all four anomalies and the normals 4 and 11 lie above: tp 4, fp 2, tn 2, fn 0
        ("test_max_f1", (2.0, 2.5), {"accuracy": 6 / 8, "recall": 1, "specificity": 2 / 4, "f1": 8 / 10}),
        # 1 + .2 * (11 - 1) = 3, and 3 is not above 3: tp 2, fp 2, tn 2, fn 2
        ("test_min_max", (3.0, 3.0), {"accuracy": 4 / 8, "recall": 2 / 4, "specificity": 2 / 4, "f1": 4 / 8}),
        # of two held-out normals the highest, 9: tp 0, fp 1, tn 3, fn 4
        ("normal_quantile", (9.0, 9.0), {"accuracy": 3 / 8, "recall": 0, "specificity": 3 / 4, "f1": 0}),
    ],
)
def test_decisions_by_every_rule(rule: ThresholdRule, above: tuple[float, float], rates: dict[str, float]) -> None:
    verdict = evaluate_scores(hand_table(), replicates=50, rule=rule)
    assert above[0] <= verdict["threshold"]["value"] <= above[1]
    assert {name: verdict["detector"][name]["value"] for name in rates} == pytest.approx(rates)
    assert verdict["threshold"]["rule"] == RULES[rule]
    assert verdict["threshold"]["uses_test"] == (rule in CAVEATS) == (rule != "normal_quantile")


def test_a_switched_rule_moves_decisions_alone() -> None:
    honest = evaluate_scores(example(), replicates=50)
    assert honest == evaluate_scores(example(), replicates=50, rule="normal_quantile")
    for rule in ("test_max_f1", "test_min_max"):
        switched = evaluate_scores(example(), replicates=50, rule=rule)
        for name in RANKS:
            assert switched["detector"][name] == honest["detector"][name]
        for key in ("counts", "trivial", "versus_baselines", "oracle", "bootstrap"):
            assert switched[key] == honest[key]
        assert switched["baselines"]["pca_32"]["f1"] != honest["baselines"]["pca_32"]["f1"]
        entries = switched["detector"].values()
        assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in entries)
    best = evaluate_scores(example(), replicates=50, rule="test_max_f1")
    assert best["detector"]["f1"]["value"] == best["oracle"]["best_f1"]["value"]
    assert (best["threshold"]["quantile"], best["threshold"]["num_normals"]) == (None, 0)


def test_no_anomalous_case_no_best_f1() -> None:
    normal = dataclasses.replace(example(), label=np.zeros_like(example().label))
    verdict = evaluate_scores(normal, replicates=20, rule="test_max_f1")
    assert verdict["threshold"]["value"] is None
    assert verdict["detector"]["accuracy"]["value"] is None


def pointing(auroc: float, without: list[float], lesioned: int | None = None) -> Pointing:
    figures, pro = {"auroc": auroc, "pro": 0.5}, np.full(len(without), 0.5)
    return Pointing(figures, {"auroc": np.array(without), "pro": pro}, 2, lesioned or len(without))


def test_maps_are_held_against_the_better_floor_patient_by_patient() -> None:
    without = np.array([-0.02, 0.02, 0.0, 0.01, -0.01])
    table = evaluate_maps({
        "detector": pointing(0.8, list(0.8 + without)),
        "mean_image": pointing(0.85, list(0.85 + without)),
        "pca_32": pointing(0.6, [0.6] * 5),
    })  # fmt: skip
    assert (table["patients"], table["num_masks"], table["remark"]) == (5, 2, None)
    half = stats.t.ppf(0.975, 4) * (4 / 5 * 0.001) ** 0.5 / (0.8 * 0.2)  # on the logit scale
    low, high = (1 / (1 + np.exp(-np.log(4) + sign * half)) for sign in (1, -1))
    assert table["auroc"] == pytest.approx({"value": 0.8, "low": low, "high": high})
    versus = table["versus_baselines"]
    assert versus["best"] == "mean_image"
    assert not versus["beaten"]
    # the two differ by the same for all five patients, which is no certainty
    assert versus["each"]["mean_image"]["low"] == pytest.approx(-0.05 * (q := 0.025 ** (1 / 5)) - (1 - q))
    assert versus["difference"]["low"] == versus["each"]["mean_image"]["low"] < -0.05
    assert versus["each"]["pca_32"]["low"] > 0
    assert table["baselines"]["pca_32"]["pro"] == pytest.approx({"value": 0.5, "low": 0.5 * q, "high": 1 - 0.5 * q})
    json.dumps(table, allow_nan=False)
    check({"pixels": table}, Metrics)


@pytest.mark.parametrize(("without", "lesioned"), [([float("nan")], 1), ([0.8] * 9, 4)])
def test_maps_of_few_patients_have_no_interval_but_a_sentence(without: list[float], lesioned: int) -> None:
    few = [pointing(value, without, lesioned) for value in (0.8, 0.6)]
    table = evaluate_maps({"detector": few[0], "pca_32": few[1]})
    assert table["auroc"] == {"value": 0.8, "low": None, "high": None}
    assert table["remark"] == f"No intervals: {lesioned} patients with a lesion were judged, and an interval needs 5."
    assert table["versus_baselines"]["beaten"]
    assert table["versus_baselines"]["difference"]["low"] is None
    json.dumps(table, allow_nan=False)


def grouped(normal: int, anomalous: int, cases: int = 4, shift: float = 1.0) -> Scores:
    """Test patients with several cases each, and 20 validation normals."""
    random = np.random.default_rng(2)
    patient = [f"v{i}" for i in range(20)] + [f"p{i // cases}" for i in range((normal + anomalous) * cases)]
    label = np.r_[np.zeros(20 + normal * cases, int), np.ones(anomalous * cases, int)]
    score = random.normal(size=len(label)) + shift * label
    split = ["val"] * 20 + ["test"] * (len(label) - 20)
    baselines = {name: random.normal(size=len(label)) + 0.2 * label for name in ("mean_image", "pca_32")}
    return Scores([f"{i}" for i in range(len(label))], patient, split, label, score, baselines, {"term": score})


@pytest.mark.parametrize(("normal", "anomalous"), [(1, 1), (4, 30), (30, 4)])
def test_few_patients_of_a_class_have_no_interval_but_a_sentence(normal: int, anomalous: int) -> None:
    """They used to have intervals: one patient a class [.794, .794], three against five 1.000 [1.000, 1.000]."""
    verdict = evaluate_scores(grouped(normal, anomalous), replicates=40)
    tables = [verdict["detector"], *verdict["baselines"].values(), verdict["components"]["auroc"]]
    tables += [verdict["versus_baselines"]["each"], {"": verdict["versus_baselines"]["difference"]}]
    for entry in (entry for table in tables for entry in table.values()):
        assert entry["value"] is not None
        assert entry["low"] is entry["high"] is None
    remark = verdict["intervals"]["remark"]
    assert f"{normal} normal and {anomalous} anomalous patients" in remark
    assert remark in verdict["versus_baselines"]["sentence"]
    check(verdict, Metrics)
    enough = evaluate_scores(grouped(5, 5), replicates=40)
    assert enough["intervals"] == {"patients": {"normal": 5, "anomalous": 5}, "remark": None}
    assert enough["detector"]["auroc"]["low"] is not None


def test_nothing_is_certain_because_nothing_varies() -> None:
    """Separated classes: AUROC, average precision, sensitivity and specificity of 1 have an interval, too."""
    verdict = evaluate_scores(grouped(10, 12, cases=1, shift=50.0), replicates=40)
    for name in ("auroc", "average_precision", "sensitivity_at_95_specificity", "recall"):
        entry = verdict["detector"][name]
        k = 12 if name in ("sensitivity_at_95_specificity", "recall") else 10
        assert (entry["value"], entry["low"], entry["high"]) == (1.0, pytest.approx(0.025 ** (1 / k)), 1.0), name


@pytest.mark.parametrize("patients", [10, 25, 50])
def test_an_interval_of_a_share_holds_it(patients: int) -> None:
    """In about .95 of all samples, whatever the share is; and of more that came out right it promises no less."""
    counts = np.arange(patients + 1)
    drawn = np.random.default_rng(0).binomial(patients, counts[:, None] / patients, (patients + 1, 2000)) / patients
    low, high = np.array([interval_of(k / patients, drawn[k], patients, patients) for k in counts]).T
    assert (np.diff(low) > 0).all()
    assert (high[:-1] < 1).all()  # there were errors
    for share in np.linspace(0.5, 0.98, 25):
        assert stats.binom.pmf(counts, patients, share)[(low <= share) & (share <= high)].sum() > 0.935


def test_an_interval_of_a_share_by_hand() -> None:
    """Standard error .1 of the bootstrap, of 5 patients √(5/4) as large; Student's quantile with 4; logit scale."""
    half = stats.t.ppf(0.975, 4) * 0.1 * np.sqrt(5 / 4) / 0.25
    low, high = interval_of(0.5, np.array([0.4, 0.6] * 50), fewest=5, alike=5)
    assert (low, high) == pytest.approx((1 / (1 + np.exp(half)), 1 / (1 + np.exp(-half))))


def test_precision_of_few_calls_is_not_certain() -> None:
    """Of 30 normal and 30 anomalous patients 5 are called, all of them anomalous: 5 of 5 are not [1, 1]."""
    score = np.r_[np.linspace(0, 1, 20), np.linspace(0, 1, 30), np.linspace(0, 1, 25), np.linspace(2, 3, 5)]
    split, label = ["val"] * 20 + ["test"] * 60, np.repeat([0, 1], [50, 30])
    names = [f"{i}" for i in range(80)]
    entry = evaluate_scores(Scores(names, names, split, label, score), replicates=400)["detector"]["precision"]
    assert (entry["value"], entry["high"]) == (1.0, 1.0)
    assert entry["low"] == pytest.approx(0.025 ** (1 / 5))


def test_to_be_better_than_the_best_is_to_be_better_than_each() -> None:
    """The best of eight equal baselines is flattered by its choice: what it is worth elsewhere counts, too."""
    random = np.random.default_rng(0)
    scores = grouped(40, 40, cases=1)
    baselines = {f"b{i}": random.normal(size=len(scores.label)) + 0.6 * scores.label for i in range(8)}
    versus = evaluate_scores(dataclasses.replace(scores, baselines=baselines), replicates=20)["versus_baselines"]
    each = versus["each"]
    assert set(each) == set(baselines)
    assert versus["best"] == min(each, key=lambda name: each[name]["value"])
    assert versus["difference"]["value"] == each[versus["best"]]["value"]
    assert versus["difference"]["low"] == min(entry["low"] for entry in each.values())
    assert versus["difference"]["low"] <= versus["difference"]["value"] <= versus["difference"]["high"]
    assert "allows for the choice among 8 baselines" in versus["sentence"]
    alone = dataclasses.replace(scores, baselines={versus["best"]: baselines[versus["best"]]})
    single = evaluate_scores(alone, replicates=20)["versus_baselines"]
    assert single["difference"] | {"p": single["each"][versus["best"]]["p"]} == single["each"][versus["best"]]
    assert "choice" not in single["sentence"]
    assert each[versus["best"]]["p"] >= single["each"][versus["best"]]["p"]  # Holm's correction


@pytest.mark.slow
def test_the_verdict_over_eight_baselines_is_honest() -> None:
    """A detector as good as the best of eight (all equal) is called better in few cases, and is covered."""
    random, wrong, held = np.random.default_rng(0), 0, 0
    label = np.r_[np.zeros(60, int), np.ones(60, int)]
    patient = np.arange(120)
    for _ in range(200):
        case = random.normal(size=120)
        scores = {name: case + random.normal(size=120) + label for name in ("detector", *"abcdefgh")}
        difference = _versus_baselines(label, patient, scores)["difference"]
        wrong += difference["low"] > 0
        held += difference["low"] <= 0 <= difference["high"]
    assert wrong <= 0.05 * 200
    assert held >= 0.92 * 200
