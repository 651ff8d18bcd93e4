"""Checkpoint files that are written atomically and carry a checksum in their names."""

import hashlib
import io
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypedDict, TypeGuard

import torch
from lightning_fabric.plugins.io import CheckpointIO
from rich.console import Console

from anomaly_lab.experiment.record import check
from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.types import UserError

RUN = "run"  # key of the run's id in a checkpoint
_NAME = re.compile(r"(\d+)-([0-9a-f]{16})\.ckpt")


class _Resumable(TypedDict):
    """What a training goes on from."""

    state_dict: dict[str, Any]
    optimizer_states: list[Any]
    loops: dict[str, Any]
    callbacks: dict[str, Any]


class CheckpointFiles(CheckpointIO):
    """Lightning plugin that writes and reads checkpoints with a checksum and the id of their run.

    `<stem>.ckpt` is written as `<stem>-<first 16 hex digits of its SHA-256>.ckpt`, atomically. Files are read with
    `weights_only=True`.

    Args:
        run_id: id of the run, written into its checkpoints; None for none.
        run_ids: ids that a checkpoint may carry to be read, see `load`.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> files = CheckpointFiles("1f2e3d4c")
        >>> files.save_checkpoint({"state_dict": {"w": torch.ones(2)}}, f"{folder.name}/00000010.ckpt")
        >>> [path] = by_age(Path(folder.name))
        >>> len(path.stem), load(path)["state_dict"]["w"]
        (25, tensor([1., 1.]))
        >>> folder.cleanup()
    """

    def __init__(self, run_id: str | None = None, run_ids: Collection[str | None] = ()) -> None:
        self.run_id, self.run_ids = run_id, run_ids

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint | ({RUN: self.run_id} if self.run_id else {}), buffer)
        content = buffer.getvalue()
        path = Path(path)
        write_atomic(path.with_name(f"{path.stem}-{_digest(content)}.ckpt"), content)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        checkpoint = load(Path(path), self.run_ids)
        try:
            check(checkpoint, _Resumable)  # what is missing, Lightning would begin anew without a word
        except ValueError as error:
            raise UserError(f"{path} cannot be gone on from ({error}); delete it to use the previous one") from error
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def newest(run: Path) -> Path | None:
    """Return the newest intact checkpoint of a run, to go on from; print a warning for each newer, damaged one.

    Args:
        run: the run folder.

    Returns:
        The file in `<run>/checkpoints`, or None if there is no intact one.

    Examples:
        >>> newest(Path("no such run")) is None
        True
    """
    for path in by_age(run / "checkpoints"):
        if _is_intact(path):
            return path
        Console(stderr=True).print(f"[yellow]{path} is damaged (its checksum differs): using the previous checkpoint")
    return None


def final(run: Path, facts: Mapping[str, Any], asked: str | None = None) -> Path:
    """Return the checkpoint whose weights a run stands for, to score with.

    Args:
        run: the run folder.
        facts: its provenance.
        asked: name, or the beginning of the name, of another one of its checkpoints.

    Returns:
        The file in `<run>/checkpoints`: the newest one, or the one asked for.

    Raises:
        UserError: it is damaged or not there, and no other one was asked for.
    """
    files = by_age(run / "checkpoints")
    if not files:
        raise UserError(f"{run} has no checkpoint to score with; train it first: make resume RUN={run}")
    if asked is not None:
        named = [path for path in files if path.name.startswith(asked)]
        if len(named) == 1 and _is_intact(named[0]):
            return named[0]
        known = ", ".join(path.name for path in files if _is_intact(path))
        raise UserError(f"--checkpoint {asked}: {run} has no such intact checkpoint; there are: {known or 'none'}")
    result = facts.get("checkpoint") or {}
    chosen = run / "checkpoints" / Path(result["file"]).name if "file" in result else files[0]
    last = result.get("iteration") if result.get("rule") == "last" else None
    if last is not None and chosen.name.partition("-")[0].lstrip("0") != str(last).lstrip("0"):
        fault = f"{run}: the checkpoint of its result, of iteration {last}, is not there"
    elif not chosen.exists():
        fault = f"{chosen} is not there, and the run's result is that checkpoint's"
    elif not _is_intact(chosen):
        fault = f"{chosen} is damaged (its checksum differs)"
    else:
        return chosen
    own = (path.name for path in files if path != chosen and _is_intact(path) and _belongs(path, run_ids(facts)))
    intact = next(own, None)
    other = (
        f", or take another one, which the record will say: make evaluate RUN=… CHECKPOINT={intact}" if intact else ""
    )
    raise UserError(f"{fault}; restore it from a copy of the run folder{other}")


def run_ids(facts: Mapping[str, Any]) -> set[str | None]:
    """Return the ids that the checkpoints of a run may carry: its own and that of the run it started from.

    Args:
        facts: provenance of the run.

    Returns:
        The ids; with None among them, for runs of older versions, any.

    Examples:
        >>> sorted(run_ids({"id": "1f", "started_from": {"id": "0e"}}))
        ['0e', '1f']
    """
    started = facts.get("started_from")
    return {facts.get("id")} | ({started.get("id")} if started else set())


def load(path: Path, ids: Collection[str | None] = ()) -> dict[str, Any]:
    """Load a checkpoint onto the CPU.

    Args:
        path: the file.
        ids: of the runs that it may belong to; empty, or with None among them, takes any.

    Raises:
        UserError: the file's checksum differs from the one in its name, it holds no checkpoint, or another run's.
    """
    if not _is_intact(path):
        raise UserError(f"{path} is damaged (its checksum differs); delete it to use the previous checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed, so it could unpack to any size")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or a hostile file can lead to
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise UserError(f"{path} holds no checkpoint ({reason}); delete it") from error
    if not _is_checkpoint(checkpoint):
        raise UserError(f"{path} holds no checkpoint; delete it")
    if ids and None not in ids and checkpoint.get(RUN) not in ids:
        raise UserError(f"{path} was written by another run; remove it from this run folder")
    return checkpoint


def _is_checkpoint(content: object) -> TypeGuard[dict[str, Any]]:
    """Return whether Lightning and a detector could be restored from what a file holds."""
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        return False
    mappings = [content.get(key, {}) for key in ("state_dict", "loops", "callbacks")]
    optimizers = content.get("optimizer_states", [])
    return (
        all(isinstance(part, dict) for part in mappings)
        and isinstance(optimizers, list)
        and all(isinstance(state, dict) for state in optimizers)
        and all(isinstance(value, torch.Tensor) for value in content["state_dict"].values())
    )


def by_age(folder: Path) -> list[Path]:
    """Return the checkpoint files in a folder, the one after most iterations first.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("00000010-0123456789abcdef.ckpt", "00000020-0123456789abcdef.ckpt", "other.ckpt"):
        ...         Path(folder, name).touch()
        ...     [path.name[:8] for path in by_age(Path(folder))]
        ['00000020', '00000010']
    """
    return sorted(
        (path for path in folder.glob("*.ckpt") if _NAME.fullmatch(path.name) and path.is_file()), reverse=True
    )


def _belongs(path: Path, ids: Collection[str | None]) -> bool:
    try:
        return bool(load(path, ids))
    except UserError:
        return False


def _is_intact(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    return match is not None and path.is_file() and match[2] == _digest(path.read_bytes())  # a pipe never ends


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
