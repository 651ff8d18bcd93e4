"""The engine's promises before and around a training: nothing is left behind when it cannot start."""

from pathlib import Path

import pytest
import torch
from data.conftest import write_headct

from anomaly_lab.experiment import config
from anomaly_lab.pipeline import engine
from anomaly_lab.types import UserError


def settings(tmp_path: Path, *overrides: str):
    """fanogan_headct at 32×32 on a folder of thirteen pictures."""
    places = [
        f"runs={tmp_path / 'runs'}",
        f"data.root={tmp_path / 'headct'}",
        f"data.store.folder={tmp_path / 'store'}",
    ]
    sizes = [
        "data.patch_size=[32,32]",
        "data.split.train_normals=8",
        "data.split.val_fraction=0.25",
        "data.batch_size=4",
    ]
    return config.load("fanogan_headct", ["budget=smoke", *places, *sizes, "detector.width=4", *overrides])


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


def test_clipping_and_accumulation_are_the_detectors(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    wanted = settings(tmp_path, "trainer.gradient_clip_val=0.5", "trainer.accumulate_grad_batches=2")
    _, detector = engine.construct(wanted)
    assert (detector.clip_norm, detector.accumulate) == (0.5, 2)


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    one, same, other = (engine.construct(settings(tmp_path, f"seed={seed}"))[1].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_falls_back_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert engine.precision_for("bf16-mixed") == ("bf16-mixed" if fast else "32-true")
    assert engine.precision_for("32-true") == "32-true"
