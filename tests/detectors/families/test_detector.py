"""The contract's bookkeeping, on a detector small enough to follow by hand."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer, RMSprop
from torch.utils.data import DataLoader, Dataset
from toys import Fit, Shift

from anomaly_lab import detectors
from anomaly_lab.detectors.families import detector as detector_module
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.types import Batch, Phase, Prediction, UserError

COUPLED: dict[str, Callable[[], Detector]] = {
    "spread of a critic": lambda: detectors.WGAN((32, 32), width=4, concentration_weight=1.0),
    "critic with ADA": lambda: detectors.FAnoGAN((32, 32), width=4, augment_d="ada"),
    "quantile of distances": lambda: detectors.DeepSVDD((32, 32), objective="soft-boundary"),
    "weights of classes": lambda: detectors.Classifier((64, 64), backbone="squeezenet1_0", weigh_classes=True),
    "known targets": lambda: detectors.CHR((64, 64), backbone="squeezenet1_0", classes=("gun", "knife")),
}
APART: dict[str, Callable[[], Detector]] = {
    "critic": lambda: detectors.WGAN((32, 32), width=4),
    "critic with fixed augmentation": lambda: detectors.FAnoGAN((32, 32), width=4, augment_d="diffaugment"),
    "mean of distances": lambda: detectors.DeepSVDD((32, 32)),
    "classes": lambda: detectors.Classifier((64, 64), backbone="squeezenet1_0"),
}


@pytest.mark.parametrize("name", [*COUPLED, *APART])
def test_what_couples_the_images_of_a_mini_batch_is_known(name: str) -> None:
    """Several processes see other mini-batches, so that a run is not resumed under another number of them unasked."""
    assert (COUPLED | APART)[name]().couples_batch == (name in COUPLED)


@pytest.mark.parametrize(
    ("detector", "joined"),
    [
        (lambda: detectors.GBAD((64, 64), backbone="squeezenet1_0", classes=("gun", "knife")), 4 * 6),
        (lambda: detectors.HQAnoGAN((32, 32), width=2, latent_dim=8, backbone="resnet18", encoder_width=2), 3),
    ],
)
def test_processes_draw_other_noise_for_joined_and_for_halved_batches(
    detector: Callable[[], Detector], joined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GBAD joins its mini-batches of six, HQ-AnoGAN's path length takes half of one."""
    made, seen = detector(), []
    for rank in (0, 1):
        trainer = SimpleNamespace(world_size=2, global_rank=rank)
        monkeypatch.setattr(type(made), "trainer", trainer, raising=False)
        torch.manual_seed(0)
        with made._shared_draws(6):
            seen.append(torch.randn(joined, 5))
    assert not (seen[0][:, None] == seen[1][None]).all(2).any()


def test_an_iteration_takes_its_minibatches_in_turn(fit: Fit) -> None:
    detector = fit(Shift(), torch.arange(16.0).reshape(16, 1, 1, 1), iterations=3)
    assert len(detector.seen) == 6
    assert len({tuple(batch.flatten().tolist()) for batch in detector.seen}) == 6
    expected = 0.0
    for batch in detector.seen:
        expected -= 0.1 * 2 * (expected - batch.mean().item())
    assert detector.near.weight.item() == pytest.approx(expected, rel=1e-5)


def test_only_the_phases_networks_move(fit: Fit) -> None:
    detector = fit(Shift(), torch.ones(16, 1, 1, 1), iterations=3)
    near = detector.near.weight.clone()
    assert near.item() != 0
    assert detector.far.weight.item() == 0
    whole = fit(Shift(), torch.ones(16, 1, 1, 1))
    assert whole.near.weight.item() == near.item()
    assert whole.far.weight.item() != 0


def test_the_phase_is_known_after_loading(fit: Fit) -> None:
    detector = fit(Shift(), torch.ones(16, 1, 1, 1), iterations=4)
    assert (detector.iterations_done, detector.phase.name, detector.ready) == (4, "far", True)
    fresh = Shift()
    assert (fresh.iterations_done, fresh.phase.name, fresh.ready) == (0, "near", False)
    fresh.load_state_dict(detector.state_dict())
    assert (fresh.iterations_done, fresh.phase.name) == (4, "far")


