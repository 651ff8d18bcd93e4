"""What is particular to adGAN: a second critic, a pool, a concentration loss."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from toys import Fit, Toy

from anomaly_lab.detectors.adgan import AdGAN
from anomaly_lab.detectors.families.fake_pool import filled
from anomaly_lab.detectors.wgan import WGAN
from anomaly_lab.experiment import config
from anomaly_lab.types import UserError

TOY = Toy(
    {
        "width": 8,
        "latent_dim": 16,
        "n_critic": 2,
        "gan_iterations": 150,
        "critic_iterations": 150,
        "lr": 0.001,
        "lr_judge": 0.0005,
        "cooldown": 0.5,
    }
)

SIZES: dict[str, Any] = {"patch_size": (32, 32), "width": 2, "latent_dim": 8, "n_critic": 2}


def tiny(**changes: object) -> AdGAN:
    torch.manual_seed(0)
    return AdGAN(**{**SIZES, "gan_iterations": 2, "critic_iterations": 2, **changes})


def at_the_second_phase(**changes: object) -> AdGAN:
    detector = tiny(**changes)
    with torch.no_grad():
        detector.critic.last.bias.fill_(0.5)  # as if it had learned
    detector.load_state_dict({**detector.state_dict(), "iteration": torch.tensor(2)})
    return detector


def test_the_judge_moves_in_the_second_phase_alone(fit: Fit, pictures: torch.Tensor) -> None:
    start = copy.deepcopy(tiny().state_dict())
    between = copy.deepcopy(fit(tiny(), pictures, iterations=2).state_dict())
    end = fit(tiny(), pictures).state_dict()
    for one, other, expected in ((start, between, {"generator", "critic"}), (between, end, {"judge"})):
        moved = {key.split(".")[0] for key in one if not torch.equal(one[key], other[key])}
        assert moved - {"iteration"} == expected


def _settings(experiment: str) -> dict[str, Any]:
    settings: Any = OmegaConf.to_container(config.load(experiment, ["budget=paper"]))
    return settings


def look(detector: AdGAN, seen: dict[str, torch.Tensor], network: str, loss: object, batch: object) -> None:
    """Instead of a step: the weights before it."""
    seen.update(copy.deepcopy(detector.get_submodule(network).state_dict()))
    assert not detector._optimizer(network).state  # Adam begins anew


def test_the_two_starts_differ_in_the_judges_first_weights_and_in_nothing_else(
    fit: Fit, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (_settings(name) for name in ("adgan_abmnist", "adganc_abmnist"))
    assert one["detector"].pop("critic_start") != other["detector"].pop("critic_start")
    alike = {"name": "", "layers": []}
    assert one | alike == other | alike

    first = {}
    for start in ("scratch", "carry"):
        detector = at_the_second_phase(critic_start=start)
        monkeypatch.setattr(detector, "step_optimizer", partial(look, detector, first.setdefault(start, {})))
        fit(detector, pictures, iterations=1)
    fresh = at_the_second_phase()
    assert all(torch.equal(value, first["scratch"][key]) for key, value in fresh.judge.state_dict().items())
    assert all(torch.equal(value, first["carry"][key]) for key, value in fresh.critic.state_dict().items())


def test_the_critic_is_carried_once(fit: Fit, pictures: torch.Tensor) -> None:
    detector = fit(at_the_second_phase(critic_start="carry"), pictures, iterations=1)
    kept = copy.deepcopy(detector.judge.state_dict())
    detector.settings.lr = 0.0
    fit(detector, pictures, iterations=1)
    assert all(torch.equal(value, kept[key]) for key, value in detector.judge.state_dict().items())


def test_judge_loss_by_hand(tmp_path: Path, pictures: torch.Tensor) -> None:
    """Without alpha it is the plain loss, with it a population's standard deviation more."""
    loss = {}
    for weight in (0.0, 1.0, 3.0):
        detector = tiny(concentration_weight=weight, gp_weight=7.0)
        detector.pool = filled(tmp_path / str(weight), pictures.flip(2))
        torch.manual_seed(3)
        loss[weight] = detector.judge_loss(pictures)
    torch.manual_seed(3)
    fake = detector.pool.draw(len(pictures))
    between = torch.lerp(pictures, fake, torch.rand(len(pictures), 1, 1, 1)).requires_grad_(True)
    (slope,) = torch.autograd.grad(detector.judge(between).sum(), between)
    score = detector.judge(pictures)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    plain = detector.judge(fake).mean() - score.mean() + 7 * penalty
    torch.testing.assert_close(loss[0.0], plain)
    for weight in (1.0, 3.0):
        torch.testing.assert_close(loss[weight], plain + weight * score.std(correction=0))


def test_without_a_pool_it_says_so(pictures: torch.Tensor) -> None:
    with pytest.raises(UserError, match="needs a fake pool"):
        tiny().judge_loss(pictures)


def test_the_score_is_minus_the_judges_opinion(pictures: torch.Tensor) -> None:
    detector = tiny().eval()
    score, anomaly_map, reconstruction = detector.predict(pictures)[:3]
    torch.testing.assert_close(score, -detector.judge(pictures))
    assert anomaly_map is None
    assert reconstruction is None


def test_its_first_phase_is_the_wgans(fit: Fit, pictures: torch.Tensor) -> None:
    """To the last digit: only so may it start from such a run."""
    ours = fit(tiny(), pictures, iterations=2)
    torch.manual_seed(0)
    wgan = WGAN(**SIZES, gan_iterations=2)
    assert torch.equal(wgan.critic.last.weight, tiny().critic.last.weight)
    state: list[dict[str, torch.Tensor]] = []
    for detector in (wgan, tiny()):
        torch.manual_seed(5)
        state.append(fit(detector, pictures, iterations=2).state_dict())
    assert all(torch.equal(value, state[1][key]) for key, value in state[0].items())
    assert ours.phase.name == "critic"


def test_the_judges_rate_cools_down(fit: Fit, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = at_the_second_phase(critic_iterations=5, lr_judge=0.1, cooldown=0.4)
    rates: list[float] = []

    def note(network: str, *_: object) -> None:
        rates.extend(group["lr"] for group in detector._optimizer(network).param_groups)

    monkeypatch.setattr(detector, "step_optimizer", note)
    fit(detector, pictures, iterations=5)
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05])
    assert [group["lr"] for group in tiny(lr=0.3).configure_optimizers()[2].param_groups] == [0.3]
