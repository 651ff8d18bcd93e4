"""Tune an experiment: trial after trial is trained and measured by planted lesions, in any number of processes.

What Optuna knows is one file of JSON lines in the tuning's folder. A trial is a run folder without scores of test
cases: training stops before any is looked at. A killed trial is begun again with the same values and goes on from its
last checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
import psutil
from omegaconf import DictConfig, OmegaConf
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from anomaly_lab.callbacks.best_test_epoch import BestTestEpoch
from anomaly_lab.callbacks.mirror import Mirror
from anomaly_lab.callbacks.progress import Meter
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.evaluation.planted import Planting, Ranked
from anomaly_lab.experiment import compose, fingerprint, record, run_folder, trust
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.config import ScoreRule
from anomaly_lab.experiment.locks import lock
from anomaly_lab.experiment.schema import KEYS, TARGET, locate
from anomaly_lab.experiment.words import own_settings
from anomaly_lab.lesions.lesion import Lesion
from anomaly_lab.lesions.planting import HELD_BACK, TUNING
from anomaly_lab.pipeline import engine, launchers, run_commands
from anomaly_lab.pipeline.console import quiet_lightning, say, warn
from anomaly_lab.tuning import page
from anomaly_lab.tuning.pruning import Watch
from anomaly_lab.tuning.space import EXAMPLE, Parameter, read_space, word
from anomaly_lab.types import Count, Stopped, UserError

NORMALS = 100  # validation normals that lesions are planted on, at most
SEEDS = range(3)  # of the planting
WARM = 4  # trials that are finished before one is given up
MAX_FAILURES = 3  # in a row: then something else is wrong than the values
SETTINGS, JOURNAL, CHECK, BEST = "tuning.json", "journal.log", "held_back.json", "best.json"
GIVEN = ("name", "seed", "budget", "runs", "start_from", "start_phase", "evaluation", "callbacks")  # by the question
SEEN = (  # of the data: how pictures are seen; all else says what is judged, by whom and where it lies
    *("patch_size", "in_channels", "batch_size", "epoch_length", "picture", "volume", "crop", "augment"),
    *(f"cut.{key}" for key in ("overlap", "random", "foreground")),
)
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
Facts = dict[str, Any]


@dataclass
class Words:
    """Settings of the command `tune`; all other words `key=value` go to every trial.

    Attributes:
        params: what may change, see `space.read_space`.
        trials: their number, over all processes.
        objective: what is maximised; "planted": the mean AUROC of lesions planted on validation normals. There is none
            with test labels.
        prune: give up trainings that are below the median of the others.
        folder: the tuning's folder; by default <runs>/tuning/<experiment>.

    Examples:
        >>> Words(trials=5).objective
        'planted'
    """

    params: str = ""
    trials: Count = 20
    objective: Literal["planted"] = "planted"
    prune: bool = True
    folder: str | None = None


@dataclass(frozen=True)
class Tuning:
    """What is tuned, and where.

    Attributes:
        experiment: its name.
        words: overrides of every trial.
        space: the settings that may change.
        trials: number of trials.
        prune: whether trainings are given up.
        folder: holds journal, runs and page.
        own: the experiment's own values of these settings.
        budget: the budget in use.
        settings: fingerprint of the experiment as it is resolved.
        data: source and fingerprint of the data, by the experiment's own values.
    """

    experiment: str
    words: tuple[str, ...]
    space: tuple[Parameter, ...]
    trials: int
    prune: bool
    folder: Path
    own: Mapping[str, Any]
    budget: str
    settings: str
    data: Mapping[str, str]

    def facts(self) -> Facts:
        """Return what must be the same for every process, and when it goes on."""
        space = {each.key: f"{each.kind}{list(each.values)}" for each in self.space}
        same = {"experiment": self.experiment, "words": list(self.words), "space": space, "prune": self.prune}
        return {**same, "budget": self.budget, "settings": self.settings, "data": dict(self.data)}


@quiet_lightning()
def tune(experiment: str, words: Sequence[str]) -> Path:
    """Tune an experiment, or go on with it; as many processes may do so at once as like.

    Args:
        experiment: its name.
        words: settings of `Words`, and overrides of every trial.

    Returns:
        The tuning's page.

    Raises:
        UserError: a setting does not exist or cannot take its values, the folder holds another tuning, or several
            trials in a row failed.

    Examples:
        >>> tune("ganomaly_headct", ["params=detector.lr=log(1e-5,1e-2)", "trials=10"])  # doctest: +SKIP
        PosixPath('runs/tuning/ganomaly_headct/tuning.html')
    """
    if launchers.launched() is not None:
        raise UserError("tune: every process tunes by itself; start the same command as often as you like, without it")
    tuning = _planned(experiment, words)
    _open_folder(tuning)
    study = _study(tuning)
    failures = 0
    with Meter("tuning", "trial", done=_ended(study), last_line=True) as meter:
        while (trial := _next(tuning, study)) is not None:
            failures = 0 if _tried(tuning, study, trial) else failures + 1
            if failures == MAX_FAILURES:
                raise UserError(
                    f"{failures} trials in a row failed; {tuning.folder / JOURNAL} has their reasons, the last: "
                    f"{study.trials[trial.number].user_attrs.get('error')}"
                )
            meter.show(_ended(study), tuning.trials)
            _write_page(tuning, study)
    _conclude(tuning, study)
    written = _write_page(tuning, study)
    say(f"page: {written}")
    return written


def _planned(experiment: str, words: Sequence[str]) -> Tuning:
    """Check everything that can be wrong before a trial is begun."""
    for each in words:
        if each.startswith("objective=") and each != "objective=planted":
            raise UserError(
                f"{each}: settings are chosen by lesions planted on validation normals (objective=planted); chosen by "
                "test labels, the test would say nothing of new patients"
            )
    if len(said := [each for each in words if each.startswith("params=")]) > 1:
        raise UserError(f"params is said {len(said)} times; write all terms into one: {EXAMPLE}")
    settings, overrides = own_settings(Words, words)
    config = configuration.load(experiment, overrides)
    _refuse_test_labels(config)
    space = read_space(settings.params, partial(_as_word, config))
    if str(config.trainer.get("devices", 1)) not in ("1", "auto"):
        raise UserError("trainer.devices: a trial trains in one process; start the command several times instead")
    given = {each.partition("=")[0] for each in overrides}
    own = {}
    for parameter in space:
        key = {**KEYS, "score.from": "score.source"}.get(parameter.key, parameter.key)
        if parameter.key in given:
            raise UserError(f"params: {parameter.key} is set by another word as well; leave one of them out")
        of_data = key.startswith("data.") and not _is_below(key, [f"data.{each}" for each in SEEN])
        if of_data or key == "data" or _is_below(key, GIVEN):
            raise UserError(f"params: {parameter.key} is nothing that a better detector has; tune {EXAMPLE}")
        for value in parameter.ends():
            configuration.load(experiment, [*overrides, word(parameter.key, value)])
        own[parameter.key] = OmegaConf.select(config, key)
    folder = Path(settings.folder) if settings.folder else Path(config.runs) / "tuning" / config.name
    data: PatchDataModule = configuration.build(config.data)
    data.prepare_data()
    content = {"source": data.source, "fingerprint": data.store.fingerprint}  # words alone may mean files or their twin
    words, budget = tuple(overrides), str(config.budget)
    resolved = fingerprint.of_config(configuration.plain(config))  # an experiment's file may have been edited
    return Tuning(experiment, words, space, settings.trials, settings.prune, folder, own, budget, resolved, content)


def _refuse_test_labels(config: DictConfig) -> None:
    """Refuse a callback that lets test labels choose the weights which are then measured."""
    for name, node in config.callbacks.items():
        if issubclass(locate(node[TARGET]), BestTestEpoch):
            raise UserError(f"callbacks.{name}: it chooses by test labels, and settings must not be; set it to null")


def _is_below(key: str, sections: Sequence[str]) -> bool:
    return any(f"{key}.".startswith(f"{each}.") for each in sections)


def _as_word(config: DictConfig, key: str, text: str) -> Any:
    """Read a text as the word `key=text` would be."""
    return next(value for _, value in compose.leaves(configuration.values_of([f"{key}={text}"], config)))


def _open_folder(tuning: Tuning) -> None:
    """Make the folder, or check that what it holds is this tuning."""
    place = tuning.folder / SETTINGS
    try:
        tuning.folder.mkdir(parents=True, exist_ok=True)
        with _alone(tuning):
            if place.exists():
                before = run_folder.read_json(place)
                if changed := [key for key, value in tuning.facts().items() if before.get(key, value) != value]:
                    raise UserError(
                        f"{tuning.folder} holds a tuning with other {', '.join(changed)}; give it the same words and "
                        "data, or name another place: folder=…"
                    )
            elif any(path.name != ".lock" for path in tuning.folder.iterdir()):
                raise UserError(f"{tuning.folder} holds something else than a tuning; name another place: folder=…")
            else:
                run_folder.write_json(place, tuning.facts())
    except OSError as error:
        raise UserError(f"{tuning.folder} cannot be written: {error.strerror}; name another place: folder=…") from error


@contextmanager
def _alone(tuning: Tuning) -> Iterator[None]:
    with lock(tuning.folder / ".lock"):
        yield


def _study(tuning: Tuning) -> optuna.Study:
    """Open the study; a journal that cannot be read is an error, never begun anew."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = str(tuning.folder / JOURNAL)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=WARM) if tuning.prune else optuna.pruners.NopPruner()
    try:
        storage = JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
        return optuna.create_study(
            storage=storage,
            study_name=tuning.experiment,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}); name another place: folder=…"
        ) from error


