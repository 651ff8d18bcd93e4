"""Schemas of the sections of an experiment, derived from the signatures of the classes that they name."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from functools import cache, partial, reduce
from operator import or_
from types import GenericAlias, UnionType
from typing import Any, Union, cast, get_args, get_origin

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf, TupleConfig
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from anomaly_lab.experiment import trust
from anomaly_lab.types import Constraint, Range, UserError, constraints

TARGET = "_target_"
_DATASETS = (
    *("headct", "mias", "mias_patches", "rsna", "chexpert", "oct2017", "tsukazaki", "sixray", "isic2016"),
    *("brats2017", "mnist", "abmnist", "folder", "nifti", "dicom"),
)
MOVED = {  # current name of each module that older run folders may refer to
    **{f"anomaly_lab.data.{name}": f"anomaly_lab.data.datasets.{name}" for name in _DATASETS},
}

_LENGTH = "the phases determine the length of the training: set detector.<phase>_iterations, or another budget"
_INTERVAL = "validation and checkpoints happen every data.epoch_length iterations: set data.epoch_length"
_RECORD = "logging and checkpoints are configured in the section `callbacks`"
_WHOLE = "all cases are scored and all iterations run: use budget=smoke for a short run"
KEYS = {  # current key of each setting that older experiments and run folders may contain
    "evaluation.quantile": "evaluation.purpose",
    "data.splits": "data.split.file",
    **{f"data.{name}": f"data.split.{name}" for name in ("train_normals", "val_fraction", "folds", "fold")},
    "data.contamination": "data.split.contamination",
    "data.twin_seed": "data.twin.seed",
    "data.twin_size": "data.twin.size",
    "data.resize": "data.picture.size",
    "data.fit": "data.picture.fit",
    "data.store": "data.store.enabled",  # if the value is not a section
    "data.store_dir": "data.store.folder",
    **{f"data.{name}": f"data.store.{name}" for name in ("on_bad", "num_workers", "scoring_batch_size")},
}
ENGINE_SETS = {  # arguments of the Trainer that the engine sets, and what to use instead
    **dict.fromkeys(("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"), _LENGTH),
    **dict.fromkeys(("val_check_interval", "check_val_every_n_epoch"), _INTERVAL),
    "reload_dataloaders_every_n_epochs": _INTERVAL,
    **dict.fromkeys(("logger", "callbacks", "enable_checkpointing"), _RECORD),
    **dict.fromkeys(("fast_dev_run", "overfit_batches", "barebones"), "use budget=smoke for a short run"),
    **dict.fromkeys((f"limit_{stage}_batches" for stage in ("train", "val", "test", "predict")), _WHOLE),
    "num_sanity_val_steps": "the engine validates every data.epoch_length iterations only",
    "inference_mode": "the detector's `predict` decides whether gradients are computed",
    "use_distributed_sampler": "the data module distributes the cases to the processes",
    "default_root_dir": "set `runs`, the parent folder of the run folders",
}


@dataclass(frozen=True)
class _Only:
    """Constraint: values of some types, none of which is a class's name or an object."""

    text: str
    kinds: tuple[type, ...] = ()

    def admits(self, value: Any) -> bool:
        return isinstance(value, self.kinds)

    def __str__(self) -> str:
        return self.text


_NAME = _Only("a name", (str,))
_ENGINES = _Only("nothing, the engine sets it")
FOREIGN: dict[tuple[str, str], tuple[Constraint, ...]] = {  # constraints on parameters of third-party classes
    ("Trainer", "accumulate_grad_batches"): (Range("[1, 65536]"),),
    ("Trainer", "gradient_clip_val"): (Range("(0, inf)"),),
    ("Trainer", "num_nodes"): (Range("[1, 65536]"),),
    **{("Trainer", name): (_NAME,) for name in ("accelerator", "strategy", "profiler")},  # Lightning's own, by name
    **{("Trainer", name): (_ENGINES,) for name in ("plugins", "model_registry")},
}


def checked(section: str, node: Any) -> DictConfig:
    """Merge a section into the schema of its class and validate keys and types.

    Args:
        section: dotted name of the section, such as "data" or "callbacks.health", for messages.
        node: the section.

    Returns:
        The section with all default values.

    Raises:
        UserError: the class does not exist, a key is unknown or set by the engine, or a value has the wrong type.

    Examples:
        >>> node = OmegaConf.create({TARGET: "anomaly_lab.callbacks.samples.Samples"})
        >>> "every" in checked("callbacks.samples", node)
        True
    """
    if not isinstance(node, DictConfig) or TARGET not in node:
        raise UserError(f"{section} must be a mapping that names its class by {TARGET}")
    target = locate(node[TARGET], section)
    values: Any = {**cast(dict[str, Any], OmegaConf.to_container(node, resolve=False)), TARGET: moved(node[TARGET])}
    _refuse_nested_classes(section, {name: value for name, value in values.items() if name != TARGET})
    if section != "trainer":
        return merged(_schema(target), values, f"{section}.")
    _refuse_what_the_engine_sets(values)
    return merged(_schema(target, omitted=tuple(ENGINE_SETS)), values, "trainer.")


