"""A run that starts from another's finished phase: what it takes, what it records, what it refuses."""

from pathlib import Path

import pytest
import torch

from anomaly_lab.detectors.adgan import AdGAN
from anomaly_lab.detectors.dcgan import DCGAN
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.fake_pool import Pool, filled
from anomaly_lab.detectors.fanogan import FAnoGAN
from anomaly_lab.detectors.ganomaly import GANomaly
from anomaly_lab.detectors.wgan import WGAN
from anomaly_lab.experiment import compose, fingerprint, run_folder
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles
from anomaly_lab.pipeline.warm_start import WarmStart
from anomaly_lab.types import UserError

SIZES = {"patch_size": (8, 8), "width": 2, "latent_dim": 4}
FANOGAN = {"patch_size": (32, 32), "width": 2, "latent_dim": 4, "gan_iterations": 6, "encoder_iterations": 2}


def adgan(**changes: object) -> AdGAN:
    torch.manual_seed(1)
    return AdGAN(**{**SIZES, "gan_iterations": 6, "critic_iterations": 3, **changes})


@pytest.fixture
def wgan() -> WGAN:
    torch.manual_seed(0)
    return WGAN(**SIZES, gan_iterations=6)


def saved(run: Path, wgan: Detector, iteration: int = 6) -> Path:
    """The run folder of a WGAN, or of another, at `iteration`."""
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("name: wgan\n")
    facts = {"run": run.name, "id": "1f2e", "detector": {"phases": {"gan": 6}}, "seconds": {"gan": 12.5}}
    run_folder.write_json(run / "provenance.json", facts)
    state = {**wgan.state_dict(), "iteration": torch.tensor(iteration)}
    CheckpointFiles().save_checkpoint({"state_dict": state}, run / "checkpoints" / f"{iteration:08d}.ckpt")
    return run


def begin_with(run: Path, detector: Detector, phase: str = "gan") -> dict[str, object]:
    """What the record says of it."""
    start = WarmStart.open(str(run), phase)
    start.apply_to(detector)
    return start.record()


def test_it_has_the_networks_and_stands_at_the_phases_end(tmp_path: Path, wgan: WGAN) -> None:
    run, detector, untouched = saved(tmp_path / "source", wgan), adgan(), adgan()
    facts = begin_with(run, detector)
    for name in ("generator", "critic"):
        theirs, ours = wgan.get_submodule(name).state_dict(), detector.get_submodule(name).state_dict()
        assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
    assert all(
        torch.equal(a, b) for a, b in zip(detector.judge.parameters(), untouched.judge.parameters(), strict=True)
    )
    assert (detector.iterations_done, int(detector.iteration), detector.phase.name) == (6, 6, "critic")
    (checkpoint,) = (run / "checkpoints").iterdir()
    expected = {
        "run": "source",
        "id": "1f2e",
        "checkpoint": checkpoint.name,
        "phase": "gan",
        "iterations": 6,
        "seconds": 12.5,
    }
    assert facts.pop("settings") == fingerprint.of_repeats(compose.read(run / "config.yaml"))
    assert facts == expected | {"caveats": []}


def test_an_adaptive_augmentation_is_taken_over(tmp_path: Path) -> None:
    source = WGAN(**SIZES, gan_iterations=6, augment_d="ada")
    source.augmentation.p.fill_(0.25)
    detector = adgan(augment_d="ada")
    begin_with(saved(tmp_path / "source", source), detector)
    assert float(detector.augmentation.p) == 0.25
    with pytest.raises(UserError, match="differ"):
        begin_with(tmp_path / "source", adgan())


@pytest.mark.parametrize(
    ("changes", "iteration", "message"),
    [
        ({}, 5, "phase gan is not finished"),
        ({"gan_iterations": 7}, 6, "its iterations up to gan are gan 6, but this experiment has gan 7"),
        ({"width": 4}, 6, "generator and critic differ"),
    ],
)
def test_another_phase_is_refused(
    tmp_path: Path, wgan: WGAN, changes: dict[str, int], iteration: int, message: str
) -> None:
    run = saved(tmp_path / "source", wgan, iteration)
    with pytest.raises(UserError, match=message) as said:
        begin_with(run, adgan(**changes))
    assert "\n" not in str(said.value)


