"""The section for a GPU, on a processor: so that it does not break where it is needed; and on a GPU, where one is."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from discovery import one_of_each_class

from anomaly_lab.bench import command, gpu
from anomaly_lab.experiment import compose
from anomaly_lab.types import UserError

CPU = torch.device("cpu")
HAS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def mostly_slow(names: list[str], fast: str) -> list[Any]:
    """One of the names for the fast tests."""
    return [pytest.param(name, marks=() if name == fast else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    store = f"data.store.folder={tmp_path_factory.mktemp('store')}"
    return ["budget=smoke", "data.source=twin", "trainer.accelerator=cpu", store]


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        command.main(["--section", "gpu", "--out", str(tmp_path / "bench.json")])
    assert not [*tmp_path.iterdir()]


def test_the_section_is_measured_on_the_first_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "report", lambda *what: asked.extend(what))
    command.main(["--section", "gpu", "--out", str(tmp_path / "bench.json"), "seed=3"])
    assert asked == [tmp_path / "bench.json", torch.device("cuda", 0), ["seed=3"]]


@pytest.mark.parametrize("name", mostly_slow([*gpu.DETECTORS], "ganomaly_headct"))
def test_every_phase_has_its_row(name: str, words: list[str]) -> None:
    rows = gpu.speeds(name, words, CPU, timed=2)
    assert all(row["steps/s"] > 0 and row["GFLOP/step"] > 0 for row in rows)
    assert {row["of peak"] for row in rows} == {row["idle"] for row in rows} == {None}
    phases = {"fanogan_headct": ["gan", "encoder"], "adgan_abmnist": ["gan", "critic"]}
    assert [row["phase"] for row in rows] == phases.get(name, ["gan"])


@pytest.mark.slow
@pytest.mark.parametrize("place", gpu.PLACES)
def test_images_lie_where_they_are_to(place: str, words: list[str]) -> None:
    if "processes" in place:
        pytest.skip("processes are tried by the data module's tests")
    assert gpu.speeds("ganomaly_headct", [*words, *gpu.PLACES[place]], CPU, timed=1)


@pytest.mark.parametrize("name", mostly_slow(one_of_each_class(), "pool_svm"))
def test_scores_agree_with_themselves(name: str, words: list[str]) -> None:
    assert gpu.agreement(name, words, CPU) == [{"waits for": "nothing", "difference": 0.0, "agree": True}]


@pytest.mark.slow
def test_two_runs_at_once(words: list[str]) -> None:
    assert gpu.packed(2, words, CPU, timed=1)[0]["steps/s of all"] > 0


def test_what_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails() -> list[gpu.Row]:
        raise RuntimeError("out of\nmemory")

    parts = {"A": {"one": fails, "two": lambda: [{"steps/s": 2.0, "idle": 0.25}]}, "B": {"three": fails}}
    monkeypatch.setattr(gpu, "_parts", lambda *what: parts)
    gpu.report(tmp_path / "deep" / "bench.json", CPU)
    tables = json.loads((tmp_path / "deep" / "bench.json").read_text())["tables"]
    assert tables["A"] == [
        {"": "one", "result": "RuntimeError: out of memory"},
        {"": "two", "steps/s": 2, "idle": 0.25},
    ]
    gpu.report(tmp_path / "bench.json", CPU, minutes=-1)
    late = json.loads((tmp_path / "bench.json").read_text())["tables"]
    assert {row["result"] for rows in late.values() for row in rows} == {"not measured: -1 minutes are over"}


def test_every_part_can_be_asked_for() -> None:
    parts = gpu._parts(CPU, [], 1)
    assert [*parts] == ["Precisions", "Where the images lie", "Every detector", "Runs at once", "torch.compile"]
    assert [*parts["Every detector"]] == [*compose.detectors()]
    assert len(parts["Precisions"]) == len(gpu.DETECTORS) * len(gpu.PRECISIONS)


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [("NVIDIA H200", "bf16-true", 989e12), ("NVIDIA A100-SXM4-40GB", "32-true", 156e12), ("GTX 1080", "32-true", None)],
)
def test_peaks_are_those_of_the_card(name: str, precision: str, peak: float | None) -> None:
    assert gpu.peak_of(name, precision) == peak


@pytest.mark.gpu
@HAS_GPU
@pytest.mark.parametrize("name", compose.detectors())
def test_on_a_gpu_nothing_waits_and_scores_agree(name: str, words: list[str]) -> None:
    there = [word for word in words if not word.startswith("trainer.accelerator")]
    (row,) = gpu.agreement(name, [*there, "trainer.accelerator=gpu"], torch.device("cuda", 0))
    assert (row["waits for"], row["agree"]) == ("nothing", True), row
