"""A command's own words are told from all others, and a wrong value is one line."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

from anomaly_lab.experiment.words import own_settings
from anomaly_lab.types import Range, UserError


@dataclass
class Own:
    jobs: Annotated[int, Range("[1, 9]")] = 1
    data: str | None = None
    params: str = ""
    sbatch: dict[str, Any] = field(default_factory=dict)


def split(*words: str) -> tuple[Own, list[str]]:
    return own_settings(Own, words, sections=("sbatch",))


def test_a_setting_below_a_dot_is_somebody_elses() -> None:
    own, rest = split("data.root=scans", "data=folder", "jobs=2", "detector.lr=1e-3", "jobs.x=1")
    assert (own.data, own.jobs) == ("folder", 2)
    assert rest == ["data.root=scans", "detector.lr=1e-3", "jobs.x=1"]


def test_sections_take_keys_and_texts_take_anything() -> None:
    own, rest = split("sbatch.account=lab", "params=detector.lr=log(1e-5,1e-2) [a: {")
    assert own.sbatch == {"account": "lab"}
    assert own.params == "detector.lr=log(1e-5,1e-2) [a: {"
    assert rest == []


@pytest.mark.parametrize("word", ["jobs=many", "jobs=0", "jobs=[1", "jobs={a: 1}", "sbatch=3"])
def test_a_wrong_value_is_one_line(word: str) -> None:
    with pytest.raises(UserError) as error:
        split(word)
    assert "\n" not in str(error.value)


def test_words_that_are_names_are_taken_as_they_were_typed() -> None:
    own, _ = split("data=2024_01", "params=cohort #2", "sbatch.account=007", "jobs=07")
    assert (own.data, own.params, own.sbatch, own.jobs) == ("2024_01", "cohort #2", {"account": "007"}, 7)
    assert split("data=null")[0].data is None
