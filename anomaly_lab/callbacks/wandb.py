"""Copy a run's log to Weights & Biases; a failure of W&B never stops the run."""

import json
import netrc
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from rich.console import Console
from rich.markup import escape

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.experiment.compose import read
from anomaly_lab.experiment.record import read_metrics, read_provenance
from anomaly_lab.experiment.run_folder import update_provenance
from anomaly_lab.reports.html import without_folders

PRIVATE: dict[str, Any] = {  # settings that keep the machine and its user out of what W&B gets
    "console": "off",
    "save_code": False,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "withheld",
    "symlink": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class WandB(RunCallback):
    """Copies metrics.jsonl, timings.jsonl, sample grids and finally metrics.json to a W&B run; works on rank 0 only.

    W&B is told the run's settings, without the folders that paths lie in, and nothing of the machine: no host or user
    name, command line, packages, code, git remote or console output.

    Args:
        project: W&B project.
        entity: W&B user or team; None uses the default of the API key. The run stays offline unless the variable
            WANDB_ENTITY names it as well: a file from elsewhere must not send pictures to whom it likes.
        mode: `auto` is online with an API key (WANDB_API_KEY or ~/.netrc) and offline without one; offline runs are
            kept in the run folder and uploaded by `wandb sync`.
        tags: of the W&B run.

    Examples:
        >>> WandB(project="head_ct", mode="offline").mode  # on the command line: callbacks.wandb.mode=offline
        'offline'
    """

    changes_scores = False

    def __init__(
        self,
        project: str = "anomaly_lab",
        entity: str | None = None,
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
        tags: tuple[str, ...] = (),
    ) -> None:
        self.project, self.entity, self.mode, self.tags = project, entity, mode, tags
        self._run: Any = None
        self._read: dict[str, int] = {}
        self._pictures: set[Path] = set()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and self.mode != "disabled":
            folder = Path(trainer.default_root_dir)
            self._safely(lambda: self._start(folder))
            self._read = {name: _size(folder / name) for name in ("metrics.jsonl", "timings.jsonl")}
            self._pictures = set(_grids(folder / "samples"))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if self._run is not None:
            self._safely(lambda: self._mirror_lines(Path(trainer.default_root_dir)))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._run is not None:
            self._safely(lambda: self._mirror_lines(Path(trainer.default_root_dir)))
        if self._run is not None:
            self._safely(lambda: self._mirror_pictures(Path(trainer.default_root_dir) / "samples"))

    def on_run_end(self, run: Path) -> None:
        """Copy the final metrics and close the W&B run."""
        if self._run is not None:
            self._safely(lambda: self._summarise(run))
        self._run = None

    def _start(self, folder: Path) -> None:
        import wandb  # takes 2 s, so only where it is used

        run_id = read_provenance(folder).get("wandb", {}).get("id")
        config = without_folders(read(folder / "config.yaml"))
        _remove_logs(folder)
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self._allowed_mode(),
            name=f"{folder.parent.name}/{folder.name}",
            id=run_id,
            resume="allow",
            dir=folder,
            config=config,
            tags=list(self.tags),
            settings=wandb.Settings(silent=True, **PRIVATE),
        )
        update_provenance(folder, wandb={"id": self._run.id, "project": self.project})

    def _allowed_mode(self) -> Literal["online", "offline", "disabled"]:
        """Return the mode: offline without a key, and for an entity that the user has not confirmed."""
        if self.entity is not None and self.entity != os.environ.get("WANDB_ENTITY") and self.mode != "offline":
            Console(stderr=True).print(
                f"[yellow]callbacks.wandb.entity={escape(self.entity)}: the run stays offline, because the environment "
                "does not say so as well; to send it there set WANDB_ENTITY",
                soft_wrap=True,
            )
            return "offline"
        return self.mode if self.mode != "auto" else ("online" if _has_key() else "offline")

    def _mirror_lines(self, folder: Path) -> None:
        for name, position in self._read.items():
            if _size(folder / name) <= position:
                continue
            with (folder / name).open() as file:
                file.seek(position)
                for line in iter(file.readline, ""):
                    values = json.loads(line)
                    self._run.log(values, step=values["iteration"])
                self._read[name] = file.tell()

    def _mirror_pictures(self, samples: Path) -> None:
        import wandb

        for path in _grids(samples):
            if path not in self._pictures:
                key = path.parent.relative_to(samples.parent).as_posix()  # samples, or samples/<callback>
                self._run.log({key: wandb.Image(str(path))}, step=int(path.stem))
                self._pictures.add(path)

    def _summarise(self, run: Path) -> None:
        metrics = read_metrics(run)
        for metric, interval in metrics.get("detector", {}).items():
            self._run.summary.update({f"test/{metric}": interval})
        of_classes = metrics.get("classes", {})
        for metric in ("mean_average_precision", "macro_f1", "accuracy", "brier"):
            if metric in of_classes:
                self._run.summary.update({f"test/classes/{metric}": of_classes[metric]})
        self._run.finish()
        _remove_logs(run)

    def _safely(self, action: Callable[[], None]) -> None:
        """Run `action`; an exception of W&B is reported once and ends the copying, not the run."""
        try:
            action()
        except Exception as error:
            Console(stderr=True).print(
                f"[yellow]W&B failed ({error}): the run continues without it; all metrics stay in the run folder"
            )
            self.mode, self._run = "disabled", None


def _remove_logs(folder: Path) -> None:
    """Remove the logs that W&B keeps of itself in a run folder, which name folders of this machine."""
    for logs in (folder / "wandb").glob("*run-*/logs"):
        shutil.rmtree(logs, ignore_errors=True)


def _grids(samples: Path) -> list[Path]:
    """Return every <iteration>.png below a folder in the order of the iterations; the fake pool's picture is none."""
    return sorted((path for path in samples.rglob("*.png") if path.stem.isdigit()), key=lambda path: int(path.stem))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return "api.wandb.ai" in netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
