"""Experiments: read a YAML, lay a budget and the user's overrides over it, check it, build objects.

The signature of a class is the schema of its section (schema.py); there is no second list of what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from anomaly_lab.experiment import compose
from anomaly_lab.experiment.compose import BUDGETS, Layer, tell_of_new_keys
from anomaly_lab.experiment.schema import (
    TARGET,
    arguments,
    checked,
    did_you_mean,
    in_current_keys,
    locate,
    merged,
    refuse_impossible,
    sentence,
)
from anomaly_lab.types import Count, Range, Seed, UserError

CaseScore = Literal["none", "max", "mean", "top_k"]
ThresholdRule = Literal["normal_quantile", "test_max_f1", "test_min_max"]
OF_DATA_ALONE = ("data", "seed", "runs", "budget")  # what may be said of a data set without a detector
SECTIONS = ("data", "detector", "trainer")  # each names a class, as every callback does


@dataclass
class Evaluation:
    """How scores are judged.

    Attributes:
        threshold: where decisions are made: "normal_quantile", a quantile of the held-out normals' scores. To reproduce
            what others published, and bannered: "test_max_f1", where F1 on the test labels is highest (anomalib), or
            "test_min_max", at .2 of the range of the test scores (the official GANomaly code).
        quantile: that of the held-out normals; fraction in (0, 1).
        replicates: of the bootstrap behind the intervals.
        case_score: what is judged: patches one by one ("none"), or cases, each with the "max" or the "mean" of its
            patches' scores or the mean of the `top_k` highest.
        top_k: patches that "top_k" takes.
    """

    threshold: ThresholdRule = "normal_quantile"
    quantile: Annotated[float, Range("(0, 1)")] = 0.95
    replicates: Count = 2000
    case_score: CaseScore = "none"
    top_k: Count = 10


@dataclass
class Experiment:
    """The sections of an experiment; data, detector, trainer and each callback name a class by `_target_`.

    Attributes:
        name: the first half of the run's name; the file's name unless said otherwise.
        budget: auto (paper with a GPU, else laptop) or one of BUDGETS; after loading, the one that was taken.
        budgets: of the budget that was taken the values it changed, by dotted key.
        layers: the files it was made of, see `compose`, from the most general to the most particular.
        runs: folder of the run folders.
        start_from: run folder whose finished phase, networks and fake pool, is taken over; None trains from scratch.
        start_phase: the phase that is taken over, with all before it.
    """

    name: str = MISSING
    seed: Seed = 0
    budget: str = "auto"
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    data: Any = MISSING
    detector: Any = MISSING
    trainer: Any = field(default_factory=lambda: {TARGET: "pytorch_lightning.Trainer"})
    callbacks: dict[str, Any] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    runs: str = "runs"
    start_from: str | None = None
    start_phase: str = "gan"


def load(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The experiment `name`, its budget and then `key=value` overrides laid over it, checked and resolved.

    Raises:
        UserError: no such experiment, or anything in it or in the overrides that is wrong; names the key.
    """
    return _of_layers(name, compose.layers_of(name), overrides)


