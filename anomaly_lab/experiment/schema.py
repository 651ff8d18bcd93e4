"""What a section of an experiment may hold: the signature of the class it names, found by dotted path."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import field, make_dataclass
from difflib import get_close_matches
from functools import cache, partial
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from anomaly_lab.types import UserError

TARGET = "_target_"
_DATASETS = (
    *("headct", "mias", "mias_patches", "rsna", "chexpert", "oct2017", "tsukazaki", "sixray", "isic2016"),
    *("brats2017", "mnist", "abmnist", "folder", "nifti", "dicom"),
)
MOVED = {  # modules that older run folders name, and where they are now
    **{f"anomaly_lab.data.{name}": f"anomaly_lab.data.datasets.{name}" for name in _DATASETS},
}

_LENGTH = "a training is as long as its phases: set detector.<phase>_iterations, or another budget"
_INTERVAL = "validation and checkpoints come every data.epoch_length iterations: set that"
_RECORD = "logging and checkpoints are entries of the section `callbacks`"
_WHOLE = "every case is scored and every iteration done: try budget=smoke for a short run"
ENGINE_SETS = {  # Trainer's keys that the engine decides on, and what to use instead
    **dict.fromkeys(("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"), _LENGTH),
    **dict.fromkeys(("val_check_interval", "check_val_every_n_epoch"), _INTERVAL),
    "reload_dataloaders_every_n_epochs": _INTERVAL,
    **dict.fromkeys(("logger", "callbacks", "enable_checkpointing"), _RECORD),
    **dict.fromkeys(("fast_dev_run", "overfit_batches", "barebones"), "try budget=smoke for a short run"),
    **dict.fromkeys((f"limit_{stage}_batches" for stage in ("train", "val", "test", "predict")), _WHOLE),
    "num_sanity_val_steps": "the engine validates at data.epoch_length only",
    "inference_mode": "a detector's `predict` decides itself about gradients",
    "use_distributed_sampler": "the data module deals the cases to the processes",
    "default_root_dir": "set `runs`, the folder of the run folders",
}


def checked(section: str, node: Any) -> DictConfig:
    """One section over the schema read from its class's signature.

    Raises:
        UserError: no such class, a key it does not take or the engine sets, a value of the wrong type.
    """
    if not isinstance(node, DictConfig) or TARGET not in node:
        raise UserError(f"{section} must be a mapping that names its class by {TARGET}")
    target = locate(node[TARGET], f"{section}.{TARGET}: ")
    values: Any = {**cast(dict[str, Any], OmegaConf.to_container(node, resolve=False)), TARGET: moved(node[TARGET])}
    if section != "trainer":
        return merged(_schema(target), values, f"{section}.")
    _refuse_what_the_engine_sets(values)
    return merged(_schema(target, omitted=tuple(ENGINE_SETS)), values, "trainer.")


def merged(schema: DictConfig, node: DictConfig | Mapping[str, Any], prefix: str = "") -> DictConfig:
    """`node` over `schema`; if that fails, key by key, so that every complaint names its key."""
    values: Any = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else node
    with contextlib.suppress(OmegaConfBaseException):
        return cast(DictConfig, OmegaConf.merge(schema, values))
    allowed = [str(key) for key in schema]
    for key, value in values.items():
        try:
            schema = cast(DictConfig, OmegaConf.merge(schema, {key: value}))
        except OmegaConfBaseException as error:
            why = sentence(error)
            if isinstance(error, ConfigKeyError) and "Did you mean" not in why:
                why = f"{why}. It takes: {', '.join(allowed)}"
            raise UserError(f"{prefix}{error.full_key or key}: {why}") from error
    return schema


def locate(path: str, prefix: str = "") -> type:
    """The class at a dotted path; `prefix` opens the complaint when there is none."""
    package, _, name = moved(str(path)).rpartition(".")
    if not package:
        raise UserError(f"{prefix}'{path}' is not the dotted path of a class")
    try:
        found = getattr(importlib.import_module(package), name, None)
    except (ModuleNotFoundError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and not f"{package}.".startswith(f"{error.name}."):
            raise  # the module is there, but something it imports is not
        raise UserError(f"{prefix}no module '{package}'.{did_you_mean(package, _neighbours(package))}") from error
    if not isinstance(found, type):
        members = vars(importlib.import_module(package))
        classes = [known for known, value in members.items() if isinstance(value, type)]
        raise UserError(f"{prefix}no class '{name}' in {package}.{did_you_mean(name, classes)}")
    return found


def moved(path: str) -> str:
    """The dotted path under which a class is found today."""
    package, _, name = path.rpartition(".")
    return f"{MOVED[package]}.{name}" if package in MOVED else path


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question with the words closest to `word`, or nothing where none is close."""
    close = get_close_matches(word, list(known), n=3)
    return f" Did you mean: {', '.join(repr(match) for match in close)}?" if close else ""


def sentence(error: OmegaConfBaseException) -> str:
    """The first line of OmegaConf's message, the others repeat the key; without its unfilled placeholders."""
    return str(error).splitlines()[0].replace("'$VALUE' of type '$VALUE_TYPE'", "of an element")


def _refuse_what_the_engine_sets(trainer: Mapping[str, Any]) -> None:
    for key in trainer:
        for taken in get_close_matches(str(key), ENGINE_SETS, n=1, cutoff=0.9):
            raise UserError(f"trainer.{taken} is not yours to set: {ENGINE_SETS[taken]}")
    if str(precision := trainer.get("precision")) in ("16", "16-mixed", "16-true"):
        raise UserError(f"trainer.precision={precision}: gradient penalties overflow in fp16, use bf16-mixed")


@cache
def _schema(target: type, omitted: tuple[str, ...] = ()) -> DictConfig:
    """A structured configuration with a field for each parameter of the constructor; to be merged into, a copy."""
    fields: list[tuple[str, Any, Any]] = [(TARGET, str, f"{target.__module__}.{target.__qualname__}")]
    for p in _parameters(target):
        if p.name not in omitted:
            default = partial(copy.copy, MISSING if p.default is p.empty else p.default)
            fields.append((p.name, _supported(p.annotation), field(default_factory=default)))
    schema: DictConfig = OmegaConf.structured(make_dataclass(target.__name__, fields))
    return schema


def _parameters(target: type) -> Iterable[inspect.Parameter]:
    """What a constructor takes; where it hands `**arguments` on, what the next class's takes as well."""
    taken: dict[str, inspect.Parameter] = {}
    for owner in inspect.getmro(target):
        if "__init__" not in vars(owner):
            continue
        own = list(inspect.signature(vars(owner)["__init__"], eval_str=True).parameters.values())[1:]
        named = [p for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        taken = {p.name: p for p in named} | taken  # the subclass's default wins
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return taken.values()


def _supported(annotation: Any) -> Any:
    """The annotation, or Any where OmegaConf cannot check it."""
    try:
        OmegaConf.structured(make_dataclass("Probe", [("value", annotation, field(default=MISSING))]))
    except OmegaConfBaseException:
        return Any
    return annotation


def _neighbours(module: str) -> list[str]:
    """Modules of the package that `module` would be in."""
    package = module.rpartition(".")[0]
    try:
        path = importlib.import_module(package).__path__
    except (ImportError, ValueError, AttributeError):
        return []
    return [f"{package}.{found.name}" for found in pkgutil.iter_modules(path)]
