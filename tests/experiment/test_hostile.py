"""Hostile values: each is refused in one line that names its key, or it works."""

import contextlib
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch
from discovery import one_of_each_class
from omegaconf import OmegaConf
from toys import Fit
from typer.testing import CliRunner

from anomaly_lab import __main__, catalogue
from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.datasets.headct import HeadCT
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.protocol import evaluate_scores
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment import compose, config, schema
from anomaly_lab.types import Range, UserError, constraints

NUMBERS = (-1, 0, 1.5, 10**9, 1e30, math.nan, math.inf)
OTHERS = (True, "abc", [], [-1, 0, 1], {"a": 1})
CALLBACKS = [kind for kind in catalogue.classes("anomaly_lab.callbacks").values() if issubclass(kind, RunCallback)]
CALLBACKS = [f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}" for kind in CALLBACKS]
WITH_WORDS = {"task", "volume.window"}  # take numbers or words, and are checked by hand
EVERYTHING = [*(("detector", name) for name in one_of_each_class()), *(("data", name) for name in compose.datasets()),
              *(("callbacks.x", name) for name in CALLBACKS)]  # fmt: skip


class Section(NamedTuple):
    """A section of an experiment as it stands, and its class."""

    name: str
    kind: type
    values: dict[str, Any]

    def numeric(self) -> list[tuple[str, Any]]:
        """Key and type of what takes numbers; what all data sets share is tried on one of them."""
        shared = schema._parameters(PatchDataModule) if self.name == "data" and self.kind is not HeadCT else {}
        return [(key, kind) for key, kind in numeric(self.kind) if key.partition(".")[0] not in shared]

    def given(self, key: str, value: Any) -> dict[str, Any]:
        """The section with one value replaced, checked as `config.load` does it."""
        laid = compose.overlaid(self.values, compose.nested({key: value}))
        checked: Any = OmegaConf.to_container(schema.checked(self.name, OmegaConf.create(laid)))
        schema.refuse_impossible(f"{self.name}.", self.kind, {k: v for k, v in checked.items() if k != schema.TARGET})
        return dict(checked)

    def admitted(self, *values: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        """Key, value and section for each value, and each lower end of a range, that is not refused."""
        for key, annotation in self.numeric():
            for value in (*values, *lowest(annotation)):
                complaint, checked = "", {}
                try:
                    checked = self.given(key, value)
                except UserError as error:
                    complaint = str(error)
                if not complaint:
                    yield key, value, checked
                assert not complaint or complaint.startswith(f"{self.name}.{key.partition('.')[0]}")
                assert "\n" not in complaint


def numeric(kind: type, above: str = "") -> Iterator[tuple[str, Any]]:
    """Key and type of every parameter that takes numbers, those of sections within included."""
    for name, parameter in schema._parameters(kind).items():
        if section := schema._section(parameter.annotation):
            yield from numeric(section, f"{above}{name}.")
        elif _takes_numbers(parameter.annotation):
            yield f"{above}{name}", parameter.annotation


def _takes_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(_takes_numbers(member) for member in get_args(annotation))


def lowest(annotation: Any) -> list[float]:
    """Lower ends of the ranges that have one."""
    ends = [
        float(found.interval[1:].partition(",")[0]) for found in constraints(annotation) if isinstance(found, Range)
    ]
    return [int(end) if end.is_integer() else end for end in ends if math.isfinite(end)]


def section_of(name: str, what: str) -> Section:
    if name == "detector":
        settings = config.load(f"{what}_headct", ["budget=smoke", "data.patch_size=[32,32]"]).detector
    elif name == "data":
        settings = config.load_data(what, ["budget=smoke"]).data
    else:
        settings = OmegaConf.create({schema.TARGET: f"anomaly_lab.callbacks.{what}"})
    values: Any = OmegaConf.to_container(settings)
    return Section(name, schema.locate(values[schema.TARGET]), values)


def finite(value: Any) -> bool:
    """Whether a value is a number, or numbers, or an empty list; and finite."""
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    return isinstance(value, int | float) and math.isfinite(value)


@pytest.mark.parametrize(("name", "what"), EVERYTHING)
def test_every_number_has_a_range(name: str, what: str) -> None:
    without = [key for key, annotation in section_of(name, what).numeric() if not any(constraints(annotation))]
    assert set(without) <= WITH_WORDS, "write the numbers it takes as Annotated[int, Range(…)]"


@pytest.mark.parametrize(("name", "what"), EVERYTHING)
def test_only_finite_numbers_are_admitted(name: str, what: str) -> None:
    section = section_of(name, what)
    for key, value, checked in section.admitted(*NUMBERS, *OTHERS):
        for part in key.split("."):
            checked = checked[part]
        assert finite(checked) or key in WITH_WORDS, (key, value)


@pytest.mark.parametrize("quantile", [1e-30, 0.5, 1 - 1e-12])
@pytest.mark.parametrize("replicates", [1, 2])
def test_an_evaluation_that_is_admitted_works(quantile: float, replicates: int) -> None:
    config.load(
        "kde_headct", ["budget=smoke", f"evaluation.quantile={quantile}", f"evaluation.replicates={replicates}"]
    )
    names = [str(i) for i in range(8)]
    scores = Scores(names, names, ["val"] * 4 + ["test"] * 4, np.array([0, 0, 0, 0, 0, 0, 1, 1]), np.arange(8.0))
    assert evaluate_scores(scores, quantile, replicates)["detector"]["auroc"]["value"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("what", one_of_each_class())
def test_a_detector_of_admitted_values_takes_a_step_in_each_phase_and_scores(what: str, fit: Fit) -> None:
    section, images = section_of("detector", what), torch.rand(8, 1, 32, 32) * 2 - 1
    for key, value, checked in section.admitted(*NUMBERS):
        try:
            detector: Detector = config.build(OmegaConf.create(checked))
        except UserError:  # its constructor refuses what no range can say
            continue
        done = 0
        for phase in detector.schedule:
            detector.load_state_dict({**detector.state_dict(), "iteration": torch.tensor(done)})
            fit(detector, images, iterations=1)
            done += phase.iterations
        score = detector.score({"image": images}).anomaly_score
        assert score.shape == (8,), (key, value)


@pytest.mark.slow
@pytest.mark.parametrize("what", list(compose.datasets()))
def test_a_data_set_of_admitted_values_is_read_or_refused(what: str, tmp_path: Path) -> None:
    """Of its twin, made as small as the values say."""
    section = section_of("data", what)
    section.values.update(source="twin", store={"folder": str(tmp_path)})
    for key, _, checked in section.admitted(-1, 0, 1.5, 1e30, 1e-30):
        if key != "patch_size" and checked["twin"]["size"] <= section.values["twin"]["size"]:
            with contextlib.suppress(UserError):
                data = config.build(OmegaConf.create(checked))
                data.setup()
                data.check_trainable()


def hostile_overrides(count: int, seed: int) -> list[str]:
    """Overrides of a key, or of what looks like one, by a value, or by what looks like one."""
    draw = random.Random(seed)
    known = [key for key, _ in compose.leaves(OmegaConf.to_container(config.load("fanogan_nifti", ["budget=smoke"])))]
    known += [
        "data",
        "detector",
        "callbacks",
        "trainer",
        "evaluation",
        "data.split",
        "data.cut",
        "callbacks.record",
        "budgets",
    ]
    values = [
        "-1", "0", "nan", ".nan", "inf", "1e999", "null", "true", "''", "[]", "[1]", "[a,b]", "{}", "{a: 1}", "???",
        "${seed}", "${data}", "${nope}", "${oc.env:NOPE}", "${", "}", "[1", "{a", "\\", "é", "a=b", "@", "- 1", "x",
        "!!python/x", "../..", "builtins.dict", "os.system", "anomaly_lab.types.Case", "typing.Union", "9" * 40, "-0.0",
    ]  # fmt: skip

    def key() -> str:
        chosen = draw.choice(known)
        return draw.choice(
            [chosen] * 4 + [chosen[:-1], f"{chosen}.x", chosen.partition(".")[0], f"{chosen}[0]", f".{chosen}"]
        )

    return [f"{key()}={draw.choice(values)}" for _ in range(count)]


@pytest.mark.parametrize("part", range(4))
def test_200_hostile_overrides_give_no_traceback(part: int) -> None:
    for override in hostile_overrides(200, seed=7)[part::4]:
        done = CliRunner().invoke(__main__.app, ["show", "fanogan_nifti", "budget=smoke", override])
        assert done.exit_code in (0, 2), (override, done.exception)
        if done.exit_code == 2:
            assert done.stderr.startswith("error: "), override
            assert done.stderr.count("\n") == 1, override
