"""Low-pass PCA: PCA-32 of blurred images; lesions planted on training normals choose how blurred."""

import torch
from torch import Tensor

from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.pca_32 import COMPONENTS, PCA32
from anomaly_lab.lesions.planting import plant
from anomaly_lab.metrics.ranking import auroc
from anomaly_lab.networks.low_pass import low_pass
from anomaly_lab.networks.subspace import principal_axes, residual

WIDTHS = (1, 2, 3, 4)  # standard deviations to choose from, in 64ths of the shorter side
USUAL = 2  # where there are too few or too small images to choose
LEAST_IMAGES, LEAST_SIDE = 6, 8
FOLDS = 3
CHOOSING = 150  # training normals that are enough to choose by


class LowPassPCA(PCA32):
    """PCA-32 after a Gaussian blur.

    Fine detail is explained by no axis, in normals and in lesions alike; without it larger lesions stand out. The
    width of the blur is the one by which lesions planted on training normals are told best from the same normals, as
    held-out folds that trained no axis; lesions and folds are the same for all widths.

    Examples:
        >>> baseline = LowPassPCA()
        >>> baseline.fit(torch.rand(4, 1, 16, 16), Facts())
        >>> baseline.note
        'blur of 0.5 pixels, too few training normals to choose'
    """

    title, noun = "PCA-32 after a blur", "blurred PCA-32"
    rule = (
        "squared error of the reconstruction from 32 principal components after a Gaussian blur, whose width is "
        "chosen by lesions planted on training normals"
    )

    def fit(self, normals: Tensor, facts: Facts) -> None:
        side = min(normals.shape[2:])
        widths = [width * side / 64 for width in WIDTHS]
        if len(normals) < LEAST_IMAGES or side < LEAST_SIDE:
            self.sigma = USUAL * side / 64
            few = "few" if len(normals) < LEAST_IMAGES else "small"
            self.note = f"blur of {self.sigma:g} pixels, too {few} training normals to choose"
        else:
            chosen = normals[torch.linspace(0, len(normals) - 1, min(CHOOSING, len(normals))).long()]
            found = separations(chosen, widths)
            self.sigma = max(widths, key=lambda width: found[width])
            tried = ", ".join(f"{width:g} ({found[width]:.3f})" for width in widths)
            self.note = (
                f"blur of {self.sigma:g} pixels, chosen by lesions planted on {len(chosen)} training normals; widths "
                f"tried, with their AUROC: {tried}"
            )
        super().fit(low_pass(normals, self.sigma), facts)

    def _residual(self, image: Tensor) -> Tensor:
        return super()._residual(low_pass(image[None], self.sigma)[0])


def separations(normals: Tensor, widths: list[float]) -> dict[float, float]:
    """Return how well PCA after a blur of each width tells planted lesions from normals, as a mean AUROC over folds.

    Args:
        normals: [n, C, *S], in the order of the files: neighbours stay in one fold, since they may be one patient's.
        widths: standard deviations of the blur, pixels.
    """
    lesions, total = plant(normals, seed=0).image, dict.fromkeys(widths, 0.0)
    folds = torch.arange(len(normals)).chunk(FOLDS)
    for width in widths:
        x, planted = low_pass(normals, width).flatten(1), low_pass(lesions, width).flatten(1)
        for held_out in folds:
            trains = torch.ones(len(x), dtype=torch.bool)
            trains[held_out] = False
            mean = x[trains].mean(0, dtype=torch.float64)
            axes = principal_axes(x[trains], mean, COMPONENTS)
            both = torch.cat([x[held_out], planted[held_out]])
            score = residual(both, mean, axes).square().mean(1).numpy()
            label = torch.arange(len(both)).ge(len(held_out)).long().numpy()
            total[width] += auroc(label, score) / len(folds)
    return total