def load_data(dataset: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A data set without a detector: an experiment whose one section is `data`.

    Raises:
        UserError: no such data set, or anything in it or in the overrides that is wrong; names the key.
    """
    return _of_layers(dataset, compose.layers_of_dataset(dataset), overrides, ("data",))


def recall(path: Path) -> DictConfig:
    """The resolved experiment that a run folder keeps in its `config.yaml`, checked again."""
    stored, _ = in_current_keys(compose.read(path))
    with _naming(str(path)):
        config = merged(OmegaConf.structured(Experiment), stored)
        return _complete(config, list(config.callbacks))


def show(config: DictConfig) -> str:
    """The whole experiment as YAML, every default filled in."""
    return OmegaConf.to_yaml(config)


def build(node: DictConfig, **extra: Any) -> Any:
    """The object a section describes, given plain Python only; `extra` arguments are the caller's and win.

    Raises:
        UserError: the constructor refuses a value (ValueError or Lightning's MisconfigurationException).
    """
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    keywords: Any = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    target = locate(keywords.pop(TARGET))
    keywords = arguments(f"{target.__name__}: ", target, keywords)
    try:
        return target(**{**keywords, **extra})
    except (ValueError, MisconfigurationException) as error:
        raise UserError(f"{target.__name__}: {' '.join(str(error).split())}") from error


def _of_layers(
    name: str, layers: Sequence[Layer], overrides: Sequence[str], sections: Sequence[str] = SECTIONS
) -> DictConfig:
    """The experiment that these layers and overrides make, checked."""
    asked = _parse(overrides)
    with _naming(name):
        written = compose.composed(layers).get("budget", "auto")
        budget = _budget(str(asked.pop("budget", written)), [known for layer in layers for known in layer.budgets])
        config = merged(OmegaConf.structured(Experiment(name=name)), compose.composed(layers, budget))
        config.budget, config.budgets = budget, {budget: compose.changed_by_budget(layers, budget)}
        callbacks = list(config.callbacks)
        if "detector" not in sections and (strange := [str(key) for key in asked if key not in OF_DATA_ALONE]):
            raise UserError(f"{strange[0]}: a data set without a detector takes {', '.join(OF_DATA_ALONE)}")
        config = merged(config, asked)
        config.layers = [layer.name for layer in layers]
        return _complete(config, callbacks, sections)


def _parse(overrides: Sequence[str]) -> DictConfig:
    """The values that `key=value` words ask for, under today's keys, each laid over the ones before."""
    asked = OmegaConf.create()
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not (equals and all(key.split("."))):
            raise UserError(f"'{override}' is not key=value, as in detector.latent_dim=64")
        try:
            given: Any = OmegaConf.to_container(OmegaConf.from_dotlist([override]), resolve=False)
            current, used = in_current_keys(given)
            tell_of_new_keys(used)
            asked = cast(DictConfig, OmegaConf.merge(asked, current))
        except YAMLError as error:
            raise UserError(f"'{override}': what follows '=' is not valid YAML") from error
        except OmegaConfBaseException as error:
            raise UserError(f"'{override}': {sentence(error)}") from error
        except TypeError as error:
            raise UserError(f"'{override}': another word gives a list where this one gives a section") from error
    return asked


def _budget(budget: str, offered: Sequence[str]) -> str:
    """The budget to take: the one asked for, by hardware if that is auto."""
    if budget == "auto":
        import torch  # only here: whoever names a budget needn't wait for it

        budget = "paper" if torch.cuda.is_available() else "laptop"
    if budget not in BUDGETS:
        raise UserError(f"unknown budget '{budget}', there are auto, {', '.join(BUDGETS)}")
    if budget not in offered:
        raise UserError(f"has no budget '{budget}': add budgets.{budget} to its YAML")
    return budget


def _complete(config: DictConfig, callbacks: Sequence[str], sections: Sequence[str] = SECTIONS) -> DictConfig:
    """`config` with its sections laid over their schemas, resolved; `callbacks` are those its YAML has."""
    if "detector" not in sections:
        config.detector, config.callbacks = None, {}
    for name, node in list(config.callbacks.items()):
        if node is None:
            del config.callbacks[name]
        if name not in callbacks and not (isinstance(node, DictConfig) and TARGET in node):
            raise UserError(f"callbacks.{name}: there is no such callback.{did_you_mean(str(name), callbacks)}")
    named = (*sections, *(f"callbacks.{name}" for name in config.callbacks))
    for section in named:
        OmegaConf.update(config, section, checked(section, OmegaConf.select(config, section)), merge=False)
    _interpolate(config, named)  # last, so that ${data.patch_size} sees the override
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"Missing mandatory value: {', '.join(missing)}")
    refuse_impossible("", Experiment, cast(dict[str, Any], OmegaConf.to_container(config)))
    for section in named:
        values: Any = OmegaConf.to_container(OmegaConf.select(config, section))
        refuse_impossible(f"{section}.", locate(values.pop(TARGET)), values)
    return config


def _interpolate(config: DictConfig, sections: Sequence[str]) -> None:
    """Put the values in the place of `${…}`.

    Raises:
        UserError: a value suits the key it comes from, but not the one it goes to, which is named.
    """
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        if error.full_key:
            raise
        untyped = OmegaConf.create(cast(dict[str, Any], OmegaConf.to_container(config, resolve=False)))
        OmegaConf.resolve(untyped)
        for section in sections:
            checked(section, OmegaConf.select(untyped, section))
        raise


@contextmanager
def _naming(experiment: str) -> Iterator[None]:
    """Has every complaint say which experiment it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{experiment}: {error}") from error
    except OmegaConfBaseException as error:
        key = error.full_key or "a value that another section is given as well"  # ${…} is checked where it arrives
        raise UserError(f"{experiment}: {key}: {sentence(error)}") from error
