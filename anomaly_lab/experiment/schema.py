"""What a section of an experiment may hold: the signature of the class it names, found by dotted path."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from functools import cache, partial, reduce
from operator import or_
from types import GenericAlias, UnionType
from typing import Any, Union, cast, get_args, get_origin

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf, TupleConfig
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from anomaly_lab.types import Constraint, Range, UserError, constraints

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
KEYS = {  # of the data module, as older experiments and run folders have them, and where they are now
    "data.splits": "data.split.file",
    **{f"data.{name}": f"data.split.{name}" for name in ("train_normals", "val_fraction", "folds", "fold")},
    "data.contamination": "data.split.contamination",
    "data.twin_seed": "data.twin.seed",
    "data.twin_size": "data.twin.size",
    "data.resize": "data.picture.size",
    "data.fit": "data.picture.fit",
    "data.store": "data.store.enabled",  # where it is no section
    "data.store_dir": "data.store.folder",
    **{f"data.{name}": f"data.store.{name}" for name in ("on_bad", "num_workers", "scoring_batch_size")},
}
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


FOREIGN: dict[tuple[str, str], tuple[Constraint, ...]] = {  # what parameters admit whose types are not ours to write
    ("Trainer", "accumulate_grad_batches"): (Range("[1, 65536]"),),
    ("Trainer", "gradient_clip_val"): (Range("(0, inf)"),),
    ("Trainer", "num_nodes"): (Range("[1, 65536]"),),
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
    _refuse_other_containers(schema, values, prefix)
    with contextlib.suppress(OmegaConfBaseException, TypeError):
        return cast(DictConfig, OmegaConf.merge(schema, values))
    allowed = [str(key) for key in schema]
    for key, value in values.items():
        try:
            schema = cast(DictConfig, OmegaConf.merge(schema, {key: value}))
        except OmegaConfBaseException as error:
            why = sentence(error)
            if isinstance(error, ConfigKeyError) and "Did you mean" not in why:
                inner: Any = error.object_type if "." in str(error.full_key) else None
                takes = [known.name for known in fields(inner)] if is_dataclass(inner) else allowed
                why = f"{why}. It takes: {', '.join(takes)}"
            raise UserError(f"{prefix}{error.full_key or key}: {why}") from error
        except TypeError as error:
            raise UserError(f"{prefix}{key}: a section is given for a list, or a list for a section") from error
    return schema


def _refuse_other_containers(schema: DictConfig, values: Mapping[str, Any], prefix: str) -> None:
    """Raise UserError for a list in place of a section and the other way round, which OmegaConf cannot merge."""
    for key, value in values.items():
        below = schema._get_node(key) if key in schema else None
        if isinstance(below, DictConfig) and isinstance(value, list | tuple):
            raise UserError(f"{prefix}{key}: a section belongs here, {key}.<name>=…, not a list")
        if isinstance(below, ListConfig | TupleConfig) and isinstance(value, Mapping):
            raise UserError(f"{prefix}{key}: a list belongs here, not a section")
        if isinstance(below, DictConfig) and isinstance(value, Mapping):
            if below._is_none():  # `cut: null`, a section that is not there yet
                kind = below._metadata.ref_type
                below = OmegaConf.structured(kind) if is_dataclass(kind) else OmegaConf.create()
            _refuse_other_containers(below, value, f"{prefix}{key}.")


def refuse_impossible(prefix: str, kind: type, values: Mapping[str, Any]) -> None:
    """Compare resolved values with what the types of a class's parameters admit, and try its dataclass sections.

    Args:
        prefix: of the keys in a complaint, such as "data.".
        kind: the class.
        values: of its parameters, plain Python.

    Raises:
        UserError: a value that its type does not admit, or values that a section refuses; names the key.
    """
    for name, parameter in _parameters(kind).items():
        if (value := values.get(name)) is None:
            continue
        for constraint in (*constraints(parameter.annotation), *FOREIGN.get((kind.__name__, name), ())):
            if not constraint.admits(value):
                raise UserError(f"{prefix}{name}={value}: takes {constraint}")
        if section := _section(parameter.annotation):
            refuse_impossible(f"{prefix}{name}.", section, value)
            _instance(f"{prefix}{name}", section, value)


def arguments(prefix: str, kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a class's parameters as it takes them: sections are instances of their dataclass.

    Raises:
        UserError: a section refuses its values.
    """
    taken = dict(values)
    for name, parameter in _parameters(kind).items():
        section, value = _section(parameter.annotation), values.get(name)
        if section and isinstance(value, Mapping):
            taken[name] = _instance(f"{prefix}{name}", section, value)
    return taken


