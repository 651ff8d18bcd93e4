"""`bench`: what it measures, what it makes of it, where it puts it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from anomaly_lab.bench import command
from anomaly_lab.bench.turns import interleaved

SMALL = ["budget=smoke", "data.twin_size=40", "data.train_normals=0.75", "data.patch_size=[32,32]", "data.batch_size=4",
         "data.scoring_batch_size=128", "detector.width=2", "detector.latent_dim=4", "detector.n_critic=2",
         "trainer.precision=32-true", "callbacks.wandb.mode=disabled", "data.epoch_length=2"]  # fmt: skip
MEASURED = {
    "loading": {"load", "load augmented"},
    "steps": {f"{part} {precision}" for precision in ("fp32", "bf16")
              for part in ("gan step", "encoder step", "critic without penalty")} | {"gradient penalty fp32"},
    "scoring": {"score"},
    "training": {"training by Trainer", "training by bare loop"},
    "start-up": {"--help", "imports"},
}  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """Run the command at tiny sizes, by default for two rounds; what it wrote."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> dict:
        out = tmp_path / "deep" / "bench.json"
        command.main(["--out", str(out), "--rounds", "2", *words, *SMALL])
        written: dict = json.loads(out.read_text())
        return written

    return run


@pytest.mark.parametrize(
    "measure", [pytest.param(name, marks=pytest.mark.slow if name == "start-up" else ()) for name in MEASURED]
)
def test_a_measure_times_its_contenders_in_every_round(bench: Callable[..., dict], measure: str) -> None:
    written = bench("--only", measure)
    assert written["raw"].keys() == MEASURED[measure] == written["seconds"].keys()
    assert all(len(seconds) == 2 for seconds in written["raw"].values())
    assert written["rounds"] == 2
    assert written["peak_gb"] > 0
    assert OmegaConf.create(written["config"]).detector.width == 2


def test_the_table_names_what_was_measured(bench: Callable[..., dict], capsys: pytest.CaptureFixture[str]) -> None:
    bench("--only", "scoring", "--rounds", "1")
    said = capsys.readouterr().out
    assert "score" in said
    assert "images/s" in said
    assert "peak memory" in said
    assert "bench.json" in said.replace("\n", "")


def test_all_measures_run_where_none_is_named(bench: Callable[..., dict], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fake(name: str) -> Callable[..., command.Times]:
        return lambda settings, data, rounds: asked.append(name) or {f"time of {name}": [1.0] * rounds}

    names = [*command.MEASURES]
    monkeypatch.setattr(command, "MEASURES", {name: fake(name) for name in names})
    written = bench()
    assert asked == names
    assert written["seconds"] == {f"time of {name}": 1.0 for name in names}


def test_contenders_take_turns_and_the_first_round_is_not_counted() -> None:
    diary: list[str] = []
    times = interleaved({"a": lambda: diary.append("a"), "b": lambda: diary.append("b")}, rounds=2)
    assert diary == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 2, "b": 2}


def test_ratios_by_hand() -> None:
    seconds = {"training by Trainer": 3.0, "training by bare loop": 2.0, "gan step fp32": 4.0, "gan step bf16": 1.0}
    seconds |= {"store": 2.0, "MONAI pipeline": 5.0, "store batch": 1.0, "CacheDataset batch": 3.0}
    seconds |= {"store batch as it is": 1.0, "CacheDataset batch as it is": 4.0}
    assert command._ratios(seconds) == {
        "framework overhead, %": pytest.approx(50),
        "MONAI pipeline over store": 2.5,
        "CacheDataset batch over store batch": 3.0,
        "CacheDataset batch as it is over store batch as it is": 4.0,
        "bf16 over fp32, gan step": 4.0,
    }


def test_speeds_by_hand() -> None:
    """64 mini-batches, rounded up to whole iterations of 5, of 8 images; 256 scored images."""
    settings = OmegaConf.create({"detector": {"n_critic": 5}, "data": {"batch_size": 8}})
    speeds = command._speeds(settings, {"load": 2.0, "score": 4.0, "gan step fp32": 1.0})
    assert speeds == {"load": 65 * 8 / 2, "score": 64.0}


def test_an_unknown_measure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--only", "everything"])
    assert stopped.value.code == 2
    assert "loading" in capsys.readouterr().err
