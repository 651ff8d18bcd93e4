"""What a threshold is for, and that an older record means the same by its number."""

import pytest

from anomaly_lab.experiment import config, fingerprint
from anomaly_lab.experiment.purpose import PURPOSES, Purpose, quantile_of


def test_the_stricter_the_purpose_the_fewer_normals_stay_below() -> None:
    assert quantile_of("rule_out") < quantile_of("screening") < quantile_of("rule_in") == 0.95  # the former default
    assert all(Purpose().admits(name) for name in PURPOSES)


@pytest.mark.parametrize("value", ["", "rule in", "0.5", 0, 1, -0.1, True, None, float("nan")])
def test_what_is_no_purpose(value: object) -> None:
    assert not Purpose().admits(value)


def test_the_number_and_its_name_are_one_setting_and_the_old_name_works() -> None:
    same = [["evaluation.purpose=rule_in"], ["evaluation.purpose=.95"], ["evaluation.quantile=.95"], []]
    loaded = [config.load("kde_headct", ["budget=smoke", *words]) for words in same]
    plain = [{"evaluation": dict(each.evaluation), "detector": None} for each in loaded]
    new = ("purpose", "reference", "prevalence", "scans_per_day")
    older = {key: value for key, value in loaded[0].evaluation.items() if key not in new} | {"quantile": 0.95}
    plain.append({"evaluation": older, "detector": None})
    assert len({fingerprint.of_config(each) for each in plain}) == 1
    other = {"evaluation": dict(loaded[0].evaluation) | {"purpose": "screening"}, "detector": None}
    assert fingerprint.of_config(other) != fingerprint.of_config(plain[0])
    assert fingerprint.difference(other, plain[0]) == "evaluation.purpose"
