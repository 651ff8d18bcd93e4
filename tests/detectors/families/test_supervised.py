"""What supervised detectors share: scores, maps, frozen stages, rates, and settings that do not go together."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from toys import ToyData, smooth, train

from anomaly_lab.detectors.chr import CHR
from anomaly_lab.detectors.classifier import Classifier
from anomaly_lab.detectors.families.supervised import SupervisedDetector
from anomaly_lab.detectors.gbad import GBAD
from anomaly_lab.types import UserError

SMALL = {"patch_size": (32, 32), "backbone": "squeezenet1_0"}
KINDS = [Classifier, CHR, GBAD]


def made(kind: type[SupervisedDetector] = Classifier, **settings: Any) -> SupervisedDetector:
    torch.manual_seed(0)
    lengths = {"classifier_iterations": 4} | (
        {"bigan_iterations": 2, "normals": 4, "batch_size": 4} if kind is GBAD else {}
    )
    detector: SupervisedDetector = kind(**{**SMALL, **lengths, **settings})
    return detector.eval()


# --- scores ----------------------------------------------------------------------------------------------------------


def test_the_score_is_what_is_not_normal() -> None:
    detector = made(classes=("cyst", "normal", "tumour"))
    logits = torch.tensor([[1.0, 3.0, 0.0], [-40.0, 3.0, -40.0]])
    probabilities = detector.probabilities(logits)
    first = (math.e + 1) / (math.e + math.e**3 + 1)
    assert math.isclose(detector.score_of(probabilities)[0].item(), first, rel_tol=1e-6)
    assert detector.score_of(probabilities)[1].item() > 0  # 1 - P(normal) would be rounded to 0
    unnamed = made(classes=("healthy", "cyst"))
    assert unnamed.score_of(torch.tensor([[0.75, 0.25]])).item() == 0.25  # the first class stands for normal


def test_the_score_of_several_classes_is_the_highest() -> None:
    detector = made(classes=("gun", "knife"), task="multilabel")
    assert detector.score_of(
        detector.probabilities(torch.tensor([[0.0, -1.0], [-3.0, 2.0]]))
    ).tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-2))])


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_has_probabilities_and_their_score(kind: type[SupervisedDetector]) -> None:
    detector = made(kind, **({} if kind is Classifier else {"classes": ("gun", "knife", "pliers")}))
    prediction = detector.score({"image": smooth(3, seed=1)})
    probabilities = prediction.probabilities
    assert probabilities is not None
    assert probabilities.shape == (3, len(detector.settings.classes))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    torch.testing.assert_close(prediction.anomaly_score, detector.score_of(probabilities))


# --- maps ------------------------------------------------------------------------------------------------------------


def test_the_map_of_a_linear_head_is_the_class_activation_map() -> None:
    """Zhou et al. 2016: the weights of the class times the last map; of two classes, the difference of the weights."""
    detector = made(patch_size=(64, 64))
    image = smooth(2, seed=1).repeat(1, 1, 2, 2)
    (*_, last), weight = detector.maps(image), detector.classifier.head.layers[-1].weight
    with torch.no_grad():
        weight[1].abs_()
    expected = torch.einsum("bchw,c->bhw", last, weight[1] - weight[0])[:, None]
    expected = torch.nn.functional.interpolate(expected, size=(64, 64), mode="bilinear").clamp_min(0)
    found = detector.predict(image).anomaly_map
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_of_all_maps_is_the_logit_but_for_the_biases(kind: type[SupervisedDetector]) -> None:
    """Maps are exact: the mean over all positions of what is added up is the logit without biases."""
    detector = made(kind, task="multilabel", classes=("gun",), patch_size=(64, 64))
    for name, weight in detector.classifier.head.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(weight)
    image = smooth(3, seed=1).repeat(1, 1, 2, 2)
    maps = [part.detach().requires_grad_() for part in detector.maps(image)]
    logit = detector.fused(detector.classifier.head(maps))
    slopes = torch.autograd.grad(logit.sum(), maps, allow_unused=True)
    total = sum((part * slope).flatten(1).sum(1) for part, slope in zip(maps, slopes, strict=True) if slope is not None)
    torch.testing.assert_close(total, logit[:, 0], rtol=1e-4, atol=1e-5)


def test_a_flattening_head_has_a_map_too() -> None:
    detector = made(head="flatten", patch_size=(64, 64))
    anomaly_map = detector.predict(smooth(2, seed=1).repeat(1, 1, 2, 2)).anomaly_map
    assert anomaly_map is not None
    assert anomaly_map.shape == (2, 1, 64, 64)
    assert anomaly_map.min() >= 0


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [1, 3])
def test_frozen_stages_stay_as_they_are(kind: type[SupervisedDetector], frozen: int, tmp_path: Path) -> None:
    """Weights and statistics; the rest moves. Three stages are all that SqueezeNet has."""
    detector = made(kind, frozen=frozen, classifier_iterations=1, backbone="squeezenet1_0")
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    assert any(key.startswith("frozen.") for key in before)
    train(detector, ToyData(smooth(8, seed=1)), tmp_path)
    after = detector.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("frozen."))
    assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith("classifier."))
    assert not any(p.requires_grad for p in detector.frozen.parameters())


class Rates(pl.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize(("schedule", "expected"), [("cosine", [1, 0.8536, 0.5, 0.1464]), ("constant", [1, 1, 1, 1])])
def test_the_rate_falls_along_a_cosine(schedule: str, expected: list[float], tmp_path: Path) -> None:
    rates = Rates()
    train(made(lr=0.01, lr_schedule=schedule), ToyData(smooth(8, seed=1)), tmp_path, callbacks=[rates])
    assert rates.seen == pytest.approx([0.01 * share for share in expected], rel=1e-3)


def test_classes_weigh_by_the_training_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = made(weigh_classes=True)
    monkeypatch.setattr("anomaly_lab.detectors.families.detector.Detector.on_fit_start", lambda _: None)
    counts = np.array([[6, 2], [2, 6]])
    detector._trainer = SimpleNamespace(datamodule=SimpleNamespace(class_counts=lambda: counts))
    detector.on_fit_start()
    torch.testing.assert_close(detector.class_weight, torch.tensor([8 / 12, 2.0]))
    logits, target = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.eye(2)
    terms = [math.log(2), math.log(1 + math.exp(2))]
    expected = (8 / 12 * terms[0] + 2 * terms[1]) / (8 / 12 + 2)
    assert math.isclose(detector.entropy(logits, target).item(), expected, rel_tol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_targets_have_no_influence(kind: type[SupervisedDetector]) -> None:
    detector = made(kind, classes=("gun", "knife"), task="multilabel", dropout=0.0) if kind is Classifier else made(
        kind, classes=("gun", "knife")
    )  # fmt: skip
    image = smooth(4, seed=1)

    def gradient(target: Tensor) -> Tensor:
        detector.zero_grad()
        detector.classifier_loss(image, target).backward()
        heads = [p.grad for p in detector.classifier.head.parameters() if p.grad is not None and p.shape[0] == 2]
        return torch.cat([grad[1].flatten() for grad in heads])

    known = torch.tensor([[1, 0], [0, 1], [0, 0], [1, 1]])
    unknown = known.clone()
    unknown[:, 1] = -1
    assert gradient(known).abs().sum() > 0
    assert gradient(unknown).abs().sum() == 0


# --- pretrained weights and what does not fit ------------------------------------------------------------------------


def test_the_record_says_which_weights_it_began_with(tmp_path: Path) -> None:
    from anomaly_lab.networks.backbones import torchvision_network

    network = torchvision_network("squeezenet1_0")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    detector = made(weights=str(tmp_path / "weights.pth"), frozen=1)
    said = detector.load_pretrained()
    assert (said["name"], said["random"], len(said["sha256"])) == ("squeezenet1_0", False, 16)
    assert detector.caveats == ()
    assert torch.equal(detector.frozen.layers[0].weight, network.features[0].weight)
    assert torch.equal(detector.classifier.stages.layers[-1].expand3x3.weight, network.features[12].expand3x3.weight)
    assert made().load_pretrained()["random"]
    assert "random weights" in made().caveats[0]


def test_the_input_belongs_to_the_weights() -> None:
    image = torch.zeros(1, 3, 32, 32)  # 0.5 in [0, 1]
    assert made(backbone="efficientnet_lite0").normalised((image + 1) / 2).max() == pytest.approx(0.5 / 128, abs=1e-3)
    assert made(backbone="inception_v3", patch_size=(75, 75)).normalised((image + 1) / 2).abs().max() == 0
    assert made(weights_input="caffe").normalised((image + 1) / 2)[0, 0, 0, 0] == pytest.approx(127.5 - 104)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (Classifier, {"backbone": "inception_v3", "patch_size": (64, 75)}, "inception_v3 needs at least 75 pixels"),
        (Classifier, {"backbone": "inception_v3", "patch_size": (64, 64), "head": "flatten"}, "at least 75 pixels"),
        (Classifier, {"frozen": 4}, "detector.frozen=4: squeezenet1_0 has 3 stages"),
        (Classifier, {"classes": ("normal",)}, "data.target_type=multiclass needs two"),
        (Classifier, {"classes": (), "task": "multilabel"}, "data.target_type=multilabel needs one"),
        (Classifier, {"classes": ("gun", "gun")}, "a class is named twice"),
        (GBAD, {"task": "multiclass"}, "GBAD decides on each class by itself; set data.target_type=multilabel"),
        (CHR, {"task": "multiclass"}, "CHR decides on each class by itself; set data.target_type=multilabel"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(kind: type[Any], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        kind(**SMALL | settings)
    assert "\n" not in str(refused.value)
