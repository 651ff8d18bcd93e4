"""Any detector on any data set: each pair loads, is built and takes a training step on the data set's twin."""

import json
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
from commands import Server
from discovery import one_of_each_class
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.experiment import compose, config
from anomaly_lab.pipeline import engine

pytestmark = pytest.mark.slow
UNTUNED = [
    "alad_sixray",
    "anogan_mean_chexpert",
    "kde_oct2017",
    "pool_svm_tsukazaki",
    "vae_nifti",
]  # colour, OCT, volumes


@pytest.mark.parametrize("dataset", list(compose.datasets()))
def test_every_detector_takes_a_step_on_the_twin_of(dataset: str, store: Path, tmp_path: Path) -> None:
    """They share its store, but for those that judge fewer pictures; data of the same settings are set up once.

    A detector's experiment that differs from another one's in sizes, or in how it is scored, is loaded only.
    """
    alike: dict[str, PatchDataModule] = {}
    steps = one_of_each_class()
    for detector in compose.detectors():
        places = ["data.source=twin", f"data.store.folder={store}"]
        settings = config.load(f"{detector}_{dataset}", ["budget=smoke", *places])
        check_fits(settings, detector, dataset)
        if detector not in steps:
            continue
        built, model = engine.construct(settings)
        data = alike.setdefault(OmegaConf.to_yaml(settings.data, resolve=True), built)
        model.load_pretrained()
        data.setup()
        data.check_trainable()
        trainer = pl.Trainer(
            max_epochs=1,
            limit_train_batches=1,
            limit_val_batches=0,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,
        )
        trainer.fit(model, datamodule=data)
        assert model.iterations_done == 1, detector


@pytest.mark.parametrize("budget", sorted({*compose.BUDGETS} - {"smoke"}))  # which the steps are taken with
@pytest.mark.parametrize("detector", list(compose.detectors()))
def test_every_pair_loads_with_every_budget(detector: str, budget: str) -> None:
    for dataset in compose.datasets():
        check_fits(config.load(f"{detector}_{dataset}", [f"budget={budget}"]), detector, dataset)


def check_fits(pair: DictConfig, detector: str, dataset: str) -> None:
    assert pair.detector.in_channels == pair.data.in_channels
    assert {"defaults", f"detectors/{detector}", f"datasets/{dataset}"} <= set(pair.layers)


@pytest.mark.parametrize("experiment", UNTUNED)
def test_a_pair_that_nobody_tuned_trains_to_a_report(
    server: Server, experiment: str, store: Path, tmp_path: Path
) -> None:
    words = [f"runs={tmp_path / 'runs'}", "data.source=twin", f"data.store.folder={store}"]
    words += ["budget=smoke", "callbacks.wandb=null", "evaluation.replicates=20"]
    done = server.run("train", experiment, *words)
    assert done.status == 0, done.said
    (run,) = (tmp_path / "runs" / experiment).iterdir()
    assert "AUROC" in (run / "report.html").read_text()
    assert 0 <= json.loads((run / "metrics.json").read_text())["detector"]["auroc"]["value"] <= 1


def test_pictures_of_ones_own_need_no_yaml(server: Server, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    for kind, count in (("normal", 30), ("scratch", 5)):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for i in range(count):
            pixels = drawn.integers(0, 256, (40, 40), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / kind / f"{i}.png")
    words = [
        f"data.root={tmp_path / 'pictures'}",
        f"runs={tmp_path / 'runs'}",
        f"data.store.folder={tmp_path / 'store'}",
    ]
    done = server.run("train", "ganomaly_folder", *words, "budget=smoke", "callbacks.wandb=null")
    assert done.status == 0, done.said
    (run,) = (tmp_path / "runs" / "ganomaly_folder").iterdir()
    facts = json.loads((run / "provenance.json").read_text())
    assert (facts["source"], facts["data"]["census"]) == (
        "real",
        {"images": 35, "normal": 30, "anomalous": 5, "scratch": 5},
    )
    assert (run / "report.html").is_file()
