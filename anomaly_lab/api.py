"""Python API: the commands as functions that return objects, available as `import anomaly_lab as al`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anomaly_lab.experiment import compose, record
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.quality import read_quality
from anomaly_lab.experiment.trust import trusting
from anomaly_lab.pipeline import engine, run_commands
from anomaly_lab.pipeline.export import Exported, export_run
from anomaly_lab.pipeline.identity import DataAsked
from anomaly_lab.pipeline.predict import Predicted, Request
from anomaly_lab.pipeline.scorer import Scorer


@dataclass(frozen=True)
class Run:
    """A run, identified by its run folder.

    Attributes:
        folder: path of the run folder.

    Examples:
        >>> run = Run(Path("runs/ganomaly_headct/20260101-120000-laptop-1a2b"))
        >>> run.report.name, run.metrics  # empty, as there is no such folder
        ('report.html', {})
    """

    folder: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """Content of metrics.json; `metrics["detector"]["auroc"]` has value, low and high. Empty before evaluation."""
        return record.read_metrics(self.folder)

    @property
    def provenance(self) -> dict[str, Any]:
        """Content of provenance.json: code, versions, data, budget and caveats."""
        return record.read_provenance(self.folder)

    @property
    def report(self) -> Path:
        """Path of the HTML report."""
        return self.folder / "report.html"

    @property
    def scores(self) -> Path:
        """Path of scores.csv, with id, patient, split, label and raw score of every validation and test case."""
        return self.folder / "scores.csv"

    def scorer(self) -> Scorer:
        """Load the trained detector to score new images, as `load` does."""
        return load(self.folder)


def experiments() -> list[str]:
    """Return the names of all experiments: every detector on every data set, and complete files of your own.

    Examples:
        >>> "ganomaly_headct" in experiments()
        True
    """
    return compose.experiments()


def show(experiment: str, *, trust: str | Sequence[str] = (), **settings: Any) -> str:
    """Format an experiment as YAML with all default values.

    Args:
        experiment: name of the experiment.
        trust: packages beside anomaly_lab whose classes the experiment may name.
        settings: values to override, see `train`.

    Examples:
        >>> text = show("ganomaly_headct", budget="smoke", detector={"latent_dim": 8})
        >>> "latent_dim: 8" in text
        True
    """
    with trusting(trust):
        return configuration.show(configuration.load(experiment, overrides(settings)))


def train(experiment: str, *, trust: str | Sequence[str] = (), **settings: Any) -> Run:
    """Train, evaluate and report an experiment, exactly as `make train EXP=…` does.

    Args:
        experiment: name of the experiment, see `experiments`.
        trust: packages beside anomaly_lab whose classes the experiment may name.
        settings: values to override. Sections are mappings, `data={"root": "scans"}` or `detector={"lr": 1e-4}`; keys
            outside sections, such as `budget`, `seed`, `runs` and `start_from`, are given directly.

    Returns:
        The finished run.

    Raises:
        UserError: there is no such experiment, or a setting or a file is invalid; the message is one line.

    Examples:
        >>> run = train("ganomaly_headct", budget="smoke", data={"source": "twin"})  # doctest: +SKIP
        >>> run.metrics["detector"]["auroc"]["value"]  # doctest: +SKIP
        0.81
    """
    with trusting(trust):
        return Run(engine.train_by_name(experiment, overrides(settings)))


def resume(
    run: str | Path | Run,
    *,
    data_root: str | None = None,
    accept_changed_data: bool = False,
    trust: str | Sequence[str] = (),
    **settings: Any,
) -> Run:
    """Continue a stopped run from its newest checkpoint; the result equals that of an uninterrupted run.

    Args:
        run: a run or its folder.
        data_root: where the run's files lie now, if they were moved; they are compared by content.
        accept_changed_data: go on with what is left of the recorded split if files were added, removed or altered.
        trust: packages beside anomaly_lab whose classes the run may name.
        settings: as in `train`, of the sections `trainer` (devices and the like), `data.store` and callbacks that
            cannot change scores.

    Raises:
        UserError: the run does not exist, is finished or in use by another process, or its data have changed.

    Examples:
        >>> resume("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
    """
    asked = DataAsked(data_root, accept_changed_data)
    with trusting(trust):
        return Run(engine.resume(str(_folder(run)), overrides(settings), asked))


def evaluate(
    run: str | Path | Run,
    *,
    data_root: str | None = None,
    accept_changed_data: bool = False,
    checkpoint: str | None = None,
    trust: str | Sequence[str] = (),
    **settings: Any,
) -> Run:
    """Score and evaluate a trained run again; needs its data.

    Args:
        run: a run or its folder.
        data_root: where the run's files lie now, if they were moved; they are compared by content.
        accept_changed_data: go on with what is left of the recorded split if files were added, removed or altered.
        checkpoint: name of a checkpoint other than the last, or how it begins.
        trust: packages beside anomaly_lab whose classes the run may name.
        settings: as in `train`, of the sections `evaluation` and `score`, which the run keeps, and of `data.store`;
            with `scores="recorded"` scores.csv is evaluated as it stands, without data and checkpoint.

    Raises:
        UserError: the run does not exist, is not trained or in use by another process, or its data have changed.

    Examples:
        >>> run = "runs/ganomaly_headct/20260101-120000-laptop-1a2b"
        >>> evaluate(run, evaluation={"purpose": "screening"}).metrics  # doctest: +SKIP
    """
    asked = DataAsked(data_root, accept_changed_data)
    with trusting(trust):
        run_commands.evaluate(str(_folder(run)), overrides(settings), asked, checkpoint)
    return Run(_folder(run))


def quality(
    run: str | Path | Run,
    *,
    data_root: str | None = None,
    accept_changed_data: bool = False,
    trust: str | Sequence[str] = (),
    **settings: Any,
) -> dict[str, Any]:
    """Measure the images that a trained run draws and reconstructs against its validation normals.

    Args:
        run: a run or its folder.
        data_root: as in `evaluate`.
        accept_changed_data: as in `evaluate`.
        trust: packages beside anomaly_lab whose classes the run may name.
        settings: `features`, a classifier, whose `weights` are a file, `package` or `random`; `samples`, the largest
            number of images of each kind; and those of `data.store`.

    Returns:
        The content of quality.json, see docs/runs.md.

    Raises:
        UserError: as `evaluate` does; or the detector neither draws nor reconstructs images, or weights are missing.

    Examples:
        >>> run = "runs/fanogan_headct/20260101-120000-laptop-1a2b"
        >>> quality(run, samples=500)["generated"]["kid"]  # doctest: +SKIP
        {'value': 0.031, 'error': 0.004}
    """
    with trusting(trust):
        run_commands.quality(str(_folder(run)), overrides(settings), DataAsked(data_root, accept_changed_data))
    return read_quality(_folder(run))


def predict(
    run: str | Path | Run,
    source: str | Path,
    *,
    out: str | Path | None = None,
    masks: str | Path | None = None,
    overwrite: bool = False,
    anyway: bool = False,
    trust: str | Sequence[str] = (),
) -> Predicted:
    """Score the files of a folder and write scores.csv, anomaly maps and a page, exactly as `make predict` does.

    Args:
        run: a run or its folder.
        source: a file, or a folder that is searched with its sub-folders.
        out: folder for the results, new, empty, or with what the same call has left unfinished; None for a new one.
        masks: known lesions, for display only: a file, or a folder of files named like the images.
        overwrite: replace a former result of the run in `out`; only files that it lists are removed.
        anyway: score files of another nature than those of the training, too.
        trust: packages of yours whose classes the run names.

    Returns:
        `folder`, `findings`, one for each file, and `not_scored`, those of them that have a reason instead of a score.

    Raises:
        UserError: there is nothing to score, no file could be scored, or `out` holds something else.

    Examples:
        >>> predicted = predict("runs/ganomaly_headct/20260101-120000-laptop-1a2b", "new_scans")  # doctest: +SKIP
        >>> [finding.reason for finding in predicted.not_scored]  # doctest: +SKIP
        ['the picture cannot be read (image file is truncated)']
    """
    request = Request(
        Path(source), None if masks is None else Path(masks), None if out is None else str(out), overwrite, anyway
    )
    with trusting(trust):
        return run_commands.predict(str(_folder(run)), request)


def export(
    run: str | Path | Run,
    *,
    format: Literal["onnx", "pt2"] = "onnx",
    out: str | Path | None = None,
    trust: str | Sequence[str] = (),
) -> Exported:
    """Write a trained run as one model file with its export.json, exactly as `make export` does.

    Args:
        run: a run or its folder.
        format: "onnx", which `anomaly_lab.load` scores without torch, or "pt2", for programs with torch.
        out: folder for the files: new, empty, or with a former export of the run; None for `exports/<format>` in it.
        trust: packages of yours whose classes the run names.

    Returns:
        `folder`, `model` and `differences`, the largest ones between the export and the run.

    Raises:
        UserError: the run is not trained or not evaluated, its detector cannot be exported, the export does not agree
            with the run, or `out` holds something else.

    Examples:
        >>> export("runs/ganomaly_headct/20260101-120000-laptop-1a2b").differences  # doctest: +SKIP
        {'score': 1.2e-07, 'map': 2.4e-07}
    """
    with trusting(trust):
        return export_run(_folder(run), format, None if out is None else str(out))


def load(run: str | Path | Run, *, trust: str | Sequence[str] = ()) -> Scorer:
    """Load a trained run to score new pictures and volumes; its training data are not needed.

    Args:
        run: a run or its folder.
        trust: packages beside anomaly_lab whose classes the run may name.

    Raises:
        UserError: `run` is not a run folder, or the run is not trained far enough or not evaluated.

    See Also:
        `anomaly_lab.load`, which takes an export, too, and then needs no torch.

    Examples:
        >>> scorer = load("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
        >>> scorer.score("slice.png").is_anomalous  # doctest: +SKIP
        True
    """
    with trusting(trust):
        return Scorer.open(_folder(run))


def overrides(settings: Mapping[str, Any], above: str = "") -> list[str]:
    """Convert settings in nested mappings to `key=value` words of the command line.

    Args:
        settings: the settings.
        above: prefix of the keys, such as "data.".

    Examples:
        >>> overrides({"seed": 1, "data": {"root": "my scans", "augment": None}})
        ['seed=1', 'data.root="my scans"', 'data.augment=null']
    """
    return list(_words(settings, above))


def _words(settings: Mapping[str, Any], above: str) -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _words(value, f"{above}{key}.")
        else:
            yield f"{above}{key}={json.dumps(value, default=str)}"


def _folder(run: str | Path | Run) -> Path:
    return run.folder if isinstance(run, Run) else Path(run)
