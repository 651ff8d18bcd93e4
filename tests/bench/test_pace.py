"""A training in rounds, spoken to as the benchmark does."""

import json
import os
import subprocess
import sys

from anomaly_lab.bench.peer import ROOT

TRAINING = """
import sys
from anomaly_lab.bench.pace import Pace

def training_step(*arguments, **named):
    print("step", arguments, named)
    return "outcome"

step = Pace(version="1").keep(training_step)
print("ready", step.__name__)
for i in range(100):
    assert step(i, batch_idx=i) == "outcome"
"""


def spoken(*orders: int) -> subprocess.CompletedProcess[str]:
    """What the training says to these orders, one by one; its own environment has no packages at all."""
    words = [sys.executable, "-S", "-c", TRAINING]
    given = "".join(f"{order}\n" for order in orders)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(words, input=given, capture_output=True, text=True, env=environment, check=True)


def test_it_says_hello_and_ends_with_its_input() -> None:
    done = spoken()
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"version": "1"}]
    assert "step" not in done.stderr.replace("ready training_step", "")


def test_it_does_as_many_steps_as_it_is_told_and_answers_each_order() -> None:
    done = spoken(2, 3)
    hello, *answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert hello == {"version": "1"}
    assert len(answers) == 2
    for answer in answers:
        assert answer.keys() == {"step", "training", "peak_gb"}
        assert all(inside <= whole for inside, whole in zip(answer["step"], answer["training"], strict=True))
        assert answer["peak_gb"] > 0
    assert done.stderr.count("step (") == 5
    assert "step (4,) {'batch_idx': 4}" in done.stderr  # what a training prints is no answer
