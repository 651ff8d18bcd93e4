"""Copy a run's record to MLflow: to the server that the environment names, else to files in the run folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image
from pytorch_lightning.loggers import Logger, MLFlowLogger

from anomaly_lab.callbacks.mirror import Exhibit, Facts, Mirror, Summary
from anomaly_lab.experiment.record import read_provenance
from anomaly_lab.experiment.run_folder import update_provenance

LONGEST = 5000  # characters of a tag's value that MLflow takes


class MLflow(Mirror):
    """Copies the record to an MLflow run of the experiment; needs `pip install anomaly-lab[loggers]`.

    Where to is said by the environment alone (MLFLOW_TRACKING_URI), so that a file from elsewhere cannot send pictures
    to whom it likes; without it to `mlflow/` in the run folder. MLflow is not told who and where you are.

    Args:
        enabled: whether it is used.
        tags: of the MLflow run, beside source, budget and data set.

    Examples:
        >>> MLflow(enabled=False).enabled  # on the command line: callbacks.mlflow.enabled=true
        False
    """

    changes_scores = False
    title = "MLflow"

    def begin(self, folder: Path, facts: Facts) -> Logger:
        import_module("mlflow")  # Lightning's own message would not name the extra
        address = os.environ.get("MLFLOW_TRACKING_URI")
        if not address:  # a store of the run's own is written anew
            shutil.rmtree(folder / "mlflow", ignore_errors=True)
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        known = read_provenance(folder).get("mlflow", {})
        git = read_provenance(folder).get("git") or {}
        logger = MLFlowLogger(
            experiment_name=facts.group,
            run_name=facts.name,
            tracking_uri=address or (folder / "mlflow").resolve().as_uri(),
            run_id=known.get("id") if address and known.get("kept") == "server" else None,
            tags={
                "mlflow.user": "withheld",
                "mlflow.source.name": "anomaly_lab",
                "mlflow.source.type": "JOB",
                "mlflow.source.git.commit": str(git.get("commit") or ""),
                "job_type": facts.job_type,
                **{f"tag.{tag}": "true" for tag in facts.tags},
            },
        )
        logger.log_hyperparams(facts.config)
        assert logger.run_id is not None
        client, id = logger.experiment, logger.run_id
        histories = [client.get_metric_history(id, key) for key in client.get_run(id).data.metrics]
        self._told = max((history[-1].step for history in histories), default=-1)
        update_provenance(folder, mlflow={"id": logger.run_id, "kept": "server" if address else "run folder"})
        return logger

    @property
    def client(self) -> Any:
        """MLflow's client."""
        assert isinstance(self.logger, MLFlowLogger)
        return self.logger.experiment

    @property
    def run_id(self) -> str:
        """Id of the MLflow run."""
        assert isinstance(self.logger, MLFlowLogger)
        assert self.logger.run_id is not None
        return self.logger.run_id

    def picture(self, key: str, path: Path, step: int) -> None:
        self.client.log_artifact(self.run_id, str(path), key)

    def gallery(self, exhibits: list[Exhibit]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for i, row in enumerate(exhibits):
                outcome = row.outcome.replace(":", "_")
                for part, pixels in row.pictures.items():
                    path = Path(folder) / outcome / f"{i:03}-{part}.png"
                    path.parent.mkdir(exist_ok=True)
                    Image.fromarray(pixels).save(path)
            if exhibits:
                self.client.log_artifacts(self.run_id, folder, "gallery")
                rows = [[row.outcome, row.case, row.score] for row in exhibits]
                table = {"columns": ["outcome", "case", "score"], "data": rows}
                self.client.log_dict(self.run_id, table, "gallery/cases.json")

    def end(self, run: Path, summary: Summary, caveats: tuple[str, ...]) -> None:
        for key, value in summary.items():
            if isinstance(value, str):
                self.client.set_tag(self.run_id, key, value[:LONGEST])
        self.client.set_tag(self.run_id, "caveats", "; ".join(caveats)[:LONGEST])
        super().end(run, summary, caveats)