class Misfit(Shift):
    """Its networks or optimisers are wrong in the way its subclass says."""

    def __init__(self) -> None:
        super().__init__()
        self.near.bias = nn.Parameter(torch.zeros(1))  # two parameters, so that one may be missing


class Swapped(Misfit):
    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        near, far = super().configure_optimizers()
        return far, near


class Partial(Misfit):
    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return SGD([self.near.weight], self.lr), SGD(self.far.parameters(), self.lr)


class Greedy(Misfit):
    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return SGD(self.parameters(), self.lr), SGD(self.far.parameters(), self.lr)


class TooFew(Misfit):
    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return (SGD(self.near.parameters(), self.lr),)


class TooMany(Misfit):
    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return (*super().configure_optimizers(), SGD(self.far.parameters(), self.lr))


class Frozen(Misfit):
    def __init__(self) -> None:
        super().__init__()
        self.near.bias.requires_grad_(False)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Swapped, "network 'near' lacks 2 of its 2 parameters and has 1 others: .* order of `networks`"),
        (Partial, "network 'near' lacks 1 of its 2 parameters and has 0 others"),
        (Greedy, "network 'near' lacks 0 of its 2 parameters and has 1 others"),
        (TooFew, "network 'far' has 1 parameters to train and no optimiser"),
        (TooMany, "returns more optimisers than there are networks"),
        (Frozen, "network 'near' has 1 frozen parameters, which `step_optimizer` would unfreeze"),
    ],
)
def test_optimisers_that_do_not_fit_the_networks_are_refused(fit: Fit, kind: type[Shift], fault: str) -> None:
    with pytest.raises(RuntimeError, match=f"{kind.__name__}: .*{fault}"):
        fit(kind(), torch.ones(16, 1, 1, 1))


class WithMachine(Shift):
    """Its last network learns without gradients."""

    networks = ("near", "far", "machine")

    def __init__(self) -> None:
        super().__init__()
        self.machine = nn.BatchNorm1d(1, affine=False)


def test_networks_without_parameters_need_no_optimiser_and_a_second_fit_is_no_misfit(fit: Fit) -> None:
    detector = WithMachine()
    for iterations in (3, 2):  # in the second one the weights of `far` are found frozen: it is not its turn
        fit(detector, torch.ones(16, 1, 1, 1), iterations=iterations)
    assert detector.far.weight.item() != 0


@pytest.mark.parametrize("accumulate", [2, 3, 4])
def test_accumulation_equals_one_large_batch(fit: Fit, accumulate: int) -> None:
    """The loss is a mean over the batch, so parts are weighted by their length, the last one shorter or not."""

    class Mean(Shift):
        def near_step(self, batches: Tensor) -> None:
            for batch in batches:
                self.step_optimizer("near", lambda x: (self.near.weight - x.flatten(1)).square().mean(), batch)

    images = torch.randn(16, 1, 1, 1)
    parts = Mean()
    parts.accumulate = accumulate
    once, summed = fit(Mean(), images, iterations=3), fit(parts, images, iterations=3)
    torch.testing.assert_close(summed.near.weight, once.near.weight)


@pytest.mark.parametrize(
    ("images", "accumulate", "normalised", "sizes"),
    [
        (16, 5, False, [4, 3, 3, 3, 3]),  # as many as asked for
        (5, 4, False, [2, 1, 1, 1]),
        (5, 4, True, [3, 2]),  # batch norm of a single vector would fail
        (3, 4, True, [3]),
        (3, 8, False, [1, 1, 1]),
    ],
)
def test_parts_are_nearly_equal_and_large_enough(
    images: int, accumulate: int, normalised: bool, sizes: list[int]
) -> None:
    detector = Shift()
    if normalised:
        detector.far = nn.Sequential(detector.far, nn.BatchNorm1d(1))
    detector.accumulate = accumulate
    assert [len(part) for part in torch.empty(images).tensor_split(detector._parts(images))] == sizes


