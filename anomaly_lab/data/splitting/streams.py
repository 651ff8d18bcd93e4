"""Named random streams: every draw about who trains and what is shown has a generator of its own."""

from __future__ import annotations

from typing import Literal

import numpy as np

Stream = Literal[
    "split", "contaminated patients", "contaminated rows", "limits", "image sample", "data sheet", "training order"
]
_KEYS: dict[Stream, tuple[int, ...]] = {
    "split": (),
    "contaminated patients": (1,),
    "contaminated rows": (2,),
    "limits": (3,),
    "image sample": (4,),
    "data sheet": (5,),
    "training order": (),  # its passes 0, 1, 2, … meet the streams above; to part them would move every trained number
}


def stream(seed: int, name: Stream, number: int | None = None) -> np.random.Generator:
    """A fresh generator for one kind of draw.

    Args:
        seed: of the experiment, >= 0.
        name: what is drawn; but for the training order, two names never share numbers.
        number: which draw of that kind, where there are several.
    """
    key = [seed, *_KEYS[name], *([] if number is None else [number])]
    return np.random.default_rng(key if len(key) > 1 else seed)
