"""Checkpoint files that are written atomically and carry a checksum in their names."""

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
    """Lightning plugin that writes and reads checkpoints with a checksum.

    `<stem>.ckpt` is written as `<stem>-<first 16 hex digits of its SHA-256>.ckpt`, atomically. Files are read with
    `weights_only=True`.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> files = CheckpointFiles()
        >>> files.save_checkpoint({"state_dict": {"w": torch.ones(2)}}, f"{folder.name}/00000010.ckpt")
        >>> [path] = by_age(Path(folder.name))
        >>> len(path.stem), files.load_checkpoint(path)["state_dict"]["w"]
        (25, tensor([1., 1.]))
        >>> folder.cleanup()
    """

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
    """Return the newest intact checkpoint of a run; print a warning for each newer one that is damaged.

    Args:
        run: the run folder.

    Returns:
        The file in `<run>/checkpoints`, or None if there is no intact one.

    Example:
        >>> newest(Path("no such run")) is None
        True
    """
    for path in by_age(run / "checkpoints"):
        if _is_intact(path):
            return path
        Console(stderr=True).print(f"[yellow]{path} is damaged (its checksum differs): using the previous checkpoint")
    return None


def load(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU.

    Raises:
        UserError: the file's checksum differs from the one in its name.
    """
    if not _is_intact(path):
        raise UserError(f"{path} is damaged (its checksum differs); delete it to use the previous checkpoint")
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def by_age(folder: Path) -> list[Path]:
    """Return the checkpoint files in a folder, the one after most iterations first.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("00000010-0123456789abcdef.ckpt", "00000020-0123456789abcdef.ckpt", "other.ckpt"):
        ...         Path(folder, name).touch()
        ...     [path.name[:8] for path in by_age(Path(folder))]
        ['00000020', '00000010']
    """
    return sorted((path for path in folder.glob("*.ckpt") if _NAME.fullmatch(path.name)), reverse=True)


def _is_intact(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    return match is not None and match[2] == _digest(path.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
