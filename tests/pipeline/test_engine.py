"""The engine's promises before and around a training: nothing is left behind when it cannot start."""

from pathlib import Path

import pytest
from data.conftest import write_headct
from pipeline.conftest import settings

from anomaly_lab.pipeline import engine
from anomaly_lab.types import UserError


def remove_labels(root: Path) -> None:
    (root / "labels.csv").unlink()


def truncate(root: Path) -> None:
    picture = root / "head_ct" / "head_ct" / "004.png"
    picture.write_bytes(picture.read_bytes()[:60])


def empty(root: Path) -> None:
    for picture in root.rglob("*.png"):
        picture.unlink()


@pytest.mark.parametrize(
    ("damage", "overrides", "message"),
    [
        (remove_labels, [], "labels.csv"),
        (truncate, [], "004.png"),
        (empty, [], "no pictures"),
        (None, ["data.batch_size=7"], "data.batch_size=7: only 6 normals train"),
        (None, ["data.split.file=nowhere.csv"], "nowhere.csv"),
        (None, ["data.root=nowhere", "data.source=real"], "nowhere: no such folder"),
    ],
)
def test_data_that_cannot_be_used_leave_nothing(tmp_path: Path, damage, overrides: list[str], message: str) -> None:
    root = write_headct(tmp_path / "headct")
    if damage:
        damage(root)
    with pytest.raises(UserError, match=message) as said:
        engine.train(settings(tmp_path, *overrides))
    assert "\n" not in str(said.value)
    assert not (tmp_path / "runs").exists()
    store = tmp_path / "store"
    left = [path for path in store.rglob("*") if path.is_file() and path.suffix != ".lock"] if store.exists() else []
    assert damage is None or left == []
