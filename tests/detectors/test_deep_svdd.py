"""What is particular to Deep SVDD."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import Fit, Toy

from anomaly_lab.detectors.deep_svdd import DeepSVDD

TOY = Toy(
    {"pass_iterations": 8, "pretrain_iterations": 150, "sphere_iterations": 150, "warmup_iterations": 30, "lr": 0.001}
)


def tiny(**changes: object) -> DeepSVDD:
    torch.manual_seed(0)
    lengths = {"pass_iterations": 2, "pretrain_iterations": 3, "sphere_iterations": 6, "warmup_iterations": 2}
    return DeepSVDD(**{**lengths, **changes})


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Networks of which a weight or buffer changed."""
    return {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} - {"iteration"}


def test_each_phase_moves_its_own_networks(fit: Fit, pictures: Tensor) -> None:
    detector, found = tiny(), []
    for phase in detector.schedule:
        before = copy.deepcopy(detector.state_dict())
        fit(detector, pictures, iterations=phase.iterations)
        found.append(moved(before, detector.state_dict()))
    assert found == [{"contrast"}, {"autoencoder"}, {"encoder", "sphere"}, {"encoder"}]


def test_the_encoder_begins_as_the_autoencoders(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(), pictures, iterations=7)
    pretrained = detector.autoencoder.encoder.state_dict()
    assert all(torch.equal(value, pretrained[key]) for key, value in detector.encoder.state_dict().items())


def test_the_centre_is_the_mean_code_of_what_was_seen(fit: Fit, pictures: Tensor) -> None:
    same = pictures[:1].repeat(4, 1, 1, 1)
    detector = fit(tiny(), same, iterations=7).eval()
    code = detector.encoder(detector.contrast(same))[0]
    far = code.abs() >= 0.1
    torch.testing.assert_close(detector.sphere.centre[far], code[far])
    assert detector.sphere.centre.abs().min() >= 0.1


def test_objectives_by_hand(fit: Fit, pictures: Tensor) -> None:
    for objective, radius, expected in (
        ("one-class", 0.0, lambda d: d.mean()),
        ("soft-boundary", 0.5, lambda d: 0.25 + (d - 0.25).clamp_min(0).mean() / 0.2),
    ):
        detector = fit(tiny(objective=objective, nu=0.2), pictures, iterations=7).eval()
        detector.sphere.radius.fill_(radius)
        code = detector.encoder(detector.contrast(pictures))
        distance = (code - detector.sphere.centre).square().sum(1)
        torch.testing.assert_close(detector.sphere_loss(pictures), expected(distance))
        score = detector.predict(pictures).anomaly_score
        torch.testing.assert_close(score, distance - radius**2)


def test_the_radius_waits_for_the_warm_up(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(objective="soft-boundary"), pictures, iterations=9)
    assert detector.sphere.radius == 0
    fit(detector, pictures, iterations=1)
    assert detector.sphere.radius > 0
    assert fit(tiny(), pictures).sphere.radius == 0


def test_the_radius_leaves_a_fraction_nu_outside(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(objective="soft-boundary", nu=0.25), pictures, iterations=10).eval()
    detector.sphere_loss(pictures)
    distance = detector.sphere(detector.encoder(detector.contrast(pictures)))
    assert (distance > detector.sphere.radius**2).float().mean() == pytest.approx(0.25)


def test_the_learning_rate_falls_after_a_third(fit: Fit, pictures: Tensor) -> None:
    rates = []
    for iterations in (9, 10, 13):
        detector = fit(tiny(lr=0.01), pictures, iterations=iterations)
        rates.append(detector.optimizers()[1].param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.001, 0.001])


def test_weight_decay_is_each_networks_own() -> None:
    autoencoder, encoder = tiny(weight_decay=0.2, pretrain_decay=0.3).configure_optimizers()
    assert (autoencoder.param_groups[0]["weight_decay"], encoder.param_groups[0]["weight_decay"]) == (0.3, 0.2)


@pytest.mark.slow
def test_with_a_soft_boundary_it_solves_the_toy_problem(tmp_path: Path) -> None:
    """The contract asks the other objective."""
    torch.manual_seed(0)
    assert TOY.auroc(DeepSVDD((32, 32), **TOY.settings, objective="soft-boundary"), tmp_path) >= 0.9
