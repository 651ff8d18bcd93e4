"""The Python API is the command line's code: same settings, same run, same errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from data.conftest import write_headct

import anomaly_lab as al
from anomaly_lab import api
from anomaly_lab.experiment import config
from anomaly_lab.types import UserError


def small(tmp_path: Path) -> dict[str, object]:
    return {
        "budget": "smoke",
        "runs": str(tmp_path / "runs"),
        "data": {"root": str(tmp_path / "headct"), "store": {"folder": str(tmp_path / "store")}, "patch_size": [32, 32],
                 "split": {"train_normals": 8, "val_fraction": 0.25}, "batch_size": 4, "augment": None,
                 "protocol": "random"},
        "detector": {"width": 4, "latent_dim": 4, "gan_iterations": 2, "encoder_iterations": 2},
        "callbacks": {"wandb": None},
        "evaluation": {"replicates": 20},
    }  # fmt: skip


def test_nested_settings_are_the_command_lines_words() -> None:
    words = api.overrides({"seed": 1, "data": {"root": "my scans", "volume": {"window": [40, 80]}, "augment": None}})
    assert words == ["seed=1", 'data.root="my scans"', "data.volume.window=[40, 80]", "data.augment=null"]
    config_words = ["budget=smoke", "data.root=my scans", "data.augment=null"]
    assert al.show("fanogan_headct", budget="smoke", data={"root": "my scans", "augment": None}) == config.show(
        config.load("fanogan_headct", config_words)
    )


def test_a_run_is_trained_and_scores_without_its_data(tmp_path: Path) -> None:
    picture = write_headct(tmp_path / "headct") / "head_ct" / "head_ct" / "009.png"
    run = al.train("fanogan_headct", **small(tmp_path))
    assert isinstance(run, al.Run)
    assert 0 <= run.metrics["detector"]["auroc"]["value"] <= 1
    assert run.report.is_file()
    assert run.scores.is_file()
    assert run.provenance["budget"] == "smoke"
    (tmp_path / "headct" / "labels.csv").unlink()
    assert al.load(run.folder).score(picture).score == run.scorer().score(str(picture)).score


def test_a_mistake_is_the_command_lines_mistake() -> None:
    with pytest.raises(UserError, match="Did you mean: 'headct'"):
        al.train("fanogan_headtc")
    with pytest.raises(UserError, match="Did you mean one of: 'latent_dim'"):
        al.show("fanogan_headct", budget="smoke", detector={"latent_dims": 3})


def test_experiments_data_sets_and_detectors_are_found() -> None:
    assert "fanogan_headct" in al.experiments()
    assert al.datasets.Folder.__name__ in dir(al.datasets)
    assert al.detectors.GANomaly.__name__ in dir(al.detectors)
    assert set(al.__all__) <= set(dir(al))
    with pytest.raises(AttributeError, match="nothing"):
        _ = al.nothing
    with pytest.raises(AttributeError, match="Nothing"):
        _ = al.datasets.Nothing


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, anomaly_lab; assert not {'torch', 'pytorch_lightning', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "2000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000"), ({"GOMP_SPINCOUNT": "7"}, "7")],
)
def test_threads_soon_sleep_while_they_wait_unless_told_otherwise(given: dict[str, str], spins: str) -> None:
    """Where other programs run, spinning makes an iteration up to a hundred times as long."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", "import anomaly_lab, torch; torch.ones(2).sum()"]
    shown = subprocess.run(
        command, env=kept | given | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True, check=True
    ).stderr
    if "GOMP_SPINCOUNT" not in shown:
        pytest.skip("torch is not built with GNU's OpenMP here")
    assert f"GOMP_SPINCOUNT = '{spins}'" in shown