def _instance(key: str, section: type, values: Mapping[str, Any]) -> Any:
    """A dataclass of the values of its section; lists become tuples."""
    try:
        return section(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except ValueError as error:
        raise UserError(f"{key}: {' '.join(str(error).split())}") from error


def _section(annotation: Any) -> type | None:
    """The dataclass in a parameter's type, `Volume` in `Volume | None`; None where there is none."""
    members = [annotation, *get_args(annotation)]
    return next((member for member in members if isinstance(member, type) and is_dataclass(member)), None)


def locate(path: str, prefix: str = "") -> type:
    """The class at a dotted path; `prefix` opens the complaint when there is none."""
    package, _, name = moved(str(path)).rpartition(".")
    if not package or not all(part.isidentifier() for part in package.split(".")):
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


def in_current_keys(tree: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A tree of sections whose keys are today's, and which of KEYS it had.

    >>> in_current_keys({"seed": 0, "data": {"root": "a", "twin_size": 60}})
    ({'seed': 0, 'data': {'root': 'a', 'twin': {'size': 60}}}, {'data.twin_size': 'data.twin.size'})
    """
    data, used = tree.get("data"), {}
    if not isinstance(data, Mapping):
        return dict(tree), {}
    current = {name: value for name, value in data.items() if f"data.{name}" not in KEYS or isinstance(value, Mapping)}
    for name in data.keys() - current.keys():
        used[f"data.{name}"] = KEYS[f"data.{name}"]
        _, section, key = KEYS[f"data.{name}"].split(".")
        below = current.get(section) or {}
        current[section] = {key: data[name], **below} if isinstance(below, Mapping) else below
    return {**tree, "data": current}, dict(sorted(used.items()))


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
    """A structured configuration with a field for each parameter of the constructor."""
    schema: DictConfig = OmegaConf.structured(_mirror(target, omitted))
    schema[TARGET] = f"{target.__module__}.{target.__qualname__}"
    return schema


@cache
def _mirror(kind: type, omitted: tuple[str, ...] = ()) -> type:
    """A dataclass with a field for each parameter of a class, of types that OmegaConf can check."""
    entries: list[tuple[str, Any, Any]] = [] if is_dataclass(kind) else [(TARGET, str, MISSING)]
    for name, parameter in _parameters(kind).items():
        if name in omitted:
            continue
        value = MISSING if parameter.default is parameter.empty else parameter.default
        bare = _without_constraints(parameter.annotation)
        if section := _section(bare):
            inner = _mirror(section)
            value = value if value is None else inner(**vars(value))
            bare = inner | None if type(None) in get_args(bare) else inner
        if get_origin(bare) is list and isinstance(value, tuple):
            value = list(value)
        entries.append((name, _supported(bare), field(default_factory=partial(copy.copy, value))))
    return make_dataclass(kind.__name__, entries)


@cache
def _parameters(target: type) -> dict[str, inspect.Parameter]:
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
    return taken


def _without_constraints(annotation: Any) -> Any:
    """A type as OmegaConf knows it, without what `Annotated` adds to it or to the members of a union."""
    if hasattr(annotation, "__metadata__"):
        return _without_constraints(annotation.__origin__)
    if get_origin(annotation) is Sequence:
        return GenericAlias(list, get_args(annotation))
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    members = [_without_constraints(member) for member in get_args(annotation)]
    alternatives = [member for member in members if member is not type(None)]
    if len(alternatives) > 1 and any(isinstance(get_origin(member), type) for member in alternatives):
        return Any  # a number or several: OmegaConf would not take [1, 2] for tuple[float, float]
    return reduce(or_, members)


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
