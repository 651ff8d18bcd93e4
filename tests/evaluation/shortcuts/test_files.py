from anomaly_lab.evaluation.shortcuts import files
from anomaly_lab.evaluation.shortcuts.audit import rules_of

RULES = rules_of(files)


def said(facts):
    return {name: value for name, rule in RULES.items() if (value := rule(facts)) is not None}


def test_a_picture():
    facts = {"size": [30, 40], "spacing": None, "range": [3, 250], "blocks": 1.2, "header": {"bytes": 600}}
    expected = {"width": 40, "height": 30, "pixels": 1200, "aspect": 4 / 3, "bytes_per_pixel": 0.5}
    assert said(facts) == expected | {"blocks": 1.2, "lowest": 3}


def test_a_volume():
    facts = {"size": [5, 6, 7], "spacing": [1.0, 0.5, 4.0], "range": [-1000, 900], "header": {}}
    expected = {"axis_1": 5, "axis_2": 6, "axis_3": 7, "pixels": 210, "finest_spacing": 0.5, "coarsest_spacing": 4.0}
    assert said(facts) == expected | {"lowest": -1000}


def test_of_nothing_nothing_is_said():
    assert said({}) == said({"header": {}, "size": None}) == {}
