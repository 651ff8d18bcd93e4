"""The argument augment_d, asked of every experiment's detector that takes it: whoever adds one is asked too."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from toys import Fit, smooth

from anomaly_lab.callbacks.randomness import Randomness
from anomaly_lab.detectors.dcgan import DCGAN
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.gan import ADAPT_EVERY
from anomaly_lab.detectors.wgan import WGAN
from anomaly_lab.experiment import compose, config
from anomaly_lab.networks.augmentation import Augmentation

FAR = 100.0  # added to every image that is augmented
ADVERSARIES = ("critic", "discriminator", "judge")
SIZES: dict[str, Any] = {"patch_size": (32, 32), "width": 2, "latent_dim": 4}


def _takers() -> list[str]:
    """An experiment for every detector that takes the argument."""
    names = [f"{detector}_abmnist" for detector in compose.detectors()]
    return [name for name in names if "augment_d" in config.load(name, ["budget=smoke"]).detector]


def make(name: str, augment_d: str) -> Detector:
    settings = config.load(name, ["budget=smoke", "data.patch_size=[32,32]", f"detector.augment_d={augment_d}"])
    torch.manual_seed(0)
    detector: Detector = config.build(settings.detector)
    return detector


class Shifted(Augmentation):
    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return tuple(image + FAR for image in images)


@pytest.mark.parametrize("name", _takers())
def test_its_discriminators_see_augmented_images_alone(name: str, fit: Fit) -> None:
    """Real and fake, in the losses of both networks and in penalties; a frozen one may see images as they are."""
    detector, done = make(name, "none"), 0
    detector.augmentation = Shifted()
    seen: list[Tensor] = []

    def look(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.extend(image.detach().mean() for image in inputs if image.shape[1:] == (1, 32, 32))

    for module_name, module in detector.named_modules():
        if module_name.startswith(ADVERSARIES):
            module.register_forward_pre_hook(look)
    for phase in detector.schedule:
        detector.load_state_dict({**detector.state_dict(), "iteration": torch.tensor(done)})
        if any(network.startswith(ADVERSARIES) for network in phase.networks):
            fit(detector, smooth(12, seed=0), iterations=1)
        done += phase.iterations
    assert len(seen) >= 3
    assert min(seen) > FAR / 2


@pytest.mark.parametrize("name", _takers())
@pytest.mark.parametrize("augment_d", ["diffaugment", "ada"])
def test_it_trains_and_scores_unaugmented(name: str, augment_d: str, fit: Fit) -> None:
    detector = fit(make(name, augment_d), smooth(12, seed=0), iterations=2)
    image = smooth(5, seed=1)
    scores = [detector.score({"image": image}).anomaly_score for _ in range(2)]
    assert torch.equal(*scores)
    assert torch.isfinite(scores[0]).all()
    discriminator_output = detector.discriminator_output(image)
    assert discriminator_output is None or discriminator_output.shape == (5,)


@pytest.mark.parametrize("name", _takers())
def test_by_default_nothing_is_there_to_change_a_number(name: str) -> None:
    detector, image = make(name, "none"), smooth(2, seed=0)
    assert detector.augmented(image) is image
    assert not [key for key in detector.state_dict() if key.startswith("augmentation")]


class Stubborn(nn.Module):
    """Says the same of every image, whatever it learns."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.weight, self.logit = nn.Parameter(torch.zeros(())), logit

    def forward(self, image: Tensor) -> Tensor:
        return self.weight * image.flatten(1).sum(1) + self.logit


def test_a_loss_compares_images_that_were_changed_alike() -> None:
    torch.manual_seed(0)
    image = smooth(4, seed=0)
    one, other = WGAN(**SIZES, augment_d="diffaugment").augmented_alike(image, image.clone())
    assert torch.equal(one, other)


@pytest.mark.parametrize(("sign", "end"), [(1.0, "up"), (-1.0, "down")])
def test_p_follows_the_discriminator_while_it_trains(sign: float, end: str, fit: Fit) -> None:
    torch.manual_seed(0)
    detector = DCGAN(**SIZES, gan_iterations=40, lr=0.0, augment_d="ada")
    detector.augmentation.p.fill_(0.5)
    detector.discriminator = Stubborn(sign)
    fit(detector, smooth(12, seed=0), iterations=ADAPT_EVERY - 1)
    assert detector.augmentation.p == 0.5  # it moves every fourth iteration
    assert detector.augmentation.seen.tolist() == [4 * 3 * sign, 4 * 3]
    fit(detector, smooth(12, seed=0), iterations=1)
    assert (detector.augmentation.p > 0.5) == (end == "up")
    assert "train/augment_p" in detector.flush()


def test_p_follows_what_all_ranks_have_seen_not_one(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = DCGAN(**SIZES, gan_iterations=40, augment_d="ada")
    elsewhere = torch.tensor([-60.0, 60.0])  # signs of the other rank, all of them negative

    def reduce(value: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        return value + elsewhere

    trainer = SimpleNamespace(world_size=2, strategy=SimpleNamespace(reduce=reduce))
    monkeypatch.setattr(DCGAN, "trainer", trainer)
    detector.augmentation.p.fill_(0.5)
    detector.augmentation.track(torch.ones(12))
    detector._adapt(0.01)
    assert detector.augmentation.p < 0.5
    assert not detector.augmentation.seen.any()


def test_a_critics_zero_is_the_middle_between_reals_and_fakes() -> None:
    detector = WGAN(**SIZES, augment_d="ada")
    detector.track_discriminator(
        torch.tensor([11.0, 12.0, 14.0]), torch.tensor([9.0, 10.0])
    )  # means 12.33 and 9.5: zero is 10.9
    detector.track_discriminator(torch.tensor([10.0, 9.0]), torch.tensor([9.0, 10.0]))
    assert detector.augmentation.seen.tolist() == [3 + 0, 5]
    detector.track_discriminator(torch.tensor([0.1, -0.1, -0.2]))  # logits
    assert detector.augmentation.seen.tolist() == [2, 8]


def _train(detector: WGAN, until: int) -> list[dict[str, Any]]:
    """From where the detector is; returns the optimisers' states."""
    begun = detector.iterations_done
    batches = [{"image": smooth(12, seed=i)[None]} for i in range(begun, until)]
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[Randomness(0)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(detector, DataLoader(batches, batch_size=None))
    return [copy.deepcopy(optimizer.state_dict()) for optimizer in trainer.optimizers]


def test_killed_and_resumed_it_ends_in_the_same_bits() -> None:
    """Killed between two moves of p."""

    class Resumed(WGAN):
        def on_train_start(self) -> None:
            for optimizer, saved in zip(self.trainer.optimizers, optimizers, strict=True):
                optimizer.load_state_dict(saved)

    settings: dict[str, Any] = {**SIZES, "n_critic": 1, "gan_iterations": 10, "augment_d": "ada"}
    torch.manual_seed(0)
    whole = WGAN(**settings)
    whole.augmentation.p.fill_(0.4)
    start = copy.deepcopy(whole.state_dict())
    _train(whole, 10)
    killed = WGAN(**settings)
    killed.load_state_dict(start)
    optimizers = _train(killed, 6)
    assert killed.augmentation.p != 0.4
    assert killed.augmentation.seen.any()
    resumed = Resumed(**settings)
    resumed.load_state_dict(killed.state_dict())
    _train(resumed, 10)
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.state_dict().items())