def _ended(study: optuna.Study) -> int:
    return sum(trial.state in ENDED or _has_failed(trial) for trial in study.trials)


def _has_failed(trial: FrozenTrial) -> bool:
    """Return whether a trial ended by an error, and not because its process was killed."""
    return trial.state == TrialState.FAIL and "error" in trial.user_attrs


def _next(tuning: Tuning, study: optuna.Study) -> optuna.Trial | None:
    """Ask for the next trial; None if there are enough. What killed processes left comes first."""
    with _alone(tuning):
        trials = study.trials
        if not trials and all(each.holds(tuning.own[each.key]) for each in tuning.space):
            study.enqueue_trial(dict(tuning.own))  # so that one knows what the tuning is worth
        for left in trials:
            if left.state == TrialState.RUNNING and _is_left(left):
                study.tell(left.number, state=TrialState.FAIL)
                given = left.system_attrs.get("fixed_params", {})  # of one that was killed before it was asked for them
                kept = {name: left.user_attrs[name] for name in ("run",) if name in left.user_attrs}
                study.enqueue_trial({**given, **left.params}, user_attrs=kept)
        busy = sum(trial.state == TrialState.RUNNING for trial in study.trials)
        if _ended(study) + busy >= tuning.trials:
            return None
        seed = int(configuration.load(tuning.experiment, tuning.words).seed)
        study.sampler = optuna.samplers.TPESampler(
            seed=seed + 1000 * len(study.trials),  # two processes must not draw the same
            n_startup_trials=max(5, min(10, tuning.trials // 4)),
            multivariate=True,
            constant_liar=True,
        )
        trial = study.ask()
        for parameter in tuning.space:
            parameter.suggest(trial)
        if "run" not in trial.user_attrs:
            trial.set_user_attr("run", f"{trial.number:05d}")
        trial.set_user_attr("process", [socket.gethostname(), os.getpid(), psutil.Process().create_time()])
        return trial


def _is_left(trial: FrozenTrial) -> bool:
    """Return whether the process of a running trial has ended; one of another machine is taken to go on.

    To be called where no other process asks for a trial: one without a process was left while it was asked for.
    """
    if "process" not in trial.user_attrs:
        return True
    host, pid, began = trial.user_attrs["process"]
    if host != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(pid).create_time() - began) > 1)
    except psutil.NoSuchProcess:
        return True


