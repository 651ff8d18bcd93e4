"""The commands: train an experiment, then resume, evaluate, report or predict with its run folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from anomaly_lab.callbacks.progress import Meter
from anomaly_lab.callbacks.record import peak_memory
from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment import checkpoint_files, fingerprint, run_folder
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles
from anomaly_lab.experiment.config import Evaluation
from anomaly_lab.pipeline import inspect as inspection
from anomaly_lab.pipeline.console import announce, announce_data, announce_source, console, quiet_lightning, say
from anomaly_lab.pipeline.evaluate import evaluate_run
from anomaly_lab.pipeline.predict import new_cases, predict_files
from anomaly_lab.pipeline.provenance import provenance, published
from anomaly_lab.pipeline.scorer import Scorer, load_weights
from anomaly_lab.pipeline.training import (
    construct,
    decisive_callbacks,
    device_for,
    emulates_bfloat16,
    precision_for,
    score_all,
    trainer_for,
)
from anomaly_lab.pipeline.warm_start import WarmStart
from anomaly_lab.reports.run_report import write_report
from anomaly_lab.types import UserError


def train_by_name(experiment: str, overrides: Sequence[str]) -> Path:
    """Train an experiment by name.

    Args:
        experiment: name of the experiment.
        overrides: `key=value` words. At the laptop budget, the cost of the paper budget is estimated for comparison.

    Returns:
        The run folder.

    Example:
        >>> train_by_name("ganomaly_headct", ["budget=smoke"])  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-smoke-twin-1a2b')
    """
    config = configuration.load(experiment, overrides)
    reduced = config.budget == "laptop"
    return train(config, configuration.load(experiment, [*overrides, "budget=paper"]) if reduced else None)


@quiet_lightning()
def train(config: DictConfig, paper: DictConfig | None = None) -> Path:
    """Train, evaluate and report an experiment in a new run folder.

    Args:
        config: the resolved experiment.
        paper: the same experiment at the paper budget, to report what that would cost; None to omit this.

    Returns:
        The run folder.

    Raises:
        UserError: the data cannot be read or are too few, `start_from` does not fit, or the folder cannot be written.

    Example:
        >>> train(configuration.load("ganomaly_headct", ["budget=smoke"]))  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-smoke-twin-1a2b')
    """
    data, detector = construct(config)
    pretrained = detector.load_pretrained()
    start = WarmStart.open(config.start_from, config.start_phase) if config.start_from else None
    if start:
        start.apply_to(detector)
    run = Path()
    if _is_first_rank():
        data.prepare_data()
        data.setup()  # before the run folder is created, so that unusable data leave nothing behind
        data.check_trainable()
        facts = provenance(config, data, detector, pretrained, start.record() if start else None)
        facts["precision"] = str(precision_for(config.trainer.precision))
        if paper is not None:
            facts["paper"] = published(paper)
        run = run_folder.create(config.runs, config.name, (config.budget, *(["twin"] if data.source == "twin" else [])))
        run_folder.write_atomic(run / "config.yaml", configuration.show(config))
        run_folder.write_json(run / "provenance.json", facts | {"run": run.name})
        if start:
            start.link_into(run, with_checkpoint=detector.finished)
        announce(run, facts | {"run": run.name}, data.where_to_get)
    return _fit_and_evaluate(config, run, data, detector, checkpoint=None)


def inspect(config: DictConfig) -> Path:
    """Build or reuse the store of an experiment, print its content and write its data sheet.

    Args:
        config: the resolved experiment, with or without a detector.

    Returns:
        The data sheet.

    Example:
        >>> inspect(configuration.load_data("headct"))  # doctest: +SKIP
        PosixPath('runs/headct/data/datasheet.html')
    """
    data: PatchDataModule = configuration.build(config.data)
    announce_source(data.source, data.where_to_get)
    if data.source == "real":
        say(f"real files: {data.folder}")
    began = time.perf_counter()
    data.setup("inspect")
    say(f"store: {inspection.origin(data, time.perf_counter() - began)}")
    facts = data.facts()
    announce_data(facts)
    page = inspection.inspect(Path(config.runs) / config.name / "data", config.name, data, facts)
    say(f"manifest: {page.with_name('manifest.csv')}")
    say(f"data sheet: {page}")
    return page


@quiet_lightning()
def resume(path: str) -> Path:
    """Continue a run from its newest intact checkpoint; the result equals that of an uninterrupted run.

    Args:
        path: the run folder.

    Returns:
        The run folder.

    Raises:
        UserError: the run does not exist, is finished or is being trained by another process.

    Example:
        >>> resume("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-laptop-1a2b')
    """
    run = run_folder.open_run(path)
    config = configuration.recall(run / "config.yaml")
    facts = run_folder.read_json(run / "provenance.json")
    torch.set_num_threads(facts.get("threads", torch.get_num_threads()))
    if facts.get("finished"):
        raise UserError(f"{run} is finished, there is nothing to resume; to evaluate it again: make evaluate RUN={run}")
    checkpoint = checkpoint_files.newest(run)
    data, detector = construct(config)
    if checkpoint is None:
        detector.load_pretrained()
        if config.start_from:
            WarmStart.open(config.start_from, config.start_phase).apply_to(detector)
    if _is_first_rank():
        data.prepare_data()
        data.setup()
        say(f"resuming {run} from {'the beginning (no checkpoint yet)' if checkpoint is None else checkpoint.name}")
        entry = {"at": run_folder.now(), "from": checkpoint and checkpoint.name}
        run_folder.update_provenance(run, resumed=[*facts.get("resumed", []), entry])
    return _fit_and_evaluate(config, run, data, detector, checkpoint)


@quiet_lightning()
def evaluate(path: str) -> Path:
    """Score and evaluate a trained run again in one process; needs the run folder and the data.

    Args:
        path: the run folder.

    Returns:
        The report.

    Raises:
        UserError: the run does not exist or is not trained.

    Example:
        >>> evaluate("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-laptop-1a2b/report.html')
    """
    run = run_folder.open_run(path)
    config, data, detector = _restore(run)
    with Meter("scoring", "batch") as meter:
        scored = score_all(data, detector, device=device_for(config.trainer.accelerator), progress=meter.show)
    assert scored is not None, "a single process scores all cases"
    evaluate_run(run, _evaluation(config), data, detector, scored)
    _note_evaluating_code(run, config)
    return _reported(run)


def report(path: str) -> Path:
    """Write a run's report again from the files in its folder.

    Args:
        path: the run folder.

    Returns:
        The report.

    Example:
        >>> report("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-laptop-1a2b/report.html')
    """
    return _reported(run_folder.open_run(path))


def predict(path: str, folder: str, out: str | None = None, masks: str | None = None) -> Path:
    """Score pictures and volumes with a trained run; write scores.csv, anomaly maps and index.html.

    Args:
        path: the run folder.
        folder: a file, or a folder that is searched recursively.
        out: folder for the results; `<run>/predictions/<folder>` by default.
        masks: known lesions, a file or a folder of files named like the images; used for display only.

    Returns:
        The folder with the results.

    Raises:
        UserError: the run is not trained, or there is nothing to score.

    Example:
        >>> predict("runs/ganomaly_headct/20260101-120000-laptop-1a2b", "new_scans")  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-laptop-1a2b/predictions/new_scans')
    """
    run = run_folder.open_run(path)
    scorer = Scorer.open(run)
    source = Path(folder)
    cases = new_cases(source, Path(masks) if masks else None)
    target = Path(out) if out else run / "predictions" / source.resolve().name
    written = predict_files(run.name, scorer, cases, target)
    say(f"scores and maps: {written}; page: {written / 'index.html'}")
    return written


def _restore(run: Path) -> tuple[DictConfig, PatchDataModule, Detector]:
    """Return configuration, data and trained detector of a run."""
    config = configuration.recall(run / "config.yaml")
    data, detector = construct(config)
    load_weights(run, detector)
    data.prepare_data()
    data.setup()
    return config, data, detector


def _fit_and_evaluate(
    config: DictConfig, run: Path, data: PatchDataModule, detector: Detector, checkpoint: Path | None
) -> Path:
    if config.trainer.precision == "bf16-mixed" and emulates_bfloat16() and _is_first_rank():
        say("trainer.precision=bf16-mixed: this processor only emulates bfloat16, training in float32 instead")
    named: list[pl.Callback] = [configuration.build(node) for node in config.callbacks.values()]
    with _alone(run):
        trainer = trainer_for(
            config.trainer,
            run,
            [*decisive_callbacks(config.seed), *named],
            detector.schedule.epochs_left(_beginning(config, detector), data.epoch_length),
            plugins=[CheckpointFiles()],
        )
        trainer.fit(detector, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
        began = time.perf_counter()
        with Meter("scoring", "batch", silent=not trainer.is_global_zero) as meter:
            scored = score_all(data, detector, named, trainer.strategy.root_device, meter.show)
        if scored is not None:
            run_folder.update_provenance(run, scoring_seconds=time.perf_counter() - began, peak_gb=peak_memory())
            callbacks = [callback for callback in named if isinstance(callback, RunCallback)]
            for callback in callbacks:
                callback.on_scored(run, data, detector, scored)
            evaluate_run(run, _evaluation(config), data, detector, scored)
            _conclude(run, detector, callbacks)
        trainer.strategy.barrier()
    return run


def _conclude(run: Path, detector: Detector, callbacks: list[RunCallback]) -> None:
    """Complete the provenance of an evaluated run and write its report."""
    chosen = (callback.checkpoint_choice() for callback in callbacks)
    choice = next(filter(None, chosen), {"rule": "last", "iteration": detector.iterations_done})
    threads = torch.get_num_threads()  # Lightning divides the cores among processes; `evaluate` needs the same number
    run_folder.update_provenance(run, finished=run_folder.now(), checkpoint=choice, threads=threads)
    _reported(run)
    for callback in callbacks:
        callback.on_run_end(run)


def _reported(run: Path) -> Path:
    """Write a run's report and print its path."""
    page = write_report(run)
    console.print(f"report: {page}")
    return page


def _note_evaluating_code(run: Path, config: DictConfig) -> None:
    """Record the fingerprint of the current evaluation code; that of the training code is kept."""
    before = run_folder.read_json(run / "provenance.json").get("code", "")
    training = before["training"] if isinstance(before, dict) else before
    plain: Any = OmegaConf.to_container(config)
    evaluation = fingerprint.of_code(plain)["evaluation"]
    run_folder.update_provenance(run, code={"training": training, "evaluation": evaluation})


def _evaluation(config: DictConfig) -> Evaluation:
    settings: Any = OmegaConf.to_object(config.evaluation)
    assert isinstance(settings, Evaluation)
    return settings


def _beginning(config: DictConfig, detector: Detector) -> int:
    """Return the number of iterations that were done before the run's first epoch, by a warm start."""
    return detector.schedule.span(config.start_phase).stop if config.start_from else 0


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Lock the run folder for this process; only the first rank has one."""
    if not _is_first_rank():
        yield
        return
    lock = FileLock(run / ".lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout as error:
        raise UserError(f"{run} is being trained by another process; wait for it or stop it") from error


def _is_first_rank() -> bool:
    """Return whether this is rank 0 by the launcher's environment variables; Lightning does not know it yet."""
    return all(os.environ.get(key, "0") == "0" for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"))