def test_clipping_bounds_the_step(fit: Fit) -> None:
    detector = Shift(lr=1.0)
    detector.clip_norm = 0.01
    fit(detector, torch.full((16, 1, 1, 1), 100.0), iterations=1)
    assert detector.near.weight.item() == pytest.approx(2 * 0.01, rel=1e-3)  # two steps of length 0.01


def test_tracked_terms_are_means_since_the_last_flush() -> None:
    detector = Shift()
    detector.track({"train/a": torch.tensor(1.0)})
    detector.track({"train/a": torch.tensor(4.0), "train/b": torch.tensor(3.0)})
    assert detector.flush() == {"train/a": 2.5, "train/b": 3.0}
    assert detector.flush() == {}


def test_a_flush_asks_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, asked = Shift(), []
    detector.track({f"train/{i}": torch.tensor(float(i)) for i in range(20)})
    whole = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda self: asked.append(self.shape) or whole(self))
    monkeypatch.setattr(Tensor, "__float__", lambda self: pytest.fail("each value is asked for by itself"))
    assert detector.flush() == {f"train/{i}": i for i in range(20)}
    assert asked == [(20,)]


def test_low_precision_steps_see_the_weights_of_the_step_before(fit: Fit) -> None:
    """n_critic steps must not share one stale copy of the weights.

    Plain autocast keeps bfloat16 copies for a whole training_step; Lightning 2.6.6 switches that cache off.
    """

    class Layer(Shift):
        def near_step(self, batches: Tensor) -> None:
            for batch in batches:
                self.step_optimizer("near", lambda x: (self.near(x.flatten(1)) - 1).square().mean(), batch)

    detector = fit(Layer(lr=0.25), torch.ones(16, 1, 1, 1), iterations=1, precision="bf16-mixed")
    # w = 0 → 0.5 → 0.75; with a stale second step it would be 1.0
    assert detector.near.weight.item() == pytest.approx(0.75, abs=0.01)


def test_gradients_flow_in_the_types_of_the_forward_pass(fit: Fit) -> None:
    """Autocast left on would round a float32 penalty's gradient on its way back."""
    seen: list[tuple[bool, bool]] = []

    class Watching(Shift):
        def near_step(self, batches: Tensor) -> None:
            self.step_optimizer("near", self.watched, batches[0])

        def watched(self, x: Tensor) -> Tensor:
            value = self.near(x.flatten(1)).float()
            forward = torch.is_autocast_enabled("cpu")
            value.register_hook(lambda _: seen.append((forward, torch.is_autocast_enabled("cpu"))))
            return value.square().mean()

    fit(Watching(), torch.ones(16, 1, 1, 1), iterations=1, precision="bf16-mixed")
    assert seen == [(True, False)]


def test_a_score_is_in_float32_and_eval_mode() -> None:
    class Kinds(Shift):
        def predict(self, image: Tensor) -> Prediction:
            assert not self.near.training
            return Prediction(self.near(image.flatten(1)).squeeze(1))

    detector = Kinds().train()
    with torch.autocast("cpu", torch.bfloat16):
        score = detector.score({"image": torch.ones(2, 1, 1, 1)}).anomaly_score
    assert score.dtype == torch.float32


def test_a_copy_is_independent() -> None:
    """The hook that reads the counter belongs to the module it is called with, not to the one it was made on."""
    detector = Shift()
    twin = copy.deepcopy(detector)
    twin.load_state_dict({**detector.state_dict(), "iteration": torch.tensor(3)})
    assert (detector.iterations_done, twin.iterations_done) == (0, 3)


