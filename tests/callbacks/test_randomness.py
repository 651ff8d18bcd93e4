"""An iteration's randomness is a pure function of seed, iteration and rank."""

import random
from types import SimpleNamespace

import numpy as np
import torch
from toys import Shift

from anomaly_lab.callbacks.randomness import Randomness


def draws(seed: int, iteration: int, rank: int) -> tuple[float, float, float]:
    detector = Shift()
    detector.iterations_done = iteration
    Randomness(seed).on_train_batch_start(SimpleNamespace(global_rank=rank), detector, None, 0)
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_same_place_same_numbers() -> None:
    assert draws(1, 5, 0) == draws(1, 5, 0)


def test_other_place_other_numbers() -> None:
    places = [draws(*place) for place in ((1, 5, 0), (2, 5, 0), (1, 6, 0))]
    for numbers in zip(*places, strict=True):
        assert len(set(numbers)) == len(places)


def test_all_processes_have_the_same_numbers() -> None:
    """Of which `SharedDraws` gives each its rows."""
    assert draws(1, 5, 0) == draws(1, 5, 1)
