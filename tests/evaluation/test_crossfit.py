"""Cross-fitted normals: no score of a fit that has seen the patient."""

import numpy as np
import pytest
import torch

from anomaly_lab.evaluation.baselines.fitted import Baselines
from anomaly_lab.evaluation.crossfit import FOLDS, cross_fitted, folds
from anomaly_lab.types import UserError


def test_no_fit_has_seen_the_patient_that_it_scores() -> None:
    patient = [f"p{i // 3:02}" for i in range(60)]
    number = np.array([int(name[1:]) for name in patient])
    images = torch.from_numpy(number).float().view(-1, 1, 1, 1)

    def fit(kept: np.ndarray):
        seen = set(images[torch.from_numpy(kept)].flatten().tolist())
        return lambda image: {"seen": np.array([float(value in seen) for value in image.flatten().tolist()])}

    assert cross_fitted(images, patient, fit)["seen"].tolist() == [0.0] * 60


def test_folds_are_even_runs_of_patients() -> None:
    found = folds([f"{i:03}" for i in range(67)])
    assert (np.diff(found) >= 0).all()
    assert set(np.bincount(found)) == {6, 7}
    assert found.max() + 1 == FOLDS


def test_one_patient_cannot_be_held_out() -> None:
    with pytest.raises(UserError, match="two patients or more"):
        cross_fitted(torch.zeros(4, 1, 1, 1), ["a"] * 4, lambda _: lambda image: {"": np.zeros(len(image))})


def test_cross_fitted_normals_score_as_new_ones_do_and_trained_ones_lower() -> None:
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(100, 1, 6, 6))).float()
    train, new = images[:60], images[60:]

    def fit(kept: np.ndarray):
        fitted = Baselines.fit([train[torch.from_numpy(kept)]])
        return lambda image: {name: values.numpy() for name, values in fitted.scores([image]).items()}

    held_out = cross_fitted(train, [str(i) for i in range(60)], fit)["pca_32"].mean()
    seen, unseen = (fit(np.ones(60, bool))(part)["pca_32"].mean() for part in (train, new))
    assert seen < 0.5 * unseen
    assert held_out == pytest.approx(unseen, rel=0.35)