def test_where_nothing_is_left_to_train_everything_is_taken(tmp_path: Path) -> None:
    source = WGAN(**SIZES, gan_iterations=6, augment_d="ada")
    run, detector = saved(tmp_path / "source", source), WGAN(**SIZES, gan_iterations=6, augment_d="ada")
    begin_with(run, detector)
    assert detector.finished
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), detector.parameters(), strict=True))
    (tmp_path / "run").mkdir()
    WarmStart.open(str(run)).link_into(tmp_path / "run", with_checkpoint=True)
    names = [[path.name for path in (folder / "checkpoints").iterdir()] for folder in (run, tmp_path / "run")]
    assert names[0] == names[1]
    with pytest.raises(UserError, match="differ"):  # another kind of detector, though its phase is as long
        begin_with(run, DCGAN(**SIZES, gan_iterations=6))


def test_counters_beside_the_networks_are_taken_with_a_whole_training(tmp_path: Path) -> None:
    source, detector = (GANomaly(patch_size=(32, 32), width=2, gan_iterations=6) for _ in range(2))
    source.resets.fill_(3)
    begin_with(saved(tmp_path / "source", source), detector)
    assert int(detector.resets) == 3


def test_how_the_weights_were_chosen_goes_with_them(tmp_path: Path, wgan: WGAN) -> None:
    run = saved(tmp_path / "source", wgan)
    facts = run_folder.read_json(run / "provenance.json")
    facts["detector"]["caveats"] = ["callbacks.best_test_epoch: chosen", "evaluation.threshold=test_max_f1: drawn"]
    run_folder.write_json(run / "provenance.json", facts)
    assert begin_with(run, adgan())["caveats"] == ["callbacks.best_test_epoch: chosen"]


def test_what_is_no_run_or_has_no_checkpoint_is_refused(tmp_path: Path, wgan: WGAN) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        begin_with(tmp_path, adgan())
    run = saved(tmp_path / "source", wgan)
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no checkpoint"):
        begin_with(run, adgan())


@pytest.mark.parametrize("links", [True, False])
def test_the_pool_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wgan: WGAN, links: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    if not links:
        monkeypatch.setattr("os.link", refuse)
    run = saved(tmp_path / "source", wgan)
    theirs = filled(run / "fakepool", torch.rand(3, 1, 8, 8))
    (tmp_path / "run").mkdir()
    WarmStart.open(str(run)).link_into(tmp_path / "run", with_checkpoint=False)
    assert (Pool(tmp_path / "run" / "fakepool").images == theirs.images).all()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["fakepool"]


def test_no_pool_is_no_complaint(tmp_path: Path, wgan: WGAN) -> None:
    run = saved(tmp_path / "source", wgan)
    (tmp_path / "run").mkdir()
    WarmStart.open(str(run)).link_into(tmp_path / "run", with_checkpoint=False)
    assert not list((tmp_path / "run").iterdir())


def test_any_phase_may_be_taken_over_with_all_before_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, detector = (FAnoGAN(**FANOGAN) for _ in range(2))
    run = saved(tmp_path / "source", source, 8)
    facts = run_folder.read_json(run / "provenance.json")
    run_folder.write_json(run / "provenance.json", facts | {"detector": {"phases": {"gan": 6, "encoder": 2}}})
    assert begin_with(run, detector, "encoder")["iterations"] == 2
    assert detector.finished
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), detector.parameters(), strict=True))
    with pytest.raises(UserError, match="no phase critic, only gan, encoder"):
        begin_with(run, detector, "critic")
    longer = FAnoGAN(**{**FANOGAN, "gan_iterations": 7})
    with pytest.raises(UserError, match="up to encoder are gan 6, encoder 2, but this experiment has gan 7"):
        begin_with(run, longer, "encoder")


def test_the_checkpoint_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wgan: WGAN) -> None:
    run, opened = saved(tmp_path / "source", wgan), []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *words, **more: opened.append(words) or load(*words, **more))
    start = WarmStart.open(str(run))
    start.apply_to(adgan())
    start.apply_to(adgan())
    assert start.record()["run"] == "source"
    assert len(opened) == 1


def test_starts_of_other_settings_code_or_starts_are_told_apart(tmp_path: Path, wgan: WGAN) -> None:
    """By what the record keeps of a start; the dashboard averages what differs in seeds alone."""
    told = []
    for number, more in enumerate(
        ({}, {}, {"code": {"training": "x", "evaluation": ""}}, {"started_from": {"settings": "y"}})
    ):
        run = saved(tmp_path / str(number), wgan)
        (run / "config.yaml").write_text(f"name: wgan\nseed: {number}\n")
        run_folder.update_provenance(run, **more)
        told.append(WarmStart.open(str(run)).record()["settings"])
    assert told[0] == told[1]
    assert len(set(told)) == 3
