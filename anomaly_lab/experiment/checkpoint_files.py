"""Checkpoints that cannot be torn: each file carries its own digest in its name and appears whole or not at all."""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io import CheckpointIO
from rich.console import Console

from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.types import UserError

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


def newest(run: Path) -> Path | None:
    """The newest intact checkpoint of a run, or None; says which files are damaged and passed over."""
    for path in by_age(run / "checkpoints"):
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


def by_age(folder: Path) -> list[Path]:
    """Checkpoint files, the one with most iterations first."""
    return sorted((path for path in folder.glob("*.ckpt") if _NAME.fullmatch(path.name)), reverse=True)


def _is_intact(path: Path) -> bool:
    named = _NAME.fullmatch(path.name)
    return named is not None and named[2] == _digest(path.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
