"""The blur before PCA, and that no test image has a say in its width."""

import pytest
import torch
import torch.nn.functional as F

from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.low_pass_pca import WIDTHS, LowPassPCA, separations
from anomaly_lab.evaluation.baselines.pca_32 import PCA32
from anomaly_lab.networks.low_pass import low_pass


def normals(n, noise, seed=0):
    """Blends of coarse patterns with fine noise, [n, 1, 32, 32]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.rand(n, 1, 4, 4, generator=generator) - 0.5, size=32, mode="bilinear")
    return (coarse + noise * torch.randn(n, 1, 32, 32, generator=generator)).clamp(-1, 1)


def test_it_is_pca_of_blurred_images():
    train, image = normals(40, 0.1), normals(1, 0.1, seed=1)[0]
    baseline, plain = LowPassPCA(), PCA32()
    baseline.fit(train, Facts())
    plain.fit(low_pass(train, baseline.sigma), Facts())
    assert baseline.sigma in {width / 2 for width in WIDTHS}
    assert baseline.score(image) == plain.score(low_pass(image[None], baseline.sigma)[0])


def test_a_width_that_hides_noise_tells_planted_lesions_better():
    found = separations(normals(60, 0.05), [0.01, 1.5])
    assert found[1.5] > found[0.01] + 0.05


def test_the_width_with_the_best_separation_is_chosen_and_said(monkeypatch):
    monkeypatch.setattr(
        "anomaly_lab.evaluation.baselines.low_pass_pca.separations",
        lambda images, widths: {width: 0.9 if width == 1.5 else 0.6 for width in widths},
    )
    baseline = LowPassPCA()
    baseline.fit(normals(10, 0.1), Facts())
    assert baseline.sigma == 1.5
    assert "1.5 (0.900)" in baseline.note


def test_the_planted_normals_do_not_train_the_axes(monkeypatch):
    """Folds of neighbours, none of which is among the images that its axes come from."""
    trained = []
    from anomaly_lab.evaluation.baselines import low_pass_pca as module

    axes_of = module.principal_axes
    monkeypatch.setattr(
        module, "principal_axes", lambda x, mean, count: (trained.append(x), axes_of(x, mean, count))[1]
    )
    images = normals(9, 0.1)
    separations(images, [1.0])
    rows = low_pass(images, 1.0).flatten(1)
    for fold, x in enumerate(trained):
        kept = [i for i in range(9) if not 3 * fold <= i < 3 * fold + 3]
        assert torch.equal(x, rows[kept])


@pytest.mark.parametrize(("shape", "said"), [((3, 1, 32, 32), "few"), ((20, 1, 4, 4), "small")])
def test_too_few_or_too_small_images_take_the_usual_width(shape, said):
    baseline = LowPassPCA()
    baseline.fit(torch.rand(shape), Facts())
    assert baseline.sigma == 2 * shape[-1] / 64
    assert said in baseline.note


def test_the_choice_is_always_the_same():
    first, again = LowPassPCA(), LowPassPCA()
    first.fit(normals(30, 0.2), Facts())
    again.fit(normals(30, 0.2), Facts())
    assert first.note == again.note
