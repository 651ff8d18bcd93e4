"""Checkpoints that cannot be torn: each file carries its own digest in its name and appears whole or not at all."""

import hashlib
import io
import re
from pathlib import Path
from typing import Annotated, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import CheckpointIO
from rich.console import Console

from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.types import Range, UserError

_NAME = re.compile(r"(\d+)-([0-9a-f]{16})\.ckpt")


class CheckpointFiles(CheckpointIO):
    """Writes `<stem>.ckpt` as `<stem>-<sha256, 16 digits>.ckpt`, atomically; reads with `weights_only=True`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getvalue()
        path = Path(path)
        write_atomic(path.with_name(f"{path.stem}-{_digest(content)}.ckpt"), content)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoints(pl.callbacks.Checkpoint):
    """Saves at the end of every Lightning epoch, after all other callbacks; keeps the newest few.

    Args:
        keep: how many of the newest stay; at least 2, so that there is one to fall back on.
    """

    def __init__(self, keep: Annotated[int, Range("[2, 100000]")] = 2) -> None:
        if keep < 2:
            raise ValueError("callbacks.checkpoints.keep must be at least 2: one to fall back on")
        self.keep = keep

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = Path(trainer.default_root_dir) / "checkpoints"
        trainer.save_checkpoint(folder / f"{pl_module.iterations_done:08d}.ckpt")
        if trainer.is_global_zero:
            for old in _by_age(folder)[self.keep :]:
                old.unlink()


def newest(run: Path) -> Path | None:
    """The newest intact checkpoint of a run, or None; says which files are damaged and passed over."""
    for path in _by_age(run / "checkpoints"):
        if _is_intact(path):
            return path
        Console(stderr=True).print(f"[yellow]{path} is damaged (its checksum differs): taking the one before it")
    return None


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's content.

    Raises:
        UserError: the file is damaged.
    """
    if not _is_intact(path):
        raise UserError(f"{path} is damaged (its checksum differs); remove it to fall back on the one before it")
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def _by_age(folder: Path) -> list[Path]:
    """Checkpoint files, the one with most iterations first."""
    return sorted((path for path in folder.glob("*.ckpt") if _NAME.fullmatch(path.name)), reverse=True)


def _is_intact(path: Path) -> bool:
    named = _NAME.fullmatch(path.name)
    return named is not None and named[2] == _digest(path.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
