"""What a discriminator sees instead of the images: by hand, by finite differences, and how p moves."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly_lab.networks import augmentation
from anomaly_lab.networks.augmentation import ADA, DiffAugment, FullADA

KINDS = ("diffaugment", "ada", "ada_bgc", "ada_medical")


def images(n: int = 6, channels: int = 1, side: int = 16) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def number(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def made(kind: str, p: float = 1.0) -> augmentation.Augmentation:
    module = augmentation.make(kind)
    if isinstance(module, ADA):
        module.p.fill_(p)
    return module


def test_none_returns_its_very_argument_and_draws_nothing() -> None:
    module, image, before = made("none"), images(), torch.get_rng_state()
    assert module(image)[0] is image
    assert torch.equal(torch.get_rng_state(), before)
    assert not module.state_dict()


def test_at_p_0_ada_is_the_identity_to_the_bit() -> None:
    for kind in KINDS[1:]:
        for image in (images(200), images(200, channels=3)):
            assert torch.equal(made(kind, p=0.0)(image)[0], image)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_changed_by_draws_of_its_own(kind: str, channels: int) -> None:
    image = images(1, channels).expand(50, -1, -1, -1)
    (changed,) = made(kind)(image)
    assert changed.shape == image.shape
    assert changed.isfinite().all()
    assert len(changed.unique(dim=0)) == 50
    assert not (changed == image).flatten(1).all(1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_and_no_image_depends_on_another(kind: str) -> None:
    module, image, other = made(kind), images(), images()
    other[1:] = 0
    torch.manual_seed(4)
    (once,) = module(image)
    torch.manual_seed(4)
    (again,) = module(other)
    torch.testing.assert_close(once[0], again[0])
    assert not torch.equal(once[1], again[1])


@pytest.mark.parametrize("kind", KINDS)
def test_images_given_together_are_changed_alike(kind: str) -> None:
    module, image = made(kind), images()
    one, copy, darker = module(image, image.clone(), image - 0.5)
    assert torch.equal(one, copy)
    assert not torch.equal(one, darker)
    assert not torch.allclose(module(image)[0], one)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_equal_finite_differences(kind: str, channels: int) -> None:
    module = made(kind)

    def changed(image: Tensor) -> Tensor:
        torch.manual_seed(2)
        result: Tensor = module(image)[0]
        return result

    image = images(2, channels, side=8).double().requires_grad_(True)
    assert torch.autograd.gradcheck(changed, (image,), eps=1e-4, atol=1e-6, fast_mode=True)
    assert torch.autograd.grad(changed(image).square().sum(), image)[0].flatten(1).any(1).all()


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "saturated": lambda image: augmentation.saturated(image, number(0.3, 1.7).double()),
    "contrasted": lambda image: augmentation.contrasted(image, number(0.5, 1.5).double()),
    "translated": lambda image: augmentation.translated(image, number(1, -2).long(), number(0, 2).long()),
    "cut_out": lambda image: augmentation.cut_out(image, number(0, 5).long(), number(3, 6).long()),
    "hue_rotated": lambda image: augmentation.hue_rotated(image, number(0.4, 2.0).double()),
    "warped": lambda image: augmentation.warped(image, 1.3 * augmentation.rotation(number(0.4, 2.0)) @ torch.eye(2, 3)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_of_each_operation_equal_finite_differences(name: str) -> None:
    image = images(2, 3, side=6).double().requires_grad_(True)
    assert torch.autograd.gradcheck(OPERATIONS[name], (image,), eps=1e-4, atol=1e-6, fast_mode=True)


def test_colours_by_hand() -> None:
    image = torch.tensor([0.0, 1.0, 0.2, 0.4]).view(1, 2, 1, 2)  # two channels, two pixels
    assert augmentation.saturated(image, number(2.0)).flatten().tolist() == pytest.approx([-0.1, 1.3, 0.3, 0.1])
    assert augmentation.contrasted(image, number(2.0)).flatten().tolist() == pytest.approx([-0.4, 1.6, 0.0, 0.4])


def test_translation_and_cut_out_by_hand() -> None:
    image = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    moved = augmentation.translated(image, number(1).long(), number(-1).long())
    assert moved[0, 0].tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]
    hidden = augmentation.cut_out(torch.ones(2, 1, 4, 4), number(2, 0).long(), number(2, 4).long())
    assert hidden[0, 0].tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    assert hidden[1, 0].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_warps_that_meet_the_pixels_are_exact() -> None:
    image = images(1, side=8)
    mirror = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    torch.testing.assert_close(augmentation.warped(image, mirror), image.flip(3))
    quarter = torch.cat([augmentation.rotation(number(torch.pi / 2)), torch.zeros(1, 2, 1)], 2)
    assert any(torch.allclose(augmentation.warped(image, quarter), image.rot90(k, (2, 3)), atol=1e-5) for k in (1, 3))
    down = torch.tensor([[[1.0, 0, 0], [0, 1, -2 * 2 / 8]]])
    torch.testing.assert_close(augmentation.warped(image, down)[:, :, 2:], image[:, :, :-2])


def test_each_transform_strikes_with_probability_p() -> None:
    module = made("ada", p=0.3)
    assert isinstance(module, ADA)
    struck = module.maybe(lambda: torch.rand(20_000, 1, 1, 1), torch.ones(()), 0.0).mean().item()
    assert struck == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("right", "moves"),
    [(100, +1), (90, +1), (79, -1), (50, -1), (0, -1)],  # of 100 reals taken for real: r = 1, .8, .58, 0, -1
)
def test_p_follows_the_sign_of_its_target(right: int, moves: int) -> None:
    module = made("ada", p=0.5)
    assert isinstance(module, ADA)
    signs = torch.ones(100)
    signs[right:] = -1
    for part in signs[torch.randperm(100)].split(30):
        module.track(part)
    module.adapt(share=0.0)
    assert module.p.item() - 0.5 == pytest.approx(moves * 100 / 500_000, rel=1e-3)
    assert not module.seen.any()
    before = module.p.clone()
    module.adapt(share=0.5)  # nothing was watched since
    assert torch.equal(module.p, before)


def test_p_is_a_probability_and_crosses_a_fifth_of_a_short_training() -> None:
    module = ADA()
    steps = 0
    while module.p < 1:
        module.track(torch.ones(16))
        module.adapt(share=0.01)
        steps += 1
    assert steps == pytest.approx(20, abs=1)
    for sign, bound in ((1, 1.0), (-1, 0.0)):
        for _ in range(30):
            module.track(torch.full((16,), float(sign)))
            module.adapt(share=0.01)
        assert module.p.item() == bound


def applied(monkeypatch: pytest.MonkeyPatch, module: FullADA, **wanted: float) -> tuple[Tensor, Tensor]:
    """Source coordinates of one image of 32 pixels, if the transforms that are named take these values."""
    names = ["mirror", "turn", "whole", "scale", "before", "stretch", "after", "fraction"]
    if module.medical:
        names.remove("turn")
    values = iter(names)

    def maybe(draw: object, value: Tensor, otherwise: float, p: Tensor | None = None) -> Tensor:
        return torch.full((1, 1, 1, 1), wanted.get(next(values), otherwise))

    def draw(distribution: object = torch.rand) -> Tensor:
        return torch.full((1, 1, 1, 1), wanted.get("step", 0.5) if distribution is torch.rand else wanted["part"])

    monkeypatch.setattr(module, "maybe", maybe)
    wanted.setdefault("part", 0.0)
    matrix, is_warped = module.matrix(draw, side=32)
    return matrix[0], is_warped


def test_the_transforms_are_the_matrices_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each moves a point of the picture; the source is found by the inverses, from the last to the first."""
    values = {"mirror": -1.0, "turn": math.pi / 2, "whole": 1.0, "scale": 1.3, "before": 0.4, "stretch": 0.8}
    values |= {"after": -0.7, "fraction": 1.0, "step": 1.0, "part": 0.6}
    found, is_warped = applied(monkeypatch, FullADA(), **values)

    def rotated(angle: float) -> np.ndarray:
        return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

    def moved(distance: float) -> np.ndarray:
        return np.array([[1, 0, distance], [0, 1, distance], [0, 0, 1]])

    forward = [
        np.diag([-1.0, 1, 1]),
        rotated(-math.pi / 2),
        moved(-2 * 4 / 32),  # an eighth of 32 pixels
        np.diag([1 / 1.3, 1 / 1.3, 1]),
        rotated(-0.4),
        np.diag([1 / 0.8, 0.8, 1]),
        rotated(0.7),
        moved(-2 * 0.125 * 0.6),
    ]
    expected = np.linalg.inv(np.linalg.multi_dot(forward[::-1]))
    np.testing.assert_allclose(found, expected[:2], atol=1e-6)
    assert is_warped.all()