def _tried(tuning: Tuning, study: optuna.Study, trial: optuna.Trial) -> bool:
    """Train and measure a trial; returns whether it could be."""
    began = time.monotonic()
    try:
        ranked = _measured(tuning, trial)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        shutil.rmtree(_run_of(tuning, trial.user_attrs), ignore_errors=True)
        return True
    except Stopped:
        say(f"trial {trial.number} goes on when the same command is given again")
        raise
    except Exception as error:  # left running, it would be taken for one that was killed, and tried for ever
        known = isinstance(error, UserError)
        text = " ".join(str(error if known else f"{type(error).__name__}: {error}").split())[:500]
        trial.set_user_attr("error", text)
        study.tell(trial, state=TrialState.FAIL)
        warn(f"trial {trial.number} failed: {text}")
        if not known:
            traceback.print_exc()
        return False
    trial.set_user_attr("kinds", ranked.kinds)
    trial.set_user_attr("deviation", _finite(ranked.deviation))
    trial.set_user_attr("lift", _finite(ranked.lift))
    trial.set_user_attr("seconds", trial.user_attrs.get("seconds", 0.0) + time.monotonic() - began)
    study.tell(trial, ranked.auroc)
    return True


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _run_of(tuning: Tuning, attributes: Mapping[str, Any]) -> Path:
    return tuning.folder / "runs" / Path(str(attributes["run"])).name


