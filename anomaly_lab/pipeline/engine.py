"""Train an experiment in a run folder, and go on with it; or look at its data beforehand."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from anomaly_lab.callbacks.interruption import Interruption
from anomaly_lab.callbacks.mirror import Mirror
from anomaly_lab.callbacks.progress import Meter
from anomaly_lab.callbacks.record import Record, peak_memory
from anomaly_lab.callbacks.run_callback import RunCallback, changes_scores
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.splitting.recorded import SPLIT
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.devices import emulates_bfloat16, precision_for
from anomaly_lab.experiment import checkpoint_files, fingerprint, record, run_folder
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles
from anomaly_lab.experiment.schema import TARGET, locate
from anomaly_lab.pipeline import identity, launchers
from anomaly_lab.pipeline import inspect as inspection
from anomaly_lab.pipeline.console import (
    announce,
    announce_data,
    announce_source,
    quiet_lightning,
    say,
)
from anomaly_lab.pipeline.evaluate import evaluate_run, refuse_reference
from anomaly_lab.pipeline.identity import AS_RECORDED, DataAsked
from anomaly_lab.pipeline.processes import ENDED, Processes, is_of_another, together
from anomaly_lab.pipeline.provenance import provenance, published
from anomaly_lab.pipeline.run_commands import LOADING, refuse_several, reported
from anomaly_lab.pipeline.scorer import load_weights
from anomaly_lab.pipeline.training import (
    construct,
    decisive_callbacks,
    refuse_accelerator,
    refuse_rule,
    score_all,
    score_by,
    trainer_for,
)
from anomaly_lab.pipeline.warm_start import WarmStart
from anomaly_lab.types import Schedule, Stopped, UserError

OF_OTHER_CODE = "The training was resumed with other code than it began with, so no version of the code repeats it."
RESUME = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "callbacks", *LOADING)


@quiet_lightning()
def train_by_name(experiment: str, overrides: Sequence[str], into: str | None = None) -> Path:
    """Train an experiment by name.

    Args:
        experiment: name of the experiment.
        overrides: `key=value` words. The cost of the paper budget is estimated: at this budget so that one knows what
            has begun, at the laptop budget for comparison.
        into: the run folder, chosen beforehand; a run that is there already is continued, or left alone if it is
            finished, so that the same command can be repeated until the run is finished. None for a new one.

    Returns:
        The run folder.

    Raises:
        UserError: as `train` and `resume` do; or the run in the folder is another one.

    Examples:
        >>> train_by_name("ganomaly_headct", ["budget=smoke"])  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-smoke-twin-1a2b')
    """
    with together() as processes:
        config = configuration.load(experiment, overrides)
        place = Path(into) if into is not None else None
        if place and processes.from_first((place / "config.yaml").exists()):
            return _finish(place, config, [word for word in overrides if word.startswith(launchers.KEYS)], processes)
        if place:
            run_folder.refuse_here(place)
        estimated = config.budget in ("laptop", "paper")
        paper = configuration.load(experiment, [*overrides, "budget=paper"]) if estimated else None
        return train(config, paper, place, overrides)


def _finish(run: Path, config: DictConfig, numbers: Sequence[str], processes: Processes) -> Path:
    """Continue a run that is not finished, if it is a run of this experiment."""
    recorded, asked = (configuration.plain(each) for each in (configuration.recall(run / "config.yaml"), config))
    is_other = _is_another_start(run, recorded["start_from"], asked["start_from"])
    if key := fingerprint.difference(recorded, asked) or ("start_from" if is_other else None):
        now, before = (OmegaConf.select(OmegaConf.create(each), key) for each in (asked, recorded))
        raise UserError(
            f"{run} is a run with {key}={before}, not {now}; name another folder, or to continue it as it is: "
            f"make resume RUN={run}"
        )
    identity.refuse_other_data(config, run)
    processes.in_turn(lambda: identity.refuse_other_split(config, run))
    if processes.from_first(_is_finished(run)):
        if processes.is_first:
            say(f"{run} is finished")
        return run
    return resume(str(run), numbers)


@quiet_lightning()
def train(
    config: DictConfig,
    paper: DictConfig | None = None,
    place: Path | None = None,
    said: Sequence[str] = (),
    watchers: Sequence[pl.Callback] | None = None,
) -> Path:
    """Train, evaluate and report an experiment in a new run folder.

    Args:
        config: the resolved experiment.
        paper: the same experiment at the paper budget, to report what that would cost; None to omit this.
        place: the run folder, if it was chosen beforehand; there must be nothing.
        said: the user's words, of which those about processes must agree with the program that started them.
        watchers: given, though empty, the experiment is only tried: these callbacks see it train, and no test case is
            looked at; `resume` without them does what is left.

    Returns:
        The run folder.

    Raises:
        UserError: the data cannot be read or are too few, `start_from` does not fit, the folder cannot be written, or
            the processes are not those that the experiment asks for.

    Examples:
        >>> train(configuration.load("ganomaly_headct", ["budget=smoke"]))  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-smoke-twin-1a2b')
    """
    with (
        contextlib.ExitStack() as outside,
        Interruption().listening() as interruption,
        together() as processes,
        contextlib.ExitStack() as held,
    ):
        refuse_accelerator(config.trainer.accelerator)
        trainer = processes.start(config.trainer, said)
        if place and processes.is_first:
            run_folder.refuse_taken(place)
        data, detector = construct(config)
        refuse_reference(configuration.evaluation_of(config), detector)
        pretrained = detector.load_pretrained()
        start = WarmStart.open(config.start_from, config.start_phase) if config.start_from else None
        if start:
            start.apply_to(detector)
        _set_up(
            data, processes, detector.schedule, judged=watchers is None
        )  # before the run folder is created, so that unusable data leave nothing behind
        callbacks = [*_callbacks(config, data, detector), *(watchers or ())]
        refuse_rule(configuration.score_rule_of(config), data, detector)
        run, facts = place or Path(), dict[str, Any]()
        if processes.is_first:
            facts = provenance(config, data, detector, pretrained, start.record() if start else None)
            facts["precision"] = str(precision_for(config.trainer.precision))
            if paper is not None:
                facts["paper"] = published(paper)
            marks = (config.budget, *(["twin"] if data.source == "twin" else []))
            run = place or run_folder.new_place(config.runs, config.name, marks)
            _make_run_folder(_Work(config, run, facts, data, detector, callbacks), start)
            announce(run, facts, data.where_to_get)
            held.enter_context(run_folder.locked(run))
        run, facts = processes.from_first((run, facts))
        work = _Work(config, run, facts, data, detector, callbacks, judged=watchers is None)
        outside.push(partial(_release, work))
        return _fit_and_evaluate(work, trainer, processes, None, interruption)


def _callbacks(config: DictConfig, data: PatchDataModule, detector: Detector) -> list[pl.Callback]:
    """Build the callbacks of an experiment; one that cannot take part in it says so.

    Dashboards come last, so that they see what the others have written in the same epoch.
    """
    callbacks: list[pl.Callback] = [configuration.build(node) for node in config.callbacks.values()]
    callbacks.sort(key=lambda callback: isinstance(callback, Mirror))
    if not any(isinstance(callback, Record) for callback in callbacks):
        raise UserError(
            "callbacks.record: without it no curve is kept, nobody notices weights that diverge, and what is tracked "
            "fills the memory; leave it in"
        )
    for callback in callbacks:
        if isinstance(callback, RunCallback):
            callback.refuse(data, detector)
    return callbacks


def _set_up(data: PatchDataModule, processes: Processes, to_train: Schedule | None, judged: bool = False) -> None:
    """Open the store on every machine, which the first process on it builds if there is none.

    Args:
        data: the data set.
        processes: all that work on the run.
        to_train: the phases whose training images have to be there; None if nothing is left to be trained.
        judged: whether test cases have to be there.
    """
    processes.wait()  # an error in what came before is told before a long building

    def set_up() -> None:
        data.prepare_data()
        data.setup()
        if to_train:
            data.check_trainable(to_train, processes.size)
        if judged:
            data.check_judged()

    processes.in_turn(set_up)
    processes.refuse_differences(f"the content of {data.folder}", (data.source, data.store.fingerprint))


def _make_run_folder(new: _Work, start: WarmStart | None) -> None:
    """Make the run folder with all that resuming needs; its name is added to the facts."""
    split = new.data.record()
    if start:
        identity.refuse_tested_training(start, split, new.data)
        new.facts["detector"]["caveats"] += identity.caveats_of_start(start, split, new.data)
    with run_folder.create(new.run) as work:
        new.facts["run"] = new.run.name
        run_folder.write_atomic(work / "config.yaml", configuration.show(new.config))
        run_folder.write_json(work / "provenance.json", new.facts)
        run_folder.write_atomic(work / SPLIT, split.to_csv())
        if start:
            start.link_into(work, with_checkpoint=new.detector.finished)


def inspect(config: DictConfig, verify: bool = False) -> Path:
    """Build or reuse the store of an experiment, print its content and write its data sheet.

    Args:
        config: the resolved experiment, with or without a detector.
        verify: compare the whole store with the hashes that were written when it was built.

    Returns:
        The data sheet.

    Raises:
        UserError: the data cannot be split; the data sheet, which says why, is written before.

    Examples:
        >>> inspect(configuration.load_data("headct"))  # doctest: +SKIP
        PosixPath('runs/headct/data/datasheet.html')
    """
    refuse_several("data")
    data: PatchDataModule = configuration.build(config.data)
    announce_source(data.source, data.where_to_get)
    if data.source == "real":
        say(f"real files: {data.folder}")
    began = time.perf_counter()
    data.setup("inspect")
    say(f"store: {inspection.origin(data, time.perf_counter() - began)}")
    if verify:
        say(f"verified: {inspection.verified(data)}")
    facts = data.facts()
    announce_data(facts)
    page = inspection.inspect(inspection.place_of(Path(config.runs) / config.name, data), config.name, data, facts)
    say(f"manifest: {page.with_name('manifest.csv')}")
    say(f"data sheet: {page}")
    if data.unsplit:
        raise UserError(f"nothing can be trained on {config.name} yet: it could not be split; {page} says why")
    return page


def _is_another_start(run: Path, recorded: str | None, asked: str | None) -> bool:
    """Return whether a run began with another run than is asked for, which may have been moved since."""
    if not recorded or not asked:
        return bool(recorded) != bool(asked)
    begun = record.read_provenance(run).get("started_from", {}).get("id")
    if begun and (facts := record.read_provenance(Path(asked))):
        return bool(facts.get("id") != begun)
    return Path(asked).parts[-2:] != Path(recorded).parts[-2:]


@quiet_lightning()
def resume(
    path: str,
    overrides: Sequence[str] = (),
    asked: DataAsked = AS_RECORDED,
    watchers: Sequence[pl.Callback] | None = None,
) -> Path:
    """Continue a run from its newest intact checkpoint; the result equals that of an uninterrupted run.

    Whatever is missing of a run is made, be it iterations, scores, metrics or the report.

    Args:
        path: the run folder.
        overrides: `key=value` words, of the keys in RESUME alone.
        asked: where the run's data lie now, and whether changes of them are accepted.
        watchers: as for `train`.

    Returns:
        The run folder.

    Raises:
        UserError: the run does not exist, is finished or is in use by another process, or its data have changed.

    Examples:
        >>> resume("runs/ganomaly_headct/20260101-120000-laptop-1a2b")  # doctest: +SKIP
        PosixPath('runs/ganomaly_headct/20260101-120000-laptop-1a2b')
    """
    with (
        contextlib.ExitStack() as outside,
        Interruption().listening() as interruption,
        together() as processes,
        contextlib.ExitStack() as held,
    ):
        run = run_folder.open_run(path)
        config = configuration.recall(run / "config.yaml", overrides, RESUME)
        _refuse_other_callbacks(configuration.recall(run / "config.yaml"), config)
        _refuse_finished(run)
        refuse_accelerator(config.trainer.accelerator)
        trainer = processes.start(config.trainer, overrides)
        if processes.is_first:
            held.enter_context(run_folder.locked(run))
            _refuse_finished(run)  # now that no other process can finish it
        processes.wait()
        facts = record.read_provenance(run, needs=("data",))
        torch.set_num_threads(facts.get("threads", torch.get_num_threads()))
        checkpoint = checkpoint_files.newest(run)
        identity.point_at_data(config, run, facts, asked)
        data, detector = construct(config)
        identity.pin_split(data, run, asked)
        if checkpoint is None:
            detector.load_pretrained()
            if config.start_from:
                WarmStart.open(config.start_from, config.start_phase).apply_to(detector)
        left = checkpoint is None or int(checkpoint.name.partition("-")[0]) < detector.schedule.iterations
        _set_up(data, processes, detector.schedule if left else None)
        callbacks = [*_callbacks(config, data, detector), *(watchers or ())]
        work = _Work(config, run, facts, data, detector, callbacks, overrides, watchers is None)
        another_number = _of_another_number(work, processes.size, checkpoint)
        if processes.is_first:
            run_folder.remove_partial_files(run)
            identity.check_fingerprint(data, run, facts, asked)
            identity.note_data(run, data, "resume" if left else "evaluate", asked)
            say(f"resuming {run} from {'the beginning (no checkpoint yet)' if checkpoint is None else checkpoint.name}")
            entry = {"at": run_folder.now(), "from": checkpoint and checkpoint.name, "overrides": list(overrides)}
            run_folder.update_provenance(run, resumed=[*facts.get("resumed", []), entry])
            other_code = _note_other_code(work, checkpoint) if left else None
            told = facts.get("detector") or {}  # a record of older versions may lack it
            before = told.get("caveats", [])
            caveats = [*before, *(c for c in (another_number, other_code) if c and c not in before)]
            if caveats != before:
                run_folder.update_provenance(run, detector=told | {"caveats": caveats})
        processes.wait()
        if checkpoint is not None and _beginning(config, detector) == detector.schedule.iterations:
            load_weights(run, detector, checkpoint.name)  # it trains nothing: the epochs in the file are another run's
            checkpoint = None
        outside.push(partial(_release, work))
        return _fit_and_evaluate(work, trainer, processes, checkpoint, interruption)


def _refuse_other_callbacks(stored: DictConfig, config: DictConfig) -> None:
    """Refuse changes of callbacks that could change the scores of a run that has begun."""
    for name in {*stored.callbacks, *config.callbacks}:
        before, now = stored.callbacks.get(name), config.callbacks.get(name)
        if before != now and any(changes_scores(locate(node[TARGET])) for node in (before, now) if node):
            raise UserError(f"callbacks.{name}: may change the run's scores, so it must stay as it was; train anew")


@dataclass(frozen=True)
class _Work:
    """A run that is being trained.

    Attributes:
        config: the resolved experiment.
        run: the run folder.
        facts: its provenance.
        data: its data set, set up.
        detector: as it begins.
        callbacks: those of its configuration, and the watchers.
        overrides: what was said otherwise when going on with it.
        judged: whether it is scored and evaluated in the end.
    """

    config: DictConfig
    run: Path
    facts: dict[str, Any]
    data: PatchDataModule
    detector: Detector
    callbacks: Sequence[pl.Callback]
    overrides: Sequence[str] = ()
    judged: bool = True


def _fit_and_evaluate(
    work: _Work, settings: DictConfig, processes: Processes, checkpoint: Path | None, interruption: Interruption
) -> Path:
    """Train what is left, from a checkpoint or from the beginning, then score, evaluate and report.

    Args:
        work: the run.
        settings: the section `trainer` with the numbers of processes as they are.
        processes: the processes, of which the first one writes the run folder.
        checkpoint: what the training goes on from; None for the beginning.
        interruption: listens to signals.
    """
    config, run, data, detector = work.config, work.run, work.data, work.detector
    if config.trainer.precision == "bf16-mixed" and emulates_bfloat16() and processes.is_first:
        say("trainer.precision=bf16-mixed: this processor only emulates bfloat16, training in float32 instead")
    trainer = trainer_for(
        settings,
        run,
        [*decisive_callbacks(config.seed), *work.callbacks, interruption],
        detector.schedule.epochs_left(_beginning(config, detector), data.epoch_length),
        plugins=[
            CheckpointFiles(work.facts.get("id"), checkpoint_files.run_ids(work.facts)),
            launchers.environment(),
        ],
    )
    try:
        if processes.is_first:
            run_folder.update_provenance(run, world_size=trainer.world_size)
        with _restoring(checkpoint, interruption):
            trainer.fit(detector, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if not work.judged:
            processes.wait()
            return run
        began = time.perf_counter()
        with Meter("scoring", "batch", silent=not processes.is_first) as meter:
            score_by(configuration.score_rule_of(config), data, detector, trainer.strategy.root_device)
            scored = score_all(data, detector, work.callbacks, trainer.strategy.root_device, meter.show)
        if scored is not None:
            run_folder.update_provenance(run, scoring_seconds=time.perf_counter() - began, peak_gb=peak_memory())
            callbacks = [callback for callback in work.callbacks if isinstance(callback, RunCallback)]
            for callback in callbacks:
                callback.on_scored(run, data, detector, scored)
            evaluate_run(run, configuration.evaluation_of(config), data, detector, scored)
            _conclude(run, detector, callbacks)
        processes.wait()
    except Stopped as stopped:
        if processes.is_first:
            name, done = signal.Signals(stopped.signal).name, detector.iterations_done
            total = detector.schedule.iterations
            say(f"stopped by {name} after iteration {done} of {total}; continue with: make resume RUN={run}")
        raise
    except RuntimeError as error:
        if not is_of_another(error):
            raise
        raise UserError(f"{ENDED}; continue with: make resume RUN={run}") from error
    return run


def _release(work: _Work, kind: type[BaseException] | None, *_: object) -> None:
    """Let the callbacks of a run that an error or Ctrl-C has ended release what they hold.

    That may take time: the other processes have been told before, signals are heard as usual again, and what another
    signal ends goes back into its queue at once.
    """
    if kind is not None and not issubclass(kind, Stopped):
        for callback in work.callbacks:
            if isinstance(callback, RunCallback):
                callback.on_run_stopped(work.run)


def _of_another_number(work: _Work, world_size: int, checkpoint: Path | None) -> str | None:
    """Return a caveat if a run goes on under a number of processes that changes what is trained, and that was asked.

    Noise, batches, gradients and batch-norm statistics are those of the global batch under any number of processes.
    But another loss that couples the images of a mini-batch sees a process's share of it alone.

    Raises:
        UserError: it was not asked.
    """
    before = work.facts.get("world_size", world_size)
    if checkpoint is None or before == world_size or not work.detector.couples_batch:
        return None
    why = (
        f"{type(work.detector).__name__} couples the images of a mini-batch, by a spread over them or by batch norm of "
        f"parts of it, and {before} processes part it otherwise than {world_size}"
    )
    if not any(word.startswith(("trainer.devices=", "trainer.num_nodes=")) for word in work.overrides):
        raise UserError(
            f"{work.run}: {why}; resume it with trainer.devices={before}, or say trainer.devices={world_size} to go on "
            "all the same, which the report will say"
        )
    return f"The training was resumed under another number of processes: {why}."


def _note_other_code(work: _Work, checkpoint: Path | None) -> str | None:
    """Record the code that a training goes on with; return a caveat if it began with other code.

    Two fingerprints are no other run's, so no study takes the run for one of either code.
    """
    before = work.facts.get("code")
    if not isinstance(before, dict):  # of older versions
        return None
    recorded = configuration.recall(work.run / "config.yaml")  # other callbacks may be asked for now
    begun, now = str(before["training"]), fingerprint.of_code(configuration.plain(recorded))["training"]
    if begun.split(" ")[-1] == now:
        return None
    all_of_it = now if checkpoint is None else f"{begun} {now}"
    run_folder.update_provenance(work.run, code=before | {"training": all_of_it})
    if checkpoint is None:  # it is trained from the beginning
        return None
    say("the code has changed since this run was begun; its report says so. To train with one: make train")
    return OF_OTHER_CODE


@contextlib.contextmanager
def _restoring(checkpoint: Path | None, interruption: Interruption) -> Iterator[None]:
    """Blame the checkpoint, if there is one, for an error before the training begins."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if checkpoint is None or interruption.begun or is_of_another(error):
            raise
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{checkpoint} does not hold what this training needs ({type(error).__name__}: {reason}); delete it to go "
            "on from the previous checkpoint"
        ) from error


