import numpy as np

from anomaly_lab.evaluation.shortcuts import names
from anomaly_lab.evaluation.shortcuts.audit import rules_of
from anomaly_lab.evaluation.shortcuts.names import Names


def of(*files, patient=None):
    return Names(files, patient or files, np.arange(float(len(files))))


def test_numbers_count_by_their_value():
    assert names.file_number(of("s10.png", "s9.png", "s100.png")).tolist() == [1, 0, 2]
    assert names.file_number(of("00012_001.png", "00012_000.png", "7_3.png")).tolist() == [2, 1, 0]


def test_names_that_differ_in_more_than_a_number_are_not_compared():
    """So that "N001" and "P001", or digits with and without squares, tell nothing but what they are."""
    assert np.isnan(names.file_number(of("N1", "N2", "P3"))).tolist() == [False, False, True]
    assert np.isnan(names.file_number(of("anna", "berta"))).all()


def test_numbers_that_this_package_gave_tell_nothing():
    given = names.patient_number(of("a", "b", "c", patient=("patient 001", "patient 002", "patient 003")))
    assert np.isnan(given).all()
    assert names.patient_number(of("a", "b", patient=("p2", "p1"))).tolist() == [1, 0]


def test_every_rule_answers_for_every_case():
    for rule in rules_of(names).values():
        assert rule(of("b10.png", "b9.png", "A.png", "²3", "", patient=list("abcde"))).shape == (5,)
    assert np.isnan(names.place(of("a", "", "b"))).tolist() == [False, True, False]
    assert names.place(of("b10.png", "b9.png", "A.png", "b9.png")).tolist() == [2, 1, 0, 1]
