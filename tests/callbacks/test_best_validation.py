"""The weights of the lowest loss on the validation labels: chosen, kept through a stop, restored once."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toys import Shift, smooth

from anomaly_lab.callbacks.best_validation import BestValidation, losses_of
from anomaly_lab.detectors.gbad import GBAD
from anomaly_lab.types import UserError

TRAINER: Any = SimpleNamespace(world_size=1)


def detector() -> GBAD:
    torch.manual_seed(0)
    return GBAD(
        (32, 32), backbone="squeezenet1_0", classifier_iterations=6, bigan_iterations=4, normals=4, batch_size=4
    )


def epoch(callback: BestValidation, module: GBAD, iteration: int, probability: float) -> None:
    """Go to the end of an epoch, with weights of its own, after which validation says `probability` of every truth."""
    module.iteration.fill_(iteration)
    module.iterations_done = iteration
    with torch.no_grad():
        for network in (module.classifier, module.encoder):
            next(network.parameters()).fill_(iteration)
    outputs = SimpleNamespace(probabilities=torch.full((3, 1), probability))
    for _ in range(2):
        callback.on_validation_batch_end(TRAINER, module, outputs, {"target": torch.tensor([[1], [-1], [1]])}, 0)
    callback.on_validation_epoch_end(TRAINER, module)
    callback.on_train_epoch_end(TRAINER, module)


def test_losses_by_hand() -> None:
    p = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.0, 1.0]])
    found = losses_of(p, torch.tensor([[1, 0], [0, 1], [1, 0]]), "multiclass")
    assert found.tolist() == pytest.approx([-math.log(0.2), math.log(2), -math.log(1e-7)])
    found = losses_of(p, torch.tensor([[1, -1], [-1, 0], [0, 1]]), "multilabel")
    assert found.tolist() == pytest.approx([-math.log(0.2), math.log(2), 0, 0])


def test_the_best_epoch_of_the_phase_is_restored_at_its_end() -> None:
    callback, module = BestValidation(), detector()
    for iteration, probability in ((2, 0.5), (4, 0.9), (6, 0.6)):
        epoch(callback, module, iteration, probability)
    assert next(module.classifier.parameters()).unique().item() == 4
    assert next(module.encoder.parameters()).unique().item() == 6  # another phase's: left alone
    assert (module.iterations_done, int(module.iteration)) == (6, 6)
    choice = callback.checkpoint_choice()
    assert choice == {"rule": "lowest loss on the validation labels", "iteration": 4,
                      "loss": pytest.approx(-math.log(0.9)), "last_loss": pytest.approx(-math.log(0.6))}  # fmt: skip
    epoch(callback, module, 8, 0.99)  # of the next phase
    assert callback.checkpoint_choice() == choice
    assert next(module.classifier.parameters()).unique().item() == 8
    assert module.flush()["val/loss"] == pytest.approx(-math.log(0.5 * 0.9 * 0.6) / 3)


def test_a_stopped_training_chooses_alike_and_the_first_of_equals_is_kept() -> None:
    callback, module = BestValidation(), detector()
    epoch(callback, module, 2, 0.9)
    epoch(callback, module, 4, 0.9)
    other, again = BestValidation(), detector()
    other.load_state_dict(callback.state_dict())
    epoch(other, again, 6, 0.7)
    assert next(again.classifier.parameters()).unique().item() == 2
    assert "weights" not in other.state_dict()  # a checkpoint needs them no longer


def test_without_a_known_label_it_says_what_to_do() -> None:
    callback, module = BestValidation(), detector()
    module.iterations_done = 6
    callback.on_validation_epoch_end(TRAINER, module)
    assert callback.checkpoint_choice() is None
    with pytest.raises(UserError, match=r"no validation case has a known label; raise data\.split\.val_fraction"):
        callback.on_train_epoch_end(TRAINER, module)


def test_a_training_that_diverged_is_not_blamed_on_the_labels() -> None:
    with pytest.raises(UserError, match=r"diverged; lower detector\.lr"):
        epoch(BestValidation(), detector(), 6, math.nan)


def test_a_one_class_detector_is_refused() -> None:
    with pytest.raises(UserError, match=r"Shift gives no class probabilities; set callbacks\.best_validation=null"):
        BestValidation().refuse(None, Shift())


def test_validation_outputs_have_what_it_needs() -> None:
    module = detector()
    outputs = module.validation_step({"image": smooth(2, seed=1), "target": torch.zeros(2, 1)}, 0)
    assert outputs.probabilities.shape == (2, 1)
