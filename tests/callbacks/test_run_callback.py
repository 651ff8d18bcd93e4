"""RunCallback: silent unless a subclass says otherwise, and suspected unless it declares itself harmless."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from anomaly_lab.callbacks.run_callback import RunCallback, changes_scores


def test_a_callback_that_says_nothing_may_change_scores() -> None:
    class Harmless(RunCallback):
        changes_scores = False

    assert [changes_scores(kind) for kind in (pl.Callback, RunCallback, Harmless)] == [True, True, False]


def test_by_default_it_takes_no_part() -> None:
    callback, nobody = RunCallback(), None
    anything: Any = nobody
    assert callback.caveat is None
    assert callback.checkpoint_choice() is None
    assert callback.scored_columns(anything, anything, anything) == {}
    callback.on_scored(Path(), anything, anything, {})
    callback.on_run_end(Path())
