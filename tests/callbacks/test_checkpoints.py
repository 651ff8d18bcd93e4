"""The newest checkpoints stay, older ones go."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from anomaly_lab.callbacks.checkpoints import Checkpoints
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles


def test_one_alone_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Checkpoints(keep=1)


@pytest.mark.parametrize("first_rank", [True, False])
def test_the_newest_stay(tmp_path: Path, first_rank: bool) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "notes.ckpt").touch()  # not ours

    def save(path: Path) -> None:
        CheckpointFiles().save_checkpoint({"a": torch.zeros(1)}, path)

    trainer: Any = SimpleNamespace(default_root_dir=tmp_path, is_global_zero=first_rank, save_checkpoint=save)
    callback = Checkpoints(keep=2)
    for done in (5, 10, 15):
        detector: Any = SimpleNamespace(iterations_done=done)
        callback.on_train_epoch_end(trainer, detector)
    kept = sorted(path.name.partition("-")[0] for path in (tmp_path / "checkpoints").glob("0*.ckpt"))
    assert kept == (["00000010", "00000015"] if first_rank else ["00000005", "00000010", "00000015"])
    assert (tmp_path / "checkpoints" / "notes.ckpt").exists()


def test_what_a_killed_process_had_no_time_to_remove_is_removed_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for done in (5, 10, 15):
        CheckpointFiles().save_checkpoint({"a": torch.zeros(1)}, tmp_path / "checkpoints" / f"{done:08d}.ckpt")
    trainer: Any = SimpleNamespace(default_root_dir=tmp_path, is_global_zero=True)
    Checkpoints(keep=2).on_fit_end(trainer, SimpleNamespace())  # type: ignore[arg-type]
    assert sorted(path.name[:8] for path in (tmp_path / "checkpoints").iterdir()) == ["00000010", "00000015"]