def test_optimisers_are_fused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(Shift):
        def configure_optimizers(self) -> tuple[Optimizer, ...]:
            return Adam(self.near.parameters()), RMSprop(self.far.parameters())

    def fused(is_cuda: bool) -> list[object]:
        monkeypatch.setattr(Tensor, "is_cuda", property(lambda self: is_cuda))
        detector: Any = Two()
        optimizers = [LightningOptimizer(each) for each in detector.configure_optimizers()]
        detector._every_optimizer = lambda: optimizers
        detector.on_fit_start()
        return [each.param_groups[0].get("fused") for each in optimizers]

    assert fused(is_cuda=True) == [True, None]  # there is no such RMSprop
    assert fused(is_cuda=False) == [None, None]


def test_a_training_rounds_and_a_score_does_not(monkeypatch: pytest.MonkeyPatch, fit: Fit, pictures: Tensor) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(detector_module, "rounding", lambda device, strict: asked.append(strict) or nullcontext())
    detector = fit(Shift(), pictures, iterations=2)
    assert asked == [False, False]
    detector.score({"image": pictures})
    assert asked == [False, False, True]


def test_only_one_process_compiles() -> None:
    detector: Any = Shift()
    detector.compilation, detector._trainer = {}, SimpleNamespace(world_size=2)
    with pytest.raises(UserError, match="one process"):
        detector._compile()


class Labelled(Shift):
    """Learns the mean target of the class in its second phase, from labelled cases."""

    supervised = True

    def phases(self) -> tuple[Phase, ...]:
        near, far = super().phases()
        return near, far._replace(cases="all")

    def near_step(self, batches: Tensor, targets: Tensor) -> None:  # type: ignore[override]
        self.seen += [batches, targets]

    def far_step(self, batches: Tensor, targets: Tensor) -> None:  # type: ignore[override]
        def loss(image: Tensor, target: Tensor) -> Tensor:
            self.seen.append(target)
            return (self.far.weight - target.float().mean() - 0 * image.mean()).square().sum()

        self.step_optimizer("far", loss, batches[0], targets[0])


def _trained_on_one_batch(detector: Labelled, phase: str, batch: Batch) -> None:
    class Loader(Dataset[Batch]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, i: int) -> Batch:
            return batch

    detector.iterations_done = detector.schedule.span(phase).start
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(detector, DataLoader(Loader(), batch_size=None))


def test_a_supervised_step_gets_the_targets_of_its_batches() -> None:
    batch = Batch(image=torch.rand(2, 4, 1, 2, 2), target=torch.arange(16, dtype=torch.int8).reshape(2, 4, 2))
    detector = Labelled()
    _trained_on_one_batch(detector, "near", batch)
    assert torch.equal(detector.seen[0], batch["image"])
    assert torch.equal(detector.seen[1], batch["target"])


def test_targets_are_split_with_their_images_and_the_step_is_the_same() -> None:
    batch = Batch(image=torch.rand(1, 4, 1, 2, 2), target=torch.tensor([[[1], [0], [1], [1]]], dtype=torch.int8))
    moved = []
    for parts in (1, 2, 4):
        detector = Labelled()
        detector.accumulate = parts
        _trained_on_one_batch(detector, "far", batch)
        assert [len(part) for part in detector.seen] == [4 // parts] * parts
        moved.append(detector.far.weight.item())
    assert moved == pytest.approx([0.15] * 3)  # lr .1 · 2 · the mean target .75


def test_a_detector_that_is_not_supervised_can_ask_for_no_anomaly() -> None:
    class Greedy(Labelled):
        supervised = False

    with pytest.raises(UserError, match="Greedy: phase 'far' draws labelled anomalies"):
        Greedy().refuse_gaps()
    Labelled().refuse_gaps()


def test_targets_do_not_reach_a_detector_that_is_not_supervised(fit: Fit) -> None:
    detector = Shift()
    batch = Batch(image=torch.ones(2, 4, 1, 2, 2), target=torch.ones(2, 4, 1, dtype=torch.int8))
    _trained_on_one_batch(detector, "near", batch)  # type: ignore[arg-type]
    assert len(detector.seen) == 2
    assert all(seen.shape == (4, 1, 2, 2) for seen in detector.seen)