@pytest.mark.parametrize("name", ["mirror", "turn", "whole", "scale", "before", "stretch", "after", "fraction"])
def test_every_transform_alone_moves_pixels(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    value = {"mirror": -1.0, "whole": 1.0, "fraction": 1.0}.get(name, 0.5)
    matrix, is_warped = applied(monkeypatch, FullADA(), **{name: value, "step": 1.0, "part": 0.3})
    assert is_warped.all()
    assert not torch.allclose(matrix, torch.eye(2, 3))
    matrix, is_warped = applied(monkeypatch, FullADA())
    assert not is_warped.any()
    torch.testing.assert_close(matrix, torch.eye(2, 3))


def test_one_of_two_rotations_strikes_with_probability_p() -> None:
    module, struck = FullADA(medical=True), []
    module.p.fill_(0.3)
    original = module.maybe

    def maybe(draw: Callable[..., Tensor], value: Tensor, otherwise: float, p: Tensor | None = None) -> Tensor:
        result = original(draw, value, otherwise, p)
        if p is not None:
            struck.append(result != 0)
        return result

    module.maybe = maybe  # type: ignore[method-assign]
    module(torch.zeros(4000, 1, 8, 8))
    before, after = struck
    assert (before | after).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_a_medical_image_stays_upright_in_quarters_and_bright_where_it_was() -> None:
    """At p = 1 with geometry that blits only: none of the medical pictures is a negative."""
    bright = torch.rand(400, 1, 16, 16) * 0.2 + 3
    negatives = {kind: (made(kind)(bright)[0].mean((1, 2, 3)) < 0).float().mean() for kind in KINDS[2:]}
    assert negatives["ada_medical"] == 0
    assert negatives["ada_bgc"].item() == pytest.approx(0.5, abs=0.1)


def test_hue_turns_colours_and_leaves_greys() -> None:
    colours = torch.eye(3).view(3, 3, 1, 1)
    third = torch.full((3, 1, 1, 1), 2 * math.pi / 3)
    torch.testing.assert_close(augmentation.hue_rotated(colours, third).flatten(1), torch.eye(3).roll(1, 1))
    grey = torch.full((1, 3, 2, 2), 0.4)
    torch.testing.assert_close(augmentation.hue_rotated(grey, third[:1]), grey)


@pytest.mark.parametrize("kind", KINDS)
def test_low_precision_does_not_reach_it(kind: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        (changed,) = made(kind)(images().bfloat16())
    assert changed.dtype == torch.float32


def test_a_checkpoint_holds_what_p_needs_and_nothing_of_it_is_a_weight() -> None:
    assert not DiffAugment().state_dict()
    assert set(ADA().state_dict()) == {"p", "seen"}
    assert not list(ADA().parameters())


def test_a_fixed_probability_counts_no_signs() -> None:
    """Nothing would ever set the count to 0 again, and several processes add theirs up: it grew to infinity."""
    ada = ADA()
    ada.fix(0.3)
    for _ in range(3):
        ada.track(torch.ones(8))
        ada.adapt(share=0.1)
    assert (ada.p.item(), ada.seen.tolist()) == (pytest.approx(0.3), [0.0, 0.0])
