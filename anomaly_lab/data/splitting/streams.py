"""Named random streams: every kind of random choice about splits and samples has its own generator."""

from __future__ import annotations

from typing import Literal

import numpy as np

Stream = Literal[
    "split",
    "contaminated patients",
    "contaminated rows",
    "limits",
    "image sample",
    "data sheet",
    "balanced normals",
    "shares",
    "training order",
]
_KEYS: dict[Stream, tuple[int, ...]] = {
    "split": (),
    "contaminated patients": (1,),
    "contaminated rows": (2,),
    "limits": (3,),
    "image sample": (4,),
    "data sheet": (5,),
    "balanced normals": (6,),
    "shares": (7,),
    "training order": (),  # its passes share keys with the streams above; a separate key would change all results
}


def stream(seed: int, name: Stream, number: int | None = None) -> np.random.Generator:
    """Return a new generator for one kind of draw.

    Args:
        seed: the seed of the experiment, >= 0.
        name: what is drawn; except for the training order, whose passes 0, 1, … share them with the other names.
        number: index of the draw, if there are several of this kind.

    Examples:
        >>> first, second = stream(0, "split"), stream(0, "split")
        >>> bool((first.permutation(10) == second.permutation(10)).all())
        True
    """
    key = [seed, *_KEYS[name], *([] if number is None else [number])]
    return np.random.default_rng(key if len(key) > 1 else seed)