def merged(schema: DictConfig, node: DictConfig | Mapping[str, Any], prefix: str = "") -> DictConfig:
    """Merge `node` into `schema`; after a failure key by key, so that the message names the key.

    Args:
        schema: a structured configuration.
        node: the values.
        prefix: prefix of the keys in messages, such as "data.".

    Raises:
        UserError: a key is unknown, or a value has the wrong type.

    Examples:
        >>> schema = OmegaConf.structured(make_dataclass("Toy", [("width", int, 8)]))
        >>> merged(schema, {"width": "16"}).width
        16
        >>> merged(schema, {"widht": 16}, "detector.")
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: detector.widht: Key 'widht' not in 'Toy'. Did you mean: 'width'?
    """
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
                why = f"{why}. Valid keys: {', '.join(takes)}"
            raise UserError(f"{prefix}{error.full_key or key}: {why}") from error
        except TypeError as error:
            raise UserError(
                f"{prefix}{key}: got a section where a list belongs, or a list where a section belongs"
            ) from error
    return schema


def to_object(config: DictConfig) -> Any:
    """Convert a structured configuration to its dataclass, with interpolations resolved.

    Raises:
        UserError: a value is missing, or refers to one that does not exist; the message names the key.

    Examples:
        >>> Toy = make_dataclass("Toy", [("width", int, 8)])
        >>> to_object(OmegaConf.structured(Toy)).width
        8
    """
    try:
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise UserError(f"Missing mandatory value: {', '.join(missing)}")
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {sentence(error)}") from error


def _refuse_other_containers(schema: DictConfig, values: Mapping[str, Any], prefix: str) -> None:
    """Raise UserError for a list in place of a section or vice versa, which OmegaConf cannot merge."""
    for key, value in values.items():
        below = schema._get_node(key) if key in schema else None
        if isinstance(below, DictConfig) and isinstance(value, list | tuple):
            raise UserError(f"{prefix}{key}: must be a section, {key}.<name>=…, not a list")
        if isinstance(below, ListConfig | TupleConfig) and isinstance(value, Mapping):
            raise UserError(f"{prefix}{key}: must be a list, not a section")
        if isinstance(below, DictConfig) and isinstance(value, Mapping):
            if below._is_none():  # an optional section that is switched off, `cut: null`
                section = below._metadata.ref_type
                below = OmegaConf.structured(section) if is_dataclass(section) else OmegaConf.create()
            _refuse_other_containers(below, value, f"{prefix}{key}.")


def types_of(kind: type) -> dict[str, Any]:
    """Return the type of each key of a class's section.

    Examples:
        >>> types_of(make_dataclass("Toy", [("width", int, 8)]))
        {'_target_': <class 'str'>, 'width': <class 'int'>}
    """
    return {TARGET: str} | {name: parameter.annotation for name, parameter in _parameters(kind).items()}


def types_below(annotation: Any, keys: Iterable[str]) -> dict[str, Any]:
    """Return the types of the keys below a setting, as far as it is a section or a mapping.

    Examples:
        >>> types_below(dict[str, float] | None, ["shift"])
        {'shift': <class 'float'>}
    """
    if section := _section(annotation):
        return types_of(section)
    mapping = next((each for each in (annotation, *get_args(annotation)) if get_origin(each) is dict), None)
    return dict.fromkeys(keys, get_args(mapping)[1]) if mapping else {}


def refuse_impossible(prefix: str, kind: type, values: Mapping[str, Any]) -> None:
    """Validate resolved values against the constraints in the types of a class's parameters, and its sections.

    Args:
        prefix: prefix of the keys in messages, such as "data.".
        kind: the class.
        values: values of its parameters as plain Python objects.

    Raises:
        UserError: a value violates a constraint, or a dataclass section rejects its values; the message names the key.

    Examples:
        >>> from anomaly_lab.types import Rate
        >>> class Toy:
        ...     def __init__(self, rate: Rate = 0.5) -> None: ...
        >>> refuse_impossible("detector.", Toy, {"rate": 2})
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: detector.rate=2: takes a number in (0, 1]
    """
    for name, parameter in _parameters(kind).items():
        if (value := values.get(name)) is None:
            continue
        for constraint in (*constraints(parameter.annotation), *FOREIGN.get((kind.__name__, name), ())):
            if not constraint.admits(value):
                given = ascii(value) if isinstance(value, str) and not value.isprintable() else value
                raise UserError(f"{prefix}{name}={given}: takes {constraint}")
        if section := _section(parameter.annotation):
            refuse_impossible(f"{prefix}{name}.", section, value)
            _instance(f"{prefix}{name}", section, value)


