"""Patients have names that nobody can trace back."""

from anomaly_lab.data.readers.patients import patient_names


def test_names_follow_the_order_of_appearance() -> None:
    assert patient_names([]) == {}
    assert patient_names(["1234567", "0000001", "1234567"]) == {"1234567": "patient 001", "0000001": "patient 002"}


def test_a_thousand_patients_still_sort_as_they_came() -> None:
    names = list(patient_names(map(str, range(1200, 0, -1))).values())
    assert names == sorted(names)
    assert len(set(names)) == 1200