def _conclude(run: Path, detector: Detector, callbacks: list[RunCallback]) -> None:
    """Complete the record of an evaluated run and write its report; that it is finished is written last."""
    chosen = (callback.checkpoint_choice() for callback in callbacks)
    choice = next(filter(None, chosen), {"rule": "last", "iteration": detector.iterations_done})
    files = checkpoint_files.by_age(run / "checkpoints")
    threads = torch.get_num_threads()  # Lightning divides the cores among processes; `evaluate` needs the same number
    file = {"file": files[0].name} if files else {}
    run_folder.update_provenance(run, checkpoint={**choice, **file}, threads=threads, evaluating=None)
    finished = run_folder.now()
    reported(run, finished)
    for callback in callbacks:
        callback.on_run_end(run)
    run_folder.update_provenance(run, finished=finished)


def _refuse_finished(run: Path) -> None:
    if _is_finished(run):
        raise UserError(f"{run} is finished, there is nothing to resume; to evaluate it again: make evaluate RUN={run}")


def _is_finished(run: Path) -> bool:
    """Return whether nothing is left to be made of a run."""
    return bool(run_folder.read_json(run / "provenance.json").get("finished")) and (run / "report.html").exists()


def _beginning(config: DictConfig, detector: Detector) -> int:
    """Return the number of iterations that were done before the run's first epoch, by a warm start."""
    return detector.schedule.span(config.start_phase).stop if config.start_from else 0
