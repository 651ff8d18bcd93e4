"""Load an experiment, apply a budget and the user's overrides, validate it and build the objects it describes.

The signature of a class is the schema of its section, see `schema`; no other list states what is allowed.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomaly_lab import catalogue
from anomaly_lab.experiment import compose
from anomaly_lab.experiment.compose import BUDGETS, Layer, tell_of_new_keys
from anomaly_lab.experiment.purpose import Purpose
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
    types_of,
)
from anomaly_lab.experiment.typed import read_tree, tree_of
from anomaly_lab.types import Count, Name, Range, Seed, UserError

Compile = Literal["never", "networks", "graphs"]
CaseScore = Literal["none", "max", "mean", "top_k"]
Reference = Literal["validation", "crossfit"]
ThresholdRule = Literal["normal_quantile", "test_max_f1", "test_min_max"]
FeatureBaselines = Literal["auto", "always", "never"]
OF_DATA_ALONE = ("data", "seed", "runs", "budget")  # keys accepted for a data set without a detector
DATA_FOLDER = "ANOMALY_DATA"  # variable with the folder above the data sets, in whose default roots it stands
SECTIONS = ("data", "detector", "trainer")  # sections that name a class by _target_, as every callback does


@dataclass
class Evaluation:
    """Settings of the evaluation.

    Attributes:
        threshold: rule for the decision threshold. "normal_quantile" is a quantile of the scores of the validation
            normals (held-out normal images). The other two use the test set, exist to reproduce published results and
            put a warning on the report: "test_max_f1" maximises F1 on the test labels (anomalib), "test_min_max" is at
            0.2 of the range of the test scores (the official GANomaly code).
        purpose: what the threshold of "normal_quantile" is for, decided before any result: "rule_in" (an alarm is acted
            upon: .95 of the normals stay below), "screening" (few missed, alarms get a second look: .8), "rule_out"
            (what is silent is not looked at: .5), or such a quantile in (0, 1).
        reference: the normals that "normal_quantile" goes by: those of "validation", or with "crossfit" the training
            normals as well, each scored by a fit that has not seen its patient. Only for detectors that are fitted in
            seconds without learnt features (kde, ocsvm, svdd, pca, padim, local_nn); the baselines then do the same.
        replicates: number of bootstrap replicates for the confidence intervals.
        case_score: unit of the evaluation: "none" evaluates patches individually; the others evaluate cases by the
            "max" or the "mean" of their patches' scores, or by the mean of the highest `top_k` ("top_k").
        top_k: number of patches for "top_k".
        prevalence: share of anomalous scans where the detector would be used; for predictive values, alarms a day and
            net benefit. The test split's own share is no guide: it was put together.
        scans_per_day: scans a day there.
        feature_baselines: whether baselines on features of a pretrained network are fitted as well, which need the
            extra `features` and some hundredths of a second for each scored image: "auto" for up to 5 000 images,
            "always" or "never".
        planted: measure as well how many lesions detector and baselines find that are planted on validation normals,
            at most 50 of them: what is known before a test label is. Some seconds to minutes.

    Examples:
        >>> Evaluation(case_score="top_k", top_k=5).threshold
        'normal_quantile'
    """

    threshold: ThresholdRule = "normal_quantile"
    purpose: Annotated[float | int | str, Purpose()] = "rule_in"
    reference: Reference = "validation"
    replicates: Count = 2000
    case_score: CaseScore = "none"
    top_k: Count = 10
    prevalence: Annotated[float, Range("(0, 1)")] = 0.05
    scans_per_day: Count = 100
    feature_baselines: FeatureBaselines = "auto"
    planted: bool = False


@dataclass
class ScoreRule:
    """What the anomaly score is made of.

    Attributes:
        source: "detector", the method's own score; "map", what its anomaly map shows, by the settings below. It is
            written `score.from` as well.
        smooth: standard deviation of a Gaussian by which the map is smoothed, in pixels of a picture with sides of 64.
        sign: side of image − reconstruction that counts: "bright", what is brighter than its reconstruction, "dark", or
            "both". A detector that does not reconstruct has a map without a sign, and takes "both".
        standardise: "place" subtracts the mean of normals at every place and divides by their standard deviation there:
            where normals are never redrawn well, a bad copy means little.
        normals: by which places are measured: "training", which leaves the validation normals to the threshold, or
            "validation", where each of them is judged by the others.
        pool: the score of a map is its "mean", its "max" or the mean of the share `top` of its highest values.
        top: share of the pixels for "top".
        features: whether to add how far the features of EfficientNet-Lite0 (the extra `features`) lie from those of all
            measured normals at the same place or one beside: a map misses what is redrawn well, features miss other
            lesions. Both terms count in standard deviations of normals.
        share: share of the places for `features`, those with the largest distances; 1 for a disease of the whole
            picture.

    Examples:
        >>> ScoreRule("map", sign="bright").pool
        'top'
    """

    source: Literal["detector", "map"] = "detector"
    smooth: Annotated[float, Range("[0, 64]")] = 0.0
    sign: Literal["both", "bright", "dark"] = "both"
    standardise: Literal["none", "place"] = "none"
    normals: Literal["training", "validation"] = "training"
    pool: Literal["mean", "top", "max"] = "top"
    top: Annotated[float, Range("(0, 1]")] = 0.01
    features: bool = False
    share: Annotated[float, Range("(0, 1]")] = 0.05

    @property
    def measures(self) -> bool:
        """Whether normals are measured for it."""
        return self.source == "map" and (self.standardise == "place" or self.features)


@dataclass
class Experiment:
    """Sections of an experiment; data, detector, trainer and each callback name a class by `_target_`.

    Attributes:
        name: folder of the runs in `runs`; the experiment's name by default.
        seed: seed of all random streams.
        budget: "auto" (paper with a GPU, laptop otherwise) or one of BUDGETS; after loading, the budget in use.
        budgets: for the budget in use, the values it changed, by dotted key.
        layers: names of the files the experiment was composed of, see `compose`, from general to specific.
        data: the data module.
        detector: the detector.
        trainer: the Lightning Trainer, except the arguments that the engine sets.
        compile: what torch.compile makes faster in a training: "networks" their forward and backward passes, as far
            as these are differentiated once; "graphs" replays them as CUDA graphs besides, for networks so small that
            the processor cannot keep a GPU busy. Losses agree with those of "never" to rounding. Scores are always
            computed without it.
        callbacks: the callbacks by name.
        score: what the anomaly score is made of: the detector's own, or its map.
        evaluation: threshold, confidence intervals and unit of the evaluation.
        runs: parent folder of the run folders.
        start_from: run folder for a warm start: its networks and fake pool are reused; None trains from scratch.
        start_phase: last phase that a warm start reuses, together with all phases before it.
    """

    name: Name = MISSING
    seed: Seed = 0
    budget: str = "auto"
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    data: Any = MISSING
    detector: Any = MISSING
    trainer: Any = field(default_factory=lambda: {TARGET: "pytorch_lightning.Trainer"})
    compile: Compile = "never"
    callbacks: dict[str, Any] = field(default_factory=dict)
    score: ScoreRule = field(default_factory=ScoreRule)
    evaluation: Evaluation = field(default_factory=Evaluation)
    runs: str = "runs"
    start_from: str | None = None
    start_phase: str = "gan"


def load(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Load, validate and resolve an experiment.

    Args:
        name: name of the experiment, `<detector>_<dataset>` or a complete file.
        overrides: `key=value` words, applied after the experiment's budget.

    Raises:
        UserError: there is no such experiment, or a value in it or in the overrides is invalid; the message names the
            key.

    Examples:
        >>> config = load("ganomaly_headct", ["budget=smoke", "detector.latent_dim=8"])
        >>> config.detector.latent_dim, list(config.data.patch_size), config.layers[1]
        (8, [32, 32], 'detectors/ganomaly')
    """
    return _of_layers(name, compose.layers_of(name), overrides)


