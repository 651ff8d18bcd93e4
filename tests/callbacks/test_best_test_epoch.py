"""The switch that chooses an epoch by the test labels: it takes the best, which is then what is judged and kept."""

import json
from pathlib import Path

import pytest
import torch
from data.conftest import write_headct
from omegaconf import DictConfig

from anomaly_lab.callbacks import best_test_epoch, checkpoints
from anomaly_lab.callbacks.best_test_epoch import BestTestEpoch
from anomaly_lab.experiment import checkpoint_files, config, run_folder
from anomaly_lab.pipeline import engine, run_commands
from anomaly_lab.types import UserError

SWITCH = "callbacks.best_test_epoch={_target_: anomaly_lab.callbacks.best_test_epoch.BestTestEpoch}"
SERIES = (0.4, 0.7, 0.9, 0.9, 0.6)  # of five epochs: the third is the first with the highest


def settings(tmp_path: Path, *overrides: str) -> DictConfig:
    """ganomaly_headct on a folder of thirteen pictures: five epochs of two iterations, all checkpoints kept."""
    if not (tmp_path / "headct").exists():
        write_headct(tmp_path / "headct", 20)
    places = [
        f"runs={tmp_path / 'runs'}",
        f"data.root={tmp_path / 'headct'}",
        f"data.store.folder={tmp_path / 'store'}",
    ]
    sizes = [
        "data.patch_size=[32,32]",
        "data.split.train_normals=15",
        "data.split.val_fraction=0.25",
        "data.batch_size=4",
    ]
    lengths = ["data.epoch_length=2", "detector.gan_iterations=10", "detector.width=4", "detector.latent_dim=4"]
    record = ["callbacks.checkpoints.keep=9", "callbacks.wandb=null", "evaluation.replicates=20"]
    words = ["budget=smoke", *places, *sizes, *lengths, *record, "trainer.precision=32-true", *overrides]
    return config.load("ganomaly_headct", words)


def scripted(patch: pytest.MonkeyPatch) -> None:
    """The epochs' AUROC are those of SERIES, by the iterations done."""
    patch.setattr(best_test_epoch, "_test_auroc", lambda _, detector: SERIES[detector.iterations_done // 2 - 1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing stopped."""
    with pytest.MonkeyPatch.context() as patch:
        scripted(patch)
        return engine.train(settings(tmp_path_factory.mktemp("whole"), SWITCH))


def weights(run: Path, iteration: int) -> dict[str, torch.Tensor]:
    """Those of the checkpoint of an iteration, but for the iteration itself."""
    (path,) = (run / "checkpoints").glob(f"{iteration:08d}-*.ckpt")
    state: dict[str, torch.Tensor] = checkpoint_files.load(path)["state_dict"]
    return {key: value for key, value in state.items() if key != "iteration"}


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def choice(run: Path) -> dict[str, object]:
    """What the record says of the checkpoint, whose file is there."""
    recorded: dict[str, object] = run_folder.read_json(run / "provenance.json")["checkpoint"]
    assert (run / "checkpoints" / str(recorded.pop("file"))).exists()
    return recorded


def watched(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["cheat/test_auroc"] for line in lines if "cheat/test_auroc" in line]


def test_what_is_watched_is_what_is_judged_and_training_is_left_alone(tmp_path: Path) -> None:
    honest, chosen = engine.train(settings(tmp_path)), engine.train(settings(tmp_path, SWITCH))
    assert watched(honest) == []
    facts = run_folder.read_json(honest / "provenance.json")
    assert choice(honest) == {"rule": "last", "iteration": 10}
    assert facts["detector"]["caveats"] == []
    assert alike(weights(honest, 8), weights(chosen, 8))
    best = run_folder.read_json(chosen / "provenance.json")["checkpoint"]
    assert best["auroc"] == run_folder.read_json(chosen / "metrics.json")["detector"]["auroc"]["value"]
    assert best["last_auroc"] == run_folder.read_json(honest / "metrics.json")["detector"]["auroc"]["value"]
    assert best["auroc"] == pytest.approx(max(watched(chosen)))


def test_a_threshold_from_the_test_split_goes_to_the_whole_record(tmp_path: Path) -> None:
    run = engine.train(settings(tmp_path, "evaluation.threshold=test_min_max", "detector.gan_iterations=2"))
    metrics, facts = (run_folder.read_json(run / name) for name in ("metrics.json", "provenance.json"))
    assert metrics["threshold"]["rule"] == "a fifth of the range of the test scores"
    (caveat,) = facts["detector"]["caveats"]
    assert caveat in (run / "report.html").read_text()
    assert "evaluation.threshold=test_min_max" in caveat


def test_the_best_epoch_is_kept_recorded_and_judged(whole: Path) -> None:
    assert watched(whole) == pytest.approx(SERIES)
    newest = checkpoint_files.newest(whole)
    assert newest is not None
    assert newest.name.startswith("00000010-")  # a resumed run must find its training at an end
    assert alike(weights(whole, 10), weights(whole, 6))
    assert not alike(weights(whole, 10), weights(whole, 8))
    facts = run_folder.read_json(whole / "provenance.json")
    expected = {"rule": "best epoch by test labels", "iteration": 6, "auroc": 0.9, "last_auroc": 0.6}
    assert choice(whole) == expected
    assert facts["detector"]["caveats"] == [BestTestEpoch.caveat]
    assert BestTestEpoch.caveat in (whole / "report.html").read_text()
    scores = (whole / "scores.csv").read_text()
    run_commands.evaluate(str(whole))
    assert (whole / "scores.csv").read_text() == scores


@pytest.mark.parametrize("stopped_at", [8, 10])
def test_a_resumed_training_chooses_alike(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int
) -> None:
    """Stopped behind the checkpoint after the best epoch, and behind the last one."""
    save = checkpoints.Checkpoints.on_train_epoch_end

    def stop(self, trainer, detector) -> None:
        save(self, trainer, detector)
        if detector.iterations_done == stopped_at:
            raise RuntimeError("stopped")

    scripted(monkeypatch)
    monkeypatch.setattr(checkpoints.Checkpoints, "on_train_epoch_end", stop)
    with pytest.raises(RuntimeError, match="stopped"):
        engine.train(settings(tmp_path, SWITCH))
    monkeypatch.setattr(checkpoints.Checkpoints, "on_train_epoch_end", save)
    (run,) = (tmp_path / "runs" / "ganomaly_headct").iterdir()
    engine.resume(str(run))
    assert alike(weights(run, 10), weights(whole, 10))
    assert watched(run) == watched(whole)
    assert (run / "scores.csv").read_text() == (whole / "scores.csv").read_text()
    assert choice(run) == choice(whole)


def test_it_refuses_what_it_cannot_choose_by(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="validation normals"):
        engine.train(settings(tmp_path, SWITCH, "data.split.val_fraction=0"))


def test_a_training_without_any_test_auroc_keeps_its_last_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That they have diverged is `Record`'s to say; the callback failed with a bare KeyError before."""
    monkeypatch.setattr(best_test_epoch, "_test_auroc", lambda *_: float("nan"))
    run = engine.train(settings(tmp_path, SWITCH))
    assert (run / "report.html").exists()
