"""Every experiment that once had a file of its own still resolves to the values it had then (`frozen.txt`)."""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from anomaly_lab.data.preprocessing.augmentation import Augmentation
from anomaly_lab.data.preprocessing.patches import PatchSampling
from anomaly_lab.data.preprocessing.transforms import Volume
from anomaly_lab.data.splitting.rows import Limits
from anomaly_lab.experiment import config
from anomaly_lab.experiment.compose import BUDGETS, leaves
from anomaly_lab.experiment.schema import KEYS, moved

ABSENT = "-"
SECTIONS = {"augment": Augmentation(), "cut": PatchSampling(), "volume": Volume(), "limits": Limits()}
DEFAULTS = {  # of sections that listed only what was not a default
    f"data.{section}.{name}": value for section, content in SECTIONS.items() for name, value in asdict(content).items()
}
DEFAULTS["data.patient"] = None  # of DICOM, which took it from headers alone
DEFAULTS["data.crop"] = "none"  # of every set but MIAS, which alone could crop
CHANGED = {  # values that were slips: the twin had too few images for the batch of this budget
    ("data.twin.size", f"{name} paper"): 400
    for name in (
        "fanogan_sixray",
        *(f"{detector}_tsukazaki" for detector in ("autoencoder", "fanogan", "ganomaly", "vae")),
    )
}
CHANGED |= {  # blocks of neighbouring files leave 55 normals for training, where random splits left 67
    ("data.batch_size", f"{detector}_headct paper"): 48
    for detector in ("adgan", "adganc", "autoencoder", "deep_svdd", "egbad", "fanogan", "ganomaly", "multi_kd")
}
CHANGED |= {("data.batch_size", f"{detector}_headct paper"): 48 for detector in ("skip_ganomaly", "vae", "wgan")}
CHANGED |= {  # averaged over a tenth of so short a training, encoder and generator no longer fit each other
    ("detector.average_decay", f"egbad_{dataset} laptop"): 0.0
    for dataset in ("abmnist", "headct", "mias", "mias_patches")
}
NEW_WORDS = {("detector.backbone", "dcgan"): "adgan", ("evaluation.purpose", "0.95"): "rule_in"}


@cache
def frozen() -> dict[tuple[str, str], dict[str, Any]]:
    """Values by key, of each experiment and budget."""
    lines = [line for line in Path(__file__).with_name("frozen.txt").read_text().splitlines() if line[0] != "#"]
    names = {name for line in lines if line[0] == " " for name in line.split(" | ")[2].split()}
    found: dict[tuple[str, str], dict[str, Any]] = {(name, budget): {} for name in names for budget in BUDGETS}
    key = ""
    for line in lines:
        if line[0] != " ":
            key, _, value = line.partition(" = ")
            for values in found.values():
                values[key] = _value(value)
        else:
            value, budgets, experiments = line.strip().split(" | ")
            for budget in BUDGETS if budgets == "*" else budgets.split():
                for experiment in experiments.split():
                    found[experiment, budget][key] = _value(value)
    return found


def _value(text: str) -> Any:
    return ABSENT if text == ABSENT else json.loads(text)


def test_all_are_there():
    assert len(frozen()) == 72 * 3


@pytest.mark.parametrize("name", sorted({name for name, _ in frozen()}))
def test_an_experiment_of_old_has_its_values(name: str):
    changes = []
    for budget in BUDGETS:
        resolved = json.loads(json.dumps(OmegaConf.to_container(config.load(name, [f"budget={budget}"]))))
        now = dict(leaves(resolved))
        for old, value in frozen()[name, budget].items():
            key = KEYS.get(old, old)
            meant = moved(value) if key.endswith("._target_") else NEW_WORDS.get((key, str(value)), value)
            meant = CHANGED.get((key, f"{name} {budget}"), meant)
            found = now.get(key, ABSENT)
            if found != meant and not (meant == ABSENT and found == DEFAULTS.get(key, ABSENT)):
                changes.append(f"{name} {budget}: {key}: {meant} became {found}")
    assert not changes, "\n".join(changes)
