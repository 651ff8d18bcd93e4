"""What is particular to ALOCC."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import Fit, Toy, ToyData, auroc, corners, squared, train

from anomaly_lab.detectors.alocc import ALOCC, CHECK_EVERY

TOY = Toy(
    {"width": 8, "gan_iterations": 300, "rho": 0.0},
    anomalies="negative",
    at_least=0.8,
    why="its published score, what D says of R(x), does not find the squares reliably: AUROC .56 to .96 over five "
    "seeds; whole pictures whose like it has never seen it does find, .90 to 1.0 over the same seeds",
)

SIZE = (32, 32)


def tiny(**changes: object) -> ALOCC:
    torch.manual_seed(0)
    return ALOCC(**{"patch_size": SIZE, "width": 4, "gan_iterations": 30, **changes})


def test_losses_by_hand(pictures: Tensor) -> None:
    detector = tiny(reconstruction_weight=3.0, noise=0.5).eval()
    cross_entropy, ones = torch.nn.functional.binary_cross_entropy_with_logits, torch.ones(len(pictures))
    for loss in (detector.discriminator_loss, detector.reconstructor_loss):
        torch.manual_seed(3)
        found = loss(pictures)
        torch.manual_seed(3)
        cleaned = detector.reconstructor(pictures + 0.5 * torch.randn_like(pictures))
        real, fake = detector.discriminator(pictures), detector.discriminator(cleaned)
        if loss == detector.discriminator_loss:
            expected = cross_entropy(real, ones) + cross_entropy(fake, 0 * ones)
        else:
            expected = cross_entropy(fake, ones) + 3 * (pictures - cleaned).square().mean()
        torch.testing.assert_close(found, expected)


def test_score_and_map_by_hand(pictures: Tensor) -> None:
    detector = tiny().eval()
    score, anomaly_map, reconstruction = detector.predict(pictures)[:3]
    cleaned = detector.reconstructor(pictures)  # without noise
    torch.testing.assert_close(reconstruction, cleaned)
    torch.testing.assert_close(score, -detector.discriminator(cleaned))
    torch.testing.assert_close(anomaly_map, (pictures - cleaned).abs())


def test_two_learning_rates() -> None:
    rates = [
        opt.param_groups[0]["lr"] for opt in tiny(lr_reconstructor=0.3, lr_discriminator=0.1).configure_optimizers()
    ]
    assert rates == [0.3, 0.1]


class Improves(ALOCC):
    """Says that R's error is 1 for five iterations, and a twentieth from then on."""

    def reconstructor_loss(self, real: Tensor) -> Tensor:
        loss = super().reconstructor_loss(real)
        self._errors[-1] = torch.tensor(1.0 if self.iterations_done < 5 else 0.05)
        return loss


def test_stops_when_the_running_error_has_fallen_to_rho(fit: Fit, pictures: Tensor) -> None:
    """.05 + .95 · .9^k < .1 from k = 28 iterations after the fifth on; the next look is at 40."""
    detector = Improves(patch_size=SIZE, width=4, gan_iterations=45)
    fit(detector, pictures)
    assert int(detector.reconstructor.stopped_at) == 40
    assert detector.reconstructor.error.item() == pytest.approx(0.05 + 0.95 * 0.9**35)
    assert detector.iterations_done == 45


def test_stopped_it_stays_as_it_is(fit: Fit, pictures: Tensor) -> None:
    stopped, short = fit(tiny(rho=100.0), pictures), fit(tiny(rho=100.0), pictures, iterations=CHECK_EVERY)
    assert int(stopped.reconstructor.stopped_at) == CHECK_EVERY
    later, then = stopped.state_dict(), short.state_dict()
    assert {key for key in then if not torch.equal(then[key], later[key])} == {"iteration"}


def test_never_stops_at_zero(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(rho=0.0, lr_reconstructor=1e-2), pictures)
    assert int(detector.reconstructor.stopped_at) == -1
    assert not detector.stopped


def test_a_loaded_detector_knows_that_it_has_stopped(fit: Fit, pictures: Tensor) -> None:
    stopped, fresh = fit(tiny(rho=100.0), pictures, iterations=CHECK_EVERY), tiny(rho=100.0)
    assert stopped.stopped
    fresh.load_state_dict(stopped.state_dict())
    assert fresh.stopped
    before = copy.deepcopy(fresh.state_dict())
    fit(fresh, pictures, iterations=2)
    changed = {key for key, value in fresh.state_dict().items() if not torch.equal(before[key], value)}
    assert changed == {"iteration"}


def test_the_error_is_the_mean_over_parts(fit: Fit, pictures: Tensor) -> None:
    errors = []
    for accumulate in (1, 2):
        detector = tiny()
        detector.accumulate = accumulate
        errors.append(fit(detector, pictures, iterations=1).reconstructor.initial_error.item())
    assert errors[1] == pytest.approx(errors[0], rel=0.05)


@pytest.mark.slow
def test_its_reconstructions_solve_the_toy_problem(tmp_path: Path) -> None:
    """Squares, too, which its score does not find: |x - R(x)| is larger for each of them than for any normal."""
    torch.manual_seed(0)
    detector = ALOCC((32, 32), **TOY.settings)
    train(detector, ToyData(corners(256, seed=1), TOY.batch_size), tmp_path)
    normal, anomalous = corners(50, seed=2), squared(corners(50, seed=3))
    errors = [detector.score({"image": images}).anomaly_map.mean((1, 2, 3)) for images in (normal, anomalous)]
    assert auroc(*errors) >= 0.95
