"""The better rule is found without a label, the same every time, and what cannot be compared is said."""

import pytest
import torch
from torch import Tensor

from anomaly_lab.evaluation.planted import Trial, rank
from anomaly_lab.experiment.config import ScoreRule
from anomaly_lab.lesions.lesion import Lesion, Site
from anomaly_lab.lesions.planting import HELD_BACK, KINDS, TUNING, plant
from anomaly_lab.types import Batch, Prediction, UserError


class Bright(Lesion):
    def draw(self, site: Site) -> tuple[Tensor, Tensor]:
        return site.image + 0.3, site.ellipsoid((1.0, 1.0))


def normals(count: int = 8) -> Tensor:
    """Grainy, and of a brightness of their own."""
    random = torch.Generator().manual_seed(0)
    brightness = 0.4 * torch.rand(count, 1, 1, 1, generator=random) - 0.2
    return brightness + 0.05 * torch.randn(count, 1, 32, 32, generator=random)


def score(batch: Batch) -> Prediction:
    """It redraws the brightness, and judges by it."""
    level = batch["image"].mean((1, 2, 3))
    return Prediction(level, reconstruction=level.view(-1, 1, 1, 1).expand_as(batch["image"]))


RULES = {
    "own": ScoreRule(),
    "bright": ScoreRule("map", smooth=2.0, sign="bright", top=0.01),
    "dark": ScoreRule("map", smooth=2.0, sign="dark", top=0.01),
    "place": ScoreRule("map", smooth=2.0, sign="bright", standardise="place", top=0.01),
}


def test_the_side_on_which_lesions_lie_wins() -> None:
    ranked = rank(RULES, score, Trial(normals(), range(3), (Bright(),)), [normals(20)])
    place = {rule.name: rule.auroc for rule in ranked}
    assert ranked[0].name in ("bright", "place")
    assert place["bright"] > 0.85
    assert place["bright"] > place["own"] + 0.2
    assert place["bright"] > place["dark"] + 0.1  # a large lesion makes the copy brighter, so all else is dark
    assert [rule.auroc for rule in ranked] == sorted(place.values(), reverse=True)
    assert {*ranked[0].kinds} == {"bright"}
    assert ranked[0].deviation >= 0


def test_the_same_every_time_and_for_every_family() -> None:
    for kinds in (TUNING, HELD_BACK):
        trial = Trial(normals(4), (0, 1), kinds)
        assert rank(RULES, score, trial, [normals(6)]) == rank(RULES, score, trial, [normals(6)])
        assert {*rank(RULES, score, trial, [normals(6)])[0].kinds} == {kind.name for kind in kinds}
    assert len(KINDS) > len(TUNING)


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        (Trial(normals()[:0]), "there are none"),
        (Trial(normals(), ()), "there are none"),
        (Trial(normals(), (0,), ()), "there are none"),
        (Trial(torch.zeros(2, 1, 16, 16), (0,), tuple(kind for kind in KINDS if kind.name == "blur")), "they are flat"),
    ],
)
def test_what_cannot_be_compared_is_said(trial: Trial, said: str) -> None:
    with pytest.raises(UserError, match=said):
        rank({"own": ScoreRule()}, score, trial)


def test_the_lift_is_the_rise_of_a_normals_score_in_deviations() -> None:
    """The score is the mean, which a lesion raises by .3 of its share; the deviation is that of the normals' means."""
    image = normals()
    lesions = [plant(image, seed, (Bright(),), donors=image) for seed in range(2)]
    rises = [(each.image - image).mean((1, 2, 3)) for each in lesions]
    expected = torch.cat(rises).double().mean() / image.mean((1, 2, 3)).double().std()
    (found,) = rank({"own": ScoreRule()}, score, Trial(image, range(2), (Bright(),)))
    assert found.lift == pytest.approx(float(expected), rel=1e-4)
    assert found.lift > 0