def _words_of(tuning: Tuning, params: Mapping[str, Any]) -> list[str]:
    """Return the overrides of a trial; no dashboard is told of it, which would be filled with what was given up."""
    callbacks = configuration.load(tuning.experiment, tuning.words).callbacks
    silenced = [
        f"callbacks.{name}=null" for name, node in callbacks.items() if issubclass(locate(node[TARGET]), Mirror)
    ]
    return [*tuning.words, *silenced, *(word(key, value) for key, value in params.items())]


def _measured(tuning: Tuning, trial: optuna.Trial) -> Ranked:
    """Train what is left of a trial's run, and measure it by planted lesions."""
    config = configuration.load(tuning.experiment, _words_of(tuning, trial.params))
    run, rule = _run_of(tuning, trial.user_attrs), configuration.score_rule_of(config)

    def report(percent: int, auroc: float) -> None:
        trial.report(auroc, percent)
        if tuning.prune and trial.should_prune():
            raise optuna.TrialPruned

    watching = [Watch(rule, NORMALS, report)] if tuning.prune else []
    say(f"trial {trial.number}: {', '.join(word(*each) for each in trial.params.items())}")
    if (run / "config.yaml").is_file():
        engine.resume(str(run), watchers=watching)
    else:
        engine.train(config, place=run, watchers=watching)
    return _ranked(run, rule, TUNING)


def _ranked(run: Path, rule: ScoreRule, kinds: Sequence[Lesion]) -> Ranked:
    ranked = run_commands.rank_scores(str(run), {"score": rule}, Planting(SEEDS, kinds, NORMALS))[0]
    if not math.isfinite(ranked.auroc):
        raise UserError(f"{run}: its scores are no numbers")
    return ranked


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """Return the trial that found most, of equal ones that which lifts scores most; None if none is finished.

    Examples:
        >>> study = optuna.create_study(direction="maximize")
        >>> best_of(study) is None
        True
    """
    finished = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    return max(
        finished, key=lambda trial: (trial.value, trial.user_attrs.get("lift") or 0, -trial.number), default=None
    )


