"""Names for patients that give nobody away."""

from __future__ import annotations

from collections.abc import Iterable


def patient_names(persons: Iterable[str]) -> dict[str, str]:
    """Return a name for every person that says nothing but the order in which they come.

    A hash would give a PatientID away to whoever tries all numbers of a hospital, and one with a secret would make the
    split of a seed depend on it.

    Examples:
        >>> patient_names(["Doe", "Roe", "Doe"])
        {'Doe': 'patient 001', 'Roe': 'patient 002'}
    """
    known = list(dict.fromkeys(persons))
    digits = max(3, len(str(len(known))))
    return {person: f"patient {place:0{digits}d}" for place, person in enumerate(known, 1)}
