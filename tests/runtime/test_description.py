"""export.json is believed in nothing: whatever it should not say is refused in one line."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomaly_lab.runtime import description
from anomaly_lab.runtime.scorer import ExportScorer
from anomaly_lab.types import UserError


@pytest.fixture
def copy(export: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(export, tmp_path / "copy"))


def put(folder: Path, key: str, value: object) -> None:
    content = json.loads((folder / description.FILE).read_text())
    *above, last = key.split(".")
    section = content
    for name in above:
        section = section[name]
    section[last] = value
    (folder / description.FILE).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("model.file", "../model.onnx"),
        ("model.file", "/etc/passwd"),
        ("model.file", ".hidden"),
        ("model.bytes", -1),
        ("model.outputs", ["map"]),
        ("model.outputs", ["score", "score"]),
        ("model.outputs", ["score", "code"]),
        ("patches.size", [32]),
        ("patches.size", [32, "32"]),
        ("patches.size", [0, 32]),
        ("patches.bits", 12),
        ("crop", "everything"),
        ("picture.size", [1, 2, 3]),
        ("normals", [3.0, 1.0]),
        ("normals", "none"),
        ("threshold", "high"),
        ("expected", {"range": {"low": [0.0]}}),
        ("expected", {"spacing": [[1.0]]}),
        ("classes", [1]),
        ("stitching.rule", "median"),
        ("windows", {"overlap": 2.0, "plane": "axial", "foreground": 0.0, "counted": 0.0}),
    ],
)
def test_what_it_may_not_say_is_refused(copy: Path, key: str, value: object) -> None:
    put(copy, key, value)
    with pytest.raises(UserError, match=r"export\.json"):
        ExportScorer.open(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": 1}', "[" * 100_000, '{"version": NaN}', "\x00\xff"])
def test_what_is_no_json_of_ours_is_refused(copy: Path, text: str) -> None:
    (copy / description.FILE).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"export\.json cannot be read"):
        description.read(copy)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_value_leads_to_anything_but_one_line(export: Path, tmp_path: Path, data: st.DataObject) -> None:
    """A value anywhere in the file becomes another: it is taken for what it is, or refused."""
    content = json.loads((export / description.FILE).read_text())
    section: Any = content
    while isinstance(section, dict) and section:
        name = data.draw(st.sampled_from(sorted(section)))
        if not isinstance(section[name], dict) or not section[name] or data.draw(st.booleans()):
            break
        section = section[name]
    others = [st.none(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(), st.lists(st.integers())]
    others += [st.dictionaries(st.text(), st.integers()), st.lists(st.lists(st.floats(allow_nan=False)))]
    section[name] = data.draw(st.one_of(*others))
    folder = tmp_path / "fuzzed"
    folder.mkdir(exist_ok=True)
    shutil.copy(export / "model.onnx", folder)
    (folder / description.FILE).write_text(json.dumps(content))
    refusal = ""
    try:
        ExportScorer.open(folder)
    except UserError as error:
        refusal = str(error)
    assert "\n" not in refusal


def test_missing_and_strange_files_are_named(copy: Path) -> None:
    (copy / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model\.onnx: No such file"):
        ExportScorer.open(copy)
    os.mkfifo(copy / "model.onnx")
    with pytest.raises(UserError, match="it is no file"):
        ExportScorer.open(copy)
    (copy / description.FILE).unlink()
    with pytest.raises(UserError, match=r"export\.json is missing"):
        ExportScorer.open(copy / "model.onnx")
    os.mkfifo(copy / description.FILE)
    with pytest.raises(UserError, match="it is no file"):
        ExportScorer.open(copy / "model.onnx")


def test_a_huge_description_is_not_read(copy: Path) -> None:
    with (copy / description.FILE).open("ab") as file:
        file.truncate(description.LARGEST + 1)
    with pytest.raises(UserError, match="it has more than"):
        description.read(copy)