def _conclude(tuning: Tuning, study: optuna.Study) -> None:
    """Write the best values as an experiment, and check them by the kinds of lesions that chose nothing."""
    best = best_of(study)
    if best is None:
        if any(trial.state == TrialState.RUNNING for trial in study.trials):
            say("other processes are at all of the trials; none is finished yet")
            return
        raise UserError(f"no trial of {tuning.folder} was finished; {JOURNAL} has their reasons")
    with _alone(tuning):
        tree = configuration.values_of(tuning.words, configuration.load(tuning.experiment, tuning.words))
        said = {key: value for key, value in compose.leaves(tree) if key not in ("name", "budget", "runs")}
        offered = [each for layer in compose.layers_of(tuning.experiment) for each in layer.budgets]
        budgets = {each: {**said, **best.params} for each in offered}  # a budget's own values lie above all others
        header = (
            f"# {tuning.experiment}, tuned: best of {_ended(study)} trials by lesions planted on validation normals\n"
            f"# (AUROC {best.value:.3f}, trial {best.number}). No test case was looked at.\n"
            f"# They were tried at budget={tuning.budget}, the default here; the other budgets have them, too.\n"
        )
        experiments = tuning.folder / "experiments"
        experiments.mkdir(exist_ok=True)
        body = {"extends": tuning.experiment, "budget": tuning.budget, "budgets": budgets}
        text = f"{header}{json.dumps(body, indent=2)}\n"  # JSON is YAML, and keeps dotted keys as they are
        run_folder.write_atomic(experiments / f"{_name(tuning)}.yaml", text)
        run_folder.write_json(tuning.folder / BEST, {"trial": best.number, "auroc": best.value, **best.params})
        checked = run_folder.read_json(tuning.folder / CHECK) if (tuning.folder / CHECK).exists() else {}
        for trial in (each for each in study.trials if each.number in (best.number, _own_number(tuning, study))):
            if str(trial.number) not in checked and trial.state == TrialState.COMPLETE:
                config = configuration.load(tuning.experiment, _words_of(tuning, trial.params))
                ranked = _ranked(_run_of(tuning, trial.user_attrs), configuration.score_rule_of(config), HELD_BACK)
                checked[str(trial.number)] = {"auroc": ranked.auroc, "kinds": ranked.kinds}
        run_folder.write_json(tuning.folder / CHECK, checked)
    say(
        f"best: trial {best.number}, AUROC {best.value:.3f} on planted lesions; train it with\n"
        f"  {_command(tuning)}\n"
        f"or let it be judged as it is: make resume RUN={_run_of(tuning, best.user_attrs)}"
    )


def _own_number(tuning: Tuning, study: optuna.Study) -> int | None:
    """Return the number of the trial with the experiment's own values."""
    same = [t.number for t in study.trials if t.params == dict(tuning.own) and t.state == TrialState.COMPLETE]
    return same[0] if same else None


def _name(tuning: Tuning) -> str:
    return f"{tuning.experiment}_tuned"


def _command(tuning: Tuning) -> str:
    """Return the command that trains the best values: it needs what this one was given, too."""
    folders = os.pathsep.join(filter(None, (os.environ.get(compose.ENVIRONMENT), str(tuning.folder / "experiments"))))
    trusted = [f"TRUST={','.join(trust.packages())}"] if trust.packages() else []
    words = [f"EXP={_name(tuning)}", f"budget={tuning.budget}", f"{compose.ENVIRONMENT}={folders}", *trusted]
    return f"make train {shlex.join(words)}"


def _write_page(tuning: Tuning, study: optuna.Study) -> Path:
    best = best_of(study)
    facts = record.read_provenance(_run_of(tuning, best.user_attrs)) if best else {}
    counts = (facts.get("data") or {}).get("counts") or {}  # its folder may have been deleted
    normals = (counts.get("val") or {}).get("normal")
    with _alone(tuning):
        told = page.Told(
            tuning.experiment,
            tuning.words,
            tuning.space,
            study,
            best.number if best else None,
            _own_number(tuning, study),
            run_folder.read_json(tuning.folder / CHECK) if (tuning.folder / CHECK).exists() else {},
            facts.get("source", ""),
            min(NORMALS, normals) if normals is not None else None,
            tuning.budget,
            _command(tuning),
        )
        return page.write(tuning.folder, told)