def load_data(dataset: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Load a data set without a detector: an experiment whose only section is `data`.

    Args:
        dataset: name of the data set.
        overrides: `key=value` words for the keys in OF_DATA_ALONE.

    Raises:
        UserError: there is no such data set, or a value in it or in the overrides is invalid; the message names the
            key.

    Examples:
        >>> config = load_data("headct", ["budget=smoke"])
        >>> config.data._target_, config.detector
        ('anomaly_lab.data.datasets.headct.HeadCT', None)
    """
    return _of_layers(dataset, compose.layers_of_dataset(dataset), overrides, ("data",))


def recall(path: Path, overrides: Sequence[str] = (), takes: Sequence[str] = ()) -> DictConfig:
    """Load the resolved experiment from the `config.yaml` of a run folder and check it again.

    Args:
        path: the file. Keys and class paths of earlier versions are converted.
        overrides: `key=value` words that are laid over it.
        takes: keys, and sections, that may be overridden.

    Raises:
        UserError: the file is damaged, or another key is overridden.

    Examples:
        >>> import tempfile
        >>> config = load("ganomaly_headct", ["budget=smoke"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "config.yaml")
        ...     _ = path.write_text(show(config))
        ...     recall(path) == config
        True
    """
    stored, _ = in_current_keys(compose.read(path))
    with _naming(str(path)):
        config = merged(OmegaConf.structured(Experiment), stored)
        callbacks = list(config.callbacks)
        if overrides:
            asked = _read(_parse(overrides), config)
            _refuse_other_keys(asked, takes)
            config = merged(config, asked)
        _imply(config.data)
        return _complete(config, callbacks)


def _imply(data: Any) -> None:
    """Set what the run folder of an older version does not say to what its data set did then."""
    if not isinstance(data, DictConfig) or TARGET not in data:
        return
    for name, value in getattr(locate(data[TARGET], "data"), "implied", {}).items():
        if name not in data:
            data[name] = value


def _refuse_other_keys(asked: compose.Tree, takes: Sequence[str]) -> None:
    """Refuse overrides of an existing run that are none of `takes`."""
    for key, _ in compose.leaves(asked):
        if not any(key == taken or key.startswith(f"{taken}.") for taken in takes):
            raise UserError(
                f"{key} cannot be changed, the run exists already; this command takes {', '.join(takes) or 'no keys'}"
            )


def show(config: DictConfig) -> str:
    """Format an experiment as YAML with all default values.

    Examples:
        >>> print(show(load("ganomaly_headct", ["budget=smoke"])).splitlines()[0])
        name: ganomaly_headct
    """
    return OmegaConf.to_yaml(config)


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a resolved experiment as plain Python.

    Examples:
        >>> plain(load("ganomaly_headct", ["budget=smoke"]))["budget"]
        'smoke'
    """
    return cast("dict[str, Any]", OmegaConf.to_container(config))


def evaluation_of(config: DictConfig) -> Evaluation:
    """Return the section `evaluation` of a resolved experiment.

    Examples:
        >>> evaluation_of(load("ganomaly_headct", ["evaluation.replicates=9"])).replicates
        9
    """
    return cast("Evaluation", OmegaConf.to_object(config.evaluation))


def score_rule_of(config: DictConfig) -> ScoreRule:
    """Return the section `score` of a resolved experiment.

    Examples:
        >>> score_rule_of(load("ganomaly_headct", ["score.from=map"])).source
        'map'
    """
    return cast("ScoreRule", OmegaConf.to_object(config.score))


def build(node: DictConfig, **extra: Any) -> Any:
    """Construct the object that a section describes.

    Args:
        node: a validated section; its values reach the constructor as plain Python objects.
        extra: further constructor arguments, which override those of the section.

    Raises:
        UserError: the class lacks a method, or the constructor rejects a value with ValueError or Lightning's
            MisconfigurationException.

    Examples:
        >>> config = load("ganomaly_headct", ["budget=smoke"])
        >>> type(build(config.detector)).__name__
        'GANomaly'
    """
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    keywords: Any = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    target = locate(keywords.pop(TARGET))
    if missing := sorted(vars(target).get("__abstractmethods__", ())):
        raise UserError(f"{target.__module__}.{target.__name__} lacks {', '.join(missing)}: write it in the class")
    keywords = arguments(f"{target.__name__}: ", target, keywords)
    try:
        return target(**{**keywords, **extra})
    except (ValueError, MisconfigurationException) as error:
        raise UserError(f"{target.__name__}: {' '.join(str(error).split())}") from error


def _of_layers(
    name: str, layers: Sequence[Layer], overrides: Sequence[str], sections: Sequence[str] = SECTIONS
) -> DictConfig:
    """Compose and validate an experiment from layers and overrides."""
    requested = _parse(overrides)
    with _naming(name):
        written = compose.composed(layers).get("budget", "auto")
        asked = read_tree({"budget": requested.pop("budget", written)}, {"budget": str})["budget"]
        budget = _budget(str(asked), [known for layer in layers for known in layer.budgets])
        config = merged(OmegaConf.structured(Experiment(name=name)), compose.composed(layers, budget))
        config.budget, config.budgets = budget, {budget: compose.changed_by_budget(layers, budget)}
        callbacks = list(config.callbacks)
        if taken := [key for key in ("budgets", "layers") if key in requested]:
            raise UserError(f"{taken[0]}: says what the experiment's files hold; override the setting itself")
        if "detector" not in sections and (unknown := [str(key) for key in requested if key not in OF_DATA_ALONE]):
            raise UserError(f"{unknown[0]}: a data set without a detector takes {', '.join(OF_DATA_ALONE)}")
        config = merged(config, _read(requested, config))
        config.layers = [layer.name for layer in layers]
        named = _names_a_folder(config.data)
        config = _complete(config, callbacks, sections)
        if named and config.data.get("source") == "auto":
            config.data.source = "real"  # only where nothing was said may a synthetic twin stand in
        return config


def _names_a_folder(data: Any) -> bool:
    """Return whether somebody said where the files lie: the package's own roots all stand on ANOMALY_DATA.

    Raises:
        UserError: the folder that ANOMALY_DATA names does not exist.
    """
    root = data._get_node("root") if isinstance(data, DictConfig) else None
    if root is None:
        return False
    if DATA_FOLDER not in str(root._value()):
        return True
    if (folder := os.environ.get(DATA_FOLDER)) and not Path(folder).is_dir():
        raise UserError(f"{DATA_FOLDER}={folder}: no such folder; set it to the folder above the data sets or unset it")
    return False


def _parse(overrides: Sequence[str]) -> compose.Tree:
    """Parse `key=value` words into a tree with current keys, whose values are not read yet."""
    for override in overrides:
        if not _is_text(override):
            raise UserError(f"{override!r} is not UTF-8; rename the file or folder")
        key, equals, _ = override.partition("=")
        if not (equals and all(key.split("."))):
            raise UserError(f"'{override}' is not key=value, as in detector.latent_dim=64")
    requested, used = tree_of(overrides)
    tell_of_new_keys(used)
    return requested


def values_of(words: Sequence[str], config: DictConfig) -> compose.Tree:
    """Return what `key=value` words give an experiment, with current keys.

    Args:
        words: of the command line.
        config: the experiment, whose classes say what the values are.

    Raises:
        UserError: a word is not valid.

    Examples:
        >>> config = load("ganomaly_folder", ["budget=smoke"])
        >>> values_of(["data.root=2024_01", "detector.width=016"], config)
        {'data': {'root': '2024_01'}, 'detector': {'width': 16}}
    """
    return _read(_parse(words), config)


def _read(requested: compose.Tree, config: DictConfig) -> compose.Tree:
    """Read values by the types of their settings, which the classes have that they or the configuration name."""
    types = types_of(Experiment)
    types |= {name: _types_in(name, requested.get(name), config._get_node(name)) for name in SECTIONS}
    callbacks = requested.get("callbacks")
    if isinstance(callbacks, dict):
        nodes = cast(DictConfig, config.callbacks)
        types["callbacks"] = {
            name: _types_in(f"callbacks.{name}", values, nodes._get_node(name)) for name, values in callbacks.items()
        }
    found = read_tree(requested, types)
    compose.refuse_resolvers(found)
    return found


def _types_in(section: str, values: Any, node: Any) -> Any:
    """Return the types of a section's keys, if words give any of them."""
    if not isinstance(values, dict):
        return Any
    target = read_tree({TARGET: values[TARGET]}, {TARGET: str})[TARGET] if TARGET in values else None
    if target is None and isinstance(node, DictConfig):
        target = node.get(TARGET)
    return types_of(locate(target, section)) if target else {}


def _is_text(word: str) -> bool:
    """Return whether a word of the command line can be written into a file of the record."""
    try:
        word.encode()
    except UnicodeEncodeError:  # the system gave bytes that are no text
        return False
    return True


def _budget(budget: str, offered: Sequence[str]) -> str:
    """Return the budget to use: the requested one, or the one for this hardware if that is "auto"."""
    if budget == "auto":
        import torch  # imported here because it is slow and not needed when the budget is given

        budget = "paper" if torch.cuda.is_available() else "laptop"
    if budget not in BUDGETS:
        raise UserError(f"unknown budget '{budget}'; the budgets are auto, {', '.join(BUDGETS)}")
    if budget not in offered:
        raise UserError(f"no budget '{budget}': add budgets.{budget} to its YAML")
    return budget


def _complete(config: DictConfig, callbacks: Sequence[str], sections: Sequence[str] = SECTIONS) -> DictConfig:
    """Merge each section into its schema, resolve interpolations and validate all values.

    Args:
        config: the merged experiment.
        callbacks: names of the callbacks in its YAML files, for suggestions.
        sections: the sections it has.
    """
    if "detector" not in sections:
        config.detector, config.callbacks = None, {}
    for name, node in list(config.callbacks.items()):
        if node is None:
            del config.callbacks[name]
        if name not in callbacks and not (isinstance(node, DictConfig) and TARGET in node):
            raise UserError(f"callbacks.{name}: there is no such callback.{_how_to_name(str(name), callbacks)}")
    named = (*sections, *(f"callbacks.{name}" for name in config.callbacks))
    for section in named:
        OmegaConf.update(config, section, checked(section, OmegaConf.select(config, section)), merge=False)
    _interpolate(config, named)  # after merging, so that ${data.patch_size} sees the override
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"Missing mandatory value: {', '.join(missing)}")
    refuse_impossible("", Experiment, cast(dict[str, Any], OmegaConf.to_container(config)))
    for section in named:
        values: Any = OmegaConf.to_container(OmegaConf.select(config, section))
        refuse_impossible(f"{section}.", locate(values.pop(TARGET), section), values)
    return config


def _how_to_name(callback: str, used: Sequence[str]) -> str:
    """Suggest a callback of the experiment; where none is similar, say how one is added and which classes there are."""
    if meant := did_you_mean(callback, used):
        return meant
    known = catalogue.classes("anomaly_lab.callbacks")
    base = known.pop("RunCallback")
    fit = {name: kind for name, kind in known.items() if issubclass(kind, base) and not inspect.isabstract(kind)}
    paths = [f"{kind.__module__}.{name}" for name, kind in fit.items()]
    return f" One is added by its class, callbacks.{callback}._target_=…: {', '.join(paths)}"


def _interpolate(config: DictConfig, sections: Sequence[str]) -> None:
    """Resolve `${…}` in place.

    Raises:
        UserError: a value is valid for the key it comes from, but not for the key that refers to it; the message names
            the latter.
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
    """Prefix the message of every error with the name of the experiment."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{experiment}: {error}") from error
    except OmegaConfBaseException as error:
        key = (
            error.full_key or "a value used by another section through ${…}"
        )  # such values are checked where they are used
        raise UserError(f"{experiment}: {key}: {sentence(error)}") from error
