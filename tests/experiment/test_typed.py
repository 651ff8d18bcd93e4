"""Texts are taken as they were typed; numbers are Python's; what programs write in quotes means the same."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from anomaly_lab.experiment import config
from anomaly_lab.experiment.typed import read, read_tree, tree_of
from anomaly_lab.studies.plan import plain
from anomaly_lab.types import UserError

TYPED = ["2024_01", "07", "12:30:00", "no", "cohort #2", "1e-4", "0x10", "2024-01-01", "Study 3: heads", "[old] scans",
         "{x", "@home", "* new", "a=b", "'tis", "%d", "true", "- 1"]  # fmt: skip


def loaded(*words: str) -> Any:
    return config.load("ganomaly_folder", ["budget=smoke", *words])


@pytest.mark.parametrize("text", TYPED)
def test_a_text_is_taken_as_it_was_typed_and_recalled_so(text: str, tmp_path: Path) -> None:
    """Whether its field may be null, lies in a section or is a word of a command's own."""
    found = loaded(f"data.root={text}", f"data.labels={text}", f"data.split.file={text}", f"data.root={text}")
    assert (found.data.root, found.data.labels, found.data.split.file) == (text, text, text)
    (tmp_path / "config.yaml").write_text(config.show(found), encoding="utf-8")
    assert config.recall(tmp_path / "config.yaml").data.root == text
    assert plain(config.show(found))["data"]["labels"] == text  # as a study compares it


def test_so_are_names_and_the_elements_of_lists() -> None:
    found = loaded("runs=001", "name=2024_01", "data.normal=[no, 07,yes , 'a, b']")
    assert (found.runs, found.name, list(found.data.normal)) == ("001", "2024_01", ["no", "07", "yes", "a, b"])
    assert loaded("data={root: 2024_01, twin: {size: 61}}").data.root == "2024_01"


@pytest.mark.parametrize("text", [*TYPED, "null", "ä\t", 'a "b"', ""])
def test_quoted_texts_mean_what_stands_in_them(text: str) -> None:
    assert loaded(f"data.root={json.dumps(text)}").data.root == text
    assert list(loaded(f"data.normal={json.dumps([text])}").data.normal) == [text]


def test_null_is_none_where_none_is_allowed() -> None:
    assert loaded("data.labels=null").data.labels is None
    assert read("null", str) == "null"
    with pytest.raises(UserError, match=r"data\.root: Incompatible value 'None'"):
        loaded("data.root=")  # a variable of the shell that is not set must not mean this folder


def test_references_stay_and_the_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("ANOMALY_DATA", "/")
    assert loaded("data.root=${oc.env:ANOMALY_DATA,data}/x").data.root == "//x"
    found = loaded("data.root=~/x", 'data.labels="~/a.csv"', "runs=~/runs", "data.masks=~x")
    assert (found.data.root, found.data.labels, found.runs) == ("/home/me/x", "/home/me/a.csv", "/home/me/runs")
    assert found.data.masks == "~x"


@pytest.mark.parametrize(("text", "kind", "value"), [
    ("1e-4", float, 1e-4), (".5", float, 0.5), ("1_000", int, 1000), ("010", int, 10), ("12:30", int, "12:30"),
    ("0x10", int, "0x10"), ("12:30", float | tuple[float, ...], "12:30"), ("2", list[int] | str | int, 2),
    ("auto", list[int] | str | int, "auto"), ("[0, 1]", list[int] | str | int, [0, 1]), ("32", Literal[32, "bf16"], 32),
    ("no", bool, False), ("On", bool | Literal["warn"], True), ("no", Literal["no", "yes"], "no"),
    ("007", Any, "007"), ("2024_01", Any, "2024_01"), ("1e3", Any, 1e3), ("no", Any, False), ("nan", Any, "nan"),
    ("{a: [1, b]}", Any, {"a": [1, "b"]}), ("[[1, 2], [3]]", list[list[int]], [[1, 2], [3]]),
])  # fmt: skip
def test_numbers_and_truths_are_read_where_they_are_meant(text: str, kind: Any, value: Any) -> None:
    found = read(text, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("word", ["seed=12:30", "seed=0x10", "detector.lr=1:30", "data.patch_size=[1:30,32]"])
def test_what_python_does_not_take_for_a_number_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="could not be converted"):
        loaded(word)


@pytest.mark.parametrize("word", ["data.normal=[a", "data.normal=[a] b", "seed={a", "data.normal=[a #1, b]"])
def test_what_is_not_closed_is_one_line_that_names_it(word: str) -> None:
    with pytest.raises(UserError) as error:
        loaded(word)
    assert f"'{word}': the text after '=' is not valid YAML" in str(error.value)


def test_later_words_win_whatever_they_are() -> None:
    tree, used = tree_of(["a={b: 1, c: 2}", "a.b=3", "d=[1]", "d.e=4", "data.twin_size=5"])
    assert read_tree(tree, {"a": dict[str, str]}) == {
        "a": {"b": "3", "c": "2"}, "d": {"e": 4}, "data": {"twin": {"size": 5}}}  # fmt: skip
    assert used == {"data.twin_size": "data.twin.size"}


def test_the_class_that_words_name_says_what_its_settings_are() -> None:
    found = loaded("callbacks.copies.project=007", "callbacks.copies._target_=anomaly_lab.callbacks.wandb.WandB")
    assert found.callbacks.copies.project == "007"