def arguments(prefix: str, kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the values of a section to constructor arguments: dataclass parameters become instances.

    Args:
        prefix: prefix of the keys in messages.
        kind: the class.
        values: values of its parameters as plain Python objects.

    Raises:
        UserError: a dataclass rejects its values.

    Examples:
        >>> from anomaly_lab.data.datamodule import PatchDataModule
        >>> arguments("data.", PatchDataModule, {"limits": {"train": 100}, "batch_size": 8})["limits"].train
        100
    """
    converted = dict(values)
    for name, parameter in _parameters(kind).items():
        section, value = _section(parameter.annotation), values.get(name)
        if section and isinstance(value, Mapping):
            converted[name] = _instance(f"{prefix}{name}", section, value)
    return converted


def _instance(key: str, section: type, values: Mapping[str, Any]) -> Any:
    """Construct the dataclass of a section; lists become tuples."""
    try:
        return section(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except ValueError as error:
        raise UserError(f"{key}: {' '.join(str(error).split())}") from error


def _section(annotation: Any) -> type | None:
    """Return the dataclass in a parameter's type, such as `Volume` in `Volume | None`, or None."""
    members = [annotation, *get_args(annotation)]
    return next((member for member in members if isinstance(member, type) and is_dataclass(member)), None)


def _refuse_nested_classes(key: str, value: Any) -> None:
    """Refuse a class named below a section: only sections are made into objects."""
    if isinstance(value, Mapping) and TARGET in value:
        raise UserError(f"{key}: names a class by {TARGET}, which only a section and a callback can do; remove it")
    members = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        _refuse_nested_classes(f"{key}.{name}", member)


def locate(path: str, section: str = "") -> type:
    """Import the class at a dotted path, if it is one that a section may name; see `trust`.

    Args:
        path: the path; names of earlier versions are converted.
        section: dotted name of the section, such as "data" or "callbacks.health"; empty for any section.

    Raises:
        UserError: there is no such module or class, its package is not trusted, or it has not the section's base class.

    Examples:
        >>> locate("anomaly_lab.detectors.ganomaly.GANomaly").__name__
        'GANomaly'
        >>> locate("anomaly_lab.detectors.ganomaly.Ganomaly")
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: no class 'Ganomaly' in anomaly_lab.detectors.ganomaly. Did you mean: 'GANomaly'...
    """
    path, prefix = moved(str(path)), f"{section}.{TARGET}: " if section else ""
    package, _, name = path.rpartition(".")
    if not package or not all(part.isidentifier() for part in path.split(".")):
        raise UserError(f"{prefix}'{path}' is not the dotted path of a class")
    trust.refuse_package(path, section)
    try:
        value = getattr(importlib.import_module(package), name, None)
    except (ModuleNotFoundError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and not f"{package}.".startswith(f"{error.name}."):
            raise UserError(f"{prefix}{package} needs the package {error.name}, which is not installed") from error
        raise UserError(f"{prefix}no module '{package}'.{did_you_mean(package, _neighbours(package))}") from error
    if not isinstance(value, type):
        members = vars(importlib.import_module(package))
        classes = [known for known, member in members.items() if isinstance(member, type)]
        raise UserError(f"{prefix}no class '{name}' in {package}.{did_you_mean(name, classes)}")
    trust.refuse_class(value, path, section)
    return value


def moved(path: str) -> str:
    """Return the current dotted path of a class.

    Examples:
        >>> moved("anomaly_lab.data.headct.HeadCT")
        'anomaly_lab.data.datasets.headct.HeadCT'
    """
    package, _, name = path.rpartition(".")
    return f"{MOVED[package]}.{name}" if package in MOVED else path


def in_current_keys(tree: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Convert deprecated keys of a tree of sections.

    Returns:
        The tree with current keys, and the current name of each deprecated key that was found.

    Examples:
        >>> in_current_keys({"seed": 0, "data": {"root": "a", "twin_size": 60}})
        ({'seed': 0, 'data': {'root': 'a', 'twin': {'size': 60}}}, {'data.twin_size': 'data.twin.size'})
    """
    score = tree.get("score")
    if isinstance(score, Mapping) and "from" in score:  # how one says it; no attribute in Python can have that name
        tree = {**tree, "score": {"source" if name == "from" else name: value for name, value in score.items()}}
    current, used = dict(tree), dict[str, str]()
    for section in {key.partition(".")[0] for key in KEYS}:
        values = tree.get(section)
        if not isinstance(values, Mapping):
            continue
        moved_keys = {
            name: KEYS[f"{section}.{name}"]
            for name, value in values.items()
            if f"{section}.{name}" in KEYS and not isinstance(value, Mapping)
        }
        now = {name: value for name, value in values.items() if name not in moved_keys}
        for name, key in moved_keys.items():
            used[f"{section}.{name}"] = key
            _, *inner, last = key.split(".")
            if not inner:
                now.setdefault(last, values[name])
                continue
            below = now.get(inner[0]) or {}
            now[inner[0]] = {last: values[name], **below} if isinstance(below, Mapping) else below
        current[section] = now
    return current, dict(sorted(used.items()))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that suggests the words most similar to `word`; empty if none is similar.

    Examples:
        >>> did_you_mean("fanogn", ["fanogan", "ganomaly"])
        " Did you mean: 'fanogan'?"
        >>> did_you_mean("xyz", ["fanogan"])
        ''
    """
    close = get_close_matches(word, list(known), n=3)
    return f" Did you mean: {', '.join(repr(match) for match in close)}?" if close else ""


def sentence(error: OmegaConfBaseException) -> str:
    """Return the first line of OmegaConf's message without unfilled placeholders; the other lines repeat the key.

    A word that is none of the words allowed is answered with those most similar to it.

    Examples:
        >>> config = OmegaConf.structured(make_dataclass("Toy", [("width", int, 8)]))
        >>> try:
        ...     config.width = "wide"
        ... except OmegaConfBaseException as error:
        ...     print(sentence(error))
        Value 'wide' of type 'str' could not be converted to Integer
    """
    first = str(error).splitlines()[0].replace("'$VALUE' of type '$VALUE_TYPE'", "of an element")
    if choice := re.search(r"Invalid value '(.*)', expected one of \[('.*')\]", first):
        first += "." * bool(hint := did_you_mean(choice[1], choice[2].strip("'").split("', '"))) + hint
    return first


def _refuse_what_the_engine_sets(trainer: Mapping[str, Any]) -> None:
    for key in trainer:
        for taken in get_close_matches(str(key), ENGINE_SETS, n=1, cutoff=0.9):
            raise UserError(f"trainer.{taken} is set by the engine: {ENGINE_SETS[taken]}")
    if str(precision := trainer.get("precision")) in ("16", "16-mixed", "16-true"):
        raise UserError(f"trainer.precision={precision}: gradient penalties overflow in fp16, use bf16-mixed")


@cache
def _schema(target: type, omitted: tuple[str, ...] = ()) -> DictConfig:
    """Create a structured configuration with a field for each parameter of the constructor."""
    schema: DictConfig = OmegaConf.structured(_mirror(target, omitted))
    schema[TARGET] = f"{target.__module__}.{target.__qualname__}"
    return schema


@cache
def _mirror(kind: type, omitted: tuple[str, ...] = ()) -> type:
    """Create a dataclass with a field for each parameter of a class, with types that OmegaConf can check."""
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
    """Return the parameters of a constructor, and of the base class's if it passes on `**arguments`."""
    parameters: dict[str, inspect.Parameter] = {}
    for owner in inspect.getmro(target):
        if "__init__" not in vars(owner):
            continue
        own = list(inspect.signature(vars(owner)["__init__"], eval_str=True).parameters.values())[1:]
        named = [p for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        parameters = {p.name: p for p in named} | parameters  # the subclass's default takes precedence
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return parameters


def _without_constraints(annotation: Any) -> Any:
    """Remove the metadata of `Annotated` from a type and from the members of a union."""
    if hasattr(annotation, "__metadata__"):
        return _without_constraints(annotation.__origin__)
    if get_origin(annotation) is Sequence:
        return GenericAlias(list, get_args(annotation))
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    members = [_without_constraints(member) for member in get_args(annotation)]
    alternatives = [member for member in members if member is not type(None)]
    if len(alternatives) > 1 and any(isinstance(get_origin(member), type) for member in alternatives):
        return Any  # such as float | tuple[float, float]: OmegaConf would reject [1, 2]
    return reduce(or_, members)


def _supported(annotation: Any) -> Any:
    """Return the annotation, or Any if OmegaConf cannot check it."""
    try:
        OmegaConf.structured(make_dataclass("Probe", [("value", annotation, field(default=MISSING))]))
    except OmegaConfBaseException:
        return Any
    return annotation


def _neighbours(module: str) -> list[str]:
    """Return the modules of the package that `module` would be in."""
    package = module.rpartition(".")[0]
    try:
        path = importlib.import_module(package).__path__
    except (ImportError, ValueError, AttributeError):
        return []
    return [f"{package}.{info.name}" for info in pkgutil.iter_modules(path)]
