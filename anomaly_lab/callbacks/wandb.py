"""Copy a run's record to Weights & Biases."""

from __future__ import annotations

import netrc
import os
import shutil
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import Logger, WandbLogger
from rich.console import Console
from rich.markup import escape

from anomaly_lab.callbacks.mirror import Exhibit, Facts, Mirror, Summary
from anomaly_lab.experiment.record import read_provenance
from anomaly_lab.experiment.run_folder import update_provenance

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


class WandB(Mirror):
    """Copies the record to a W&B run, in the group of its experiment.

    W&B is told the run's settings, without the folders that paths lie in, and nothing of the machine: no host or user
    name, command line, packages, code, git remote or console output.

    Args:
        project: W&B project.
        entity: W&B user or team; None uses the default of the API key. The run stays offline unless the variable
            WANDB_ENTITY names it as well: a file from elsewhere must not send pictures to whom it likes.
        mode: `auto` is online with an API key (WANDB_API_KEY or ~/.netrc) and offline without one; offline runs are
            kept in the run folder and uploaded by `wandb sync`.
        tags: of the W&B run, beside source, budget and data set.

    Examples:
        >>> WandB(project="head_ct", mode="offline").mode  # on the command line: callbacks.wandb.mode=offline
        'offline'
    """

    changes_scores = False
    title = "W&B"
    replays = False

    def __init__(
        self,
        project: str = "anomaly_lab",
        entity: str | None = None,
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
        tags: tuple[str, ...] = (),
    ) -> None:
        super().__init__(mode != "disabled", tags)
        self.project, self.entity, self.mode = project, entity, mode

    def begin(self, folder: Path, facts: Facts) -> Logger:
        import wandb  # takes 2 s, so only where it is used

        _remove_logs(folder)
        run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self._allowed_mode(),
            name=facts.name,
            group=facts.group,
            job_type=facts.job_type,
            id=read_provenance(folder).get("wandb", {}).get("id"),
            resume="allow",
            reinit="create_new",  # whatever other run this process has, of its user or one that was stopped
            dir=folder,
            config=facts.config,
            tags=list(facts.tags),
            settings=wandb.Settings(silent=True, **PRIVATE),
        )
        update_provenance(folder, wandb={"id": run.id, "project": self.project})
        return WandbLogger(experiment=run)

    @property
    def run(self) -> Any:
        """The W&B run."""
        logger: Any = self.logger
        return logger.experiment

    def line(self, values: dict[str, Any], step: int) -> None:
        self.run.log(values, step=step)

    def picture(self, key: str, path: Path, step: int) -> None:
        import wandb

        self.run.log({key: wandb.Image(str(path))}, step=step)

    def gallery(self, exhibits: list[Exhibit]) -> None:
        import wandb

        if not exhibits:
            return
        parts = list(exhibits[0].pictures)
        table = wandb.Table(columns=["outcome", "case", "score", *parts])
        for row in exhibits:
            pictures = [wandb.Image(row.pictures[part]) for part in parts]
            table.add_data(row.outcome, row.case, row.score, *pictures)
        self.run.log({"gallery": table})

    def stop(self, run: Path) -> None:
        self.run.finish(exit_code=1)
        _remove_logs(run)

    def end(self, run: Path, summary: Summary, caveats: tuple[str, ...]) -> None:
        self.run.summary.update(summary | {"caveats": list(caveats)})
        if caveats:
            self.run.notes = "; ".join(caveats)
        self.run.finish()
        _remove_logs(run)

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


def _remove_logs(folder: Path) -> None:
    """Remove the logs that W&B keeps of itself in a run folder, which name folders of this machine."""
    for logs in (folder / "wandb").glob("*run-*/logs"):
        shutil.rmtree(logs, ignore_errors=True)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return "api.wandb.ai" in netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
