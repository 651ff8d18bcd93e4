"""Experiments: read a YAML, lay a budget and the user's overrides over it, check it, build objects.

The signature of a class is the schema of its section (schema.py); there is no second list of what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from anomaly_lab.experiment.schema import TARGET, checked, did_you_mean, locate, merged, sentence
from anomaly_lab.types import UserError

CaseScore = Literal["none", "max", "mean", "top_k"]
ThresholdRule = Literal["normal_quantile", "test_max_f1", "test_min_max"]
BUDGETS = ("paper", "laptop", "smoke")


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
    quantile: float = 0.95
    replicates: int = 2000
    case_score: CaseScore = "none"
    top_k: int = 10


@dataclass
class Experiment:
    """The sections of an experiment; data, detector, trainer and each callback name a class by `_target_`.

    Attributes:
        name: the first half of the run's name; the file's name unless said otherwise.
        budget: auto (paper with a GPU, else laptop) or one of BUDGETS; after loading, the one that was taken.
        budgets: for each budget the values it lays over the YAML, by dotted key.
        runs: folder of the run folders.
        start_from: run folder whose finished phase, networks and fake pool, is taken over; None trains from scratch.
        start_phase: the phase that is taken over, with all before it.
    """

    name: str = MISSING
    seed: int = 0
    budget: str = "auto"
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: Any = MISSING
    detector: Any = MISSING
    trainer: Any = field(default_factory=lambda: {TARGET: "pytorch_lightning.Trainer"})
    callbacks: dict[str, Any] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    runs: str = "runs"
    start_from: str | None = None
    start_phase: str = "gan"


def experiments() -> list[tuple[str, str]]:
    """Name and first comment line of every experiment, by name."""
    return [(path.stem, _first_comment(path)) for path in sorted(folder().glob("*.yaml"))]


def load(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The experiment `name`, its budget and then `key=value` overrides laid over it, checked and resolved.

    Raises:
        UserError: no such experiment, or anything in it or in the overrides that is wrong; names the key.
    """
    names = [known for known, _ in experiments()]
    if name not in names:
        raise UserError(f"no experiment '{name}'.{did_you_mean(name, names)} `make list` shows all")
    written, asked = _read(folder() / f"{name}.yaml"), _parse(overrides)
    with _naming(name):
        config = merged(OmegaConf.structured(Experiment(name=name)), written)
        callbacks = list(config.callbacks)
        config.budget = _budget(str(asked.pop("budget", config.budget)), list(config.budgets))
        for key, value in config.budgets[config.budget].items():
            OmegaConf.update(config, key, value)
        return _complete(merged(config, asked), callbacks)


def recall(path: Path) -> DictConfig:
    """The resolved experiment that a run folder keeps in its `config.yaml`, checked again."""
    stored = _read(path)
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
    try:
        return target(**{**keywords, **extra})
    except (ValueError, MisconfigurationException) as error:
        raise UserError(f"{target.__name__}: {' '.join(str(error).split())}") from error


def folder() -> Path:
    """Where the experiments lie: in `experiments` here, or in the package."""
    here = Path("experiments")
    return here if here.is_dir() else Path(__file__).parents[1] / "_experiments"


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ").rstrip() for line in lines if line.startswith("#")), "")


def _read(path: Path, below: tuple[Path, ...] = ()) -> DictConfig:
    """The YAML at `path` over all it extends, each base before the next."""
    if path in below:
        raise UserError(f"{below[-1]}: extends {path}, which extends it: take one of the two out")
    try:
        node = OmegaConf.load(path)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}, line {line}: {error.problem}") from error
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist{f', but {below[-1]} extends it' if below else ''}") from error
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(node, DictConfig):
        raise UserError(f"{path}: must be a mapping of sections, not a list")
    bases = node.pop("extends", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    whole = OmegaConf.merge(*(_read(folder() / f"{base}.yaml", (*below, path)) for base in bases), node)
    assert isinstance(whole, DictConfig)
    return whole


def _parse(overrides: Sequence[str]) -> DictConfig:
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not (equals and all(key.split("."))):
            raise UserError(f"'{override}' is not key=value, as in detector.latent_dim=64")
        try:
            OmegaConf.from_dotlist([override])
        except YAMLError as error:
            raise UserError(f"'{override}': what follows '=' is not valid YAML") from error
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except OmegaConfBaseException as error:
        raise UserError(f"overrides {' '.join(overrides)}: {sentence(error)}") from error


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


def _complete(config: DictConfig, callbacks: Sequence[str]) -> DictConfig:
    """`config` with its sections laid over their schemas, resolved; `callbacks` are those its YAML has."""
    for name, node in list(config.callbacks.items()):
        if node is None:
            del config.callbacks[name]
        if name not in callbacks and (node is None or TARGET not in node):
            raise UserError(f"callbacks.{name}: there is no such callback.{did_you_mean(str(name), callbacks)}")
    for section in ("data", "detector", "trainer", *(f"callbacks.{name}" for name in config.callbacks)):
        OmegaConf.update(config, section, checked(section, OmegaConf.select(config, section)), merge=False)
    OmegaConf.resolve(config)  # last, so that ${data.patch_size} sees the override
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"Missing mandatory value: {', '.join(missing)}")
    return config


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
