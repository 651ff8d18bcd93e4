"""Where there is no terminal a line says how far a phase or the judging is."""

import re
import subprocess
import sys
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from anomaly_lab.callbacks import progress
from anomaly_lab.callbacks.progress import Meter, ProgressBar
from anomaly_lab.detectors.fanogan import FAnoGAN


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Any:
    data = SimpleNamespace(batch_size=8, scoring_batch_size=64)
    monkeypatch.setattr(progress, "data_of", lambda trainer: data)
    return SimpleNamespace()


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Lines, without their speeds and seconds."""
    return [re.sub(r", [\d,]+ images/s.*", "", line) for line in capsys.readouterr().err.splitlines()]


def at(detector: FAnoGAN, iteration: int) -> None:
    detector.load_state_dict({**detector.state_dict(), "iteration": torch.tensor(iteration)})


def test_each_phase_counts_from_where_it_begins(trainer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    detector = FAnoGAN((32, 32), width=2, gan_iterations=2, encoder_iterations=3)
    bar = ProgressBar(seconds=0)
    for done in range(5):
        at(detector, done)
        bar.on_train_batch_start(trainer, detector, None, 0)
        at(detector, done + 1)
        bar.on_train_batch_end(trainer, detector, None, None, 0)
    assert said(capsys) == [
        *(f"gan: iteration {i} of 2" for i in (1, 2)),
        *(f"encoder: iteration {i} of 3" for i in (1, 2, 3)),
    ]


def test_scoring_is_counted_in_batches(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("scoring", "batch", seconds=0) as meter:
        for done in (1, 2, 3):
            meter.show(done, 3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"scoring: batch {i} of 3" for i in (1, 2, 3)]
    assert lines[2].endswith("about 0 s left")


def test_what_is_over_at_once_says_nothing_but_that_a_phase_is_over(
    trainer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = FAnoGAN((32, 32), width=2, gan_iterations=1, encoder_iterations=1)
    bar = ProgressBar(seconds=60)
    bar.on_train_batch_start(trainer, detector, None, 0)
    at(detector, 1)
    bar.on_train_batch_end(trainer, detector, None, None, 0)
    bar.on_train_end(trainer, detector)
    with Meter("scoring", "batch", seconds=60) as meter:
        meter.show(3, 3)
    assert said(capsys) == ["gan: iteration 1 of 1"]


def test_a_reader_that_ends_ends_nothing() -> None:
    """As of `make train 2>&1 | head`: the training goes on, and so does the process that runs it."""
    program = """
        import os, sys
        from anomaly_lab.callbacks.progress import Meter
        from anomaly_lab.pipeline.console import say
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        os.close(writer)
        os.close(reader)
        say("one")
        with Meter("work", "step", last_line=True) as meter:
            meter.show(1, 1)
        print("two", file=sys.stderr, flush=True)
        print("done")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_other_ranks_are_silent(trainer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    detector = FAnoGAN((32, 32), width=2, gan_iterations=1, encoder_iterations=1)
    bar = ProgressBar(seconds=0)
    bar.disable()
    bar.on_train_batch_start(trainer, detector, None, 0)
    at(detector, 1)
    bar.on_train_batch_end(trainer, detector, None, None, 0)
    with Meter("scoring", "batch", seconds=0, silent=True) as meter:
        meter.show(1, 1)
    assert said(capsys) == []
