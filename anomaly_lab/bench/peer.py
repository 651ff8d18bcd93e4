"""GANomaly's training beside a peer's own, each in its process and environment, in turns of a few steps.

Same weights, same batch size, ready tensors, everybody's own Trainer with all it does around a step. By the
processors' clock where each contender has one thread, for other jobs move the wall's by more than is looked for; by the
wall's where threads wait for each other.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from anomaly_lab.bench.pace import BATCH
from anomaly_lab.types import UserError

Times = dict[str, list[float]]
PEERS = Path(__file__).parent / "peers"
ROOT = PEERS.parents[2]
STEPS = 2  # of a turn
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def known() -> list[str]:
    """The peers that can be measured."""
    return sorted(path.stem for path in PEERS.glob("*.txt"))


def contenders(peer: str, root: Path = ROOT) -> dict[str, list[str]]:
    """Command line of each contender, by its name in the table.

    Raises:
        UserError: the peer is not installed.
    """
    python = root / ".peers" / peer / "bin" / "python"
    if not python.exists():
        raise UserError(f"{peer} is not installed ({python} is missing); make bench PEER={peer} does it")
    ours = [sys.executable, "-m", "anomaly_lab.bench.ganomaly"]
    theirs = [str(python), str(PEERS / f"{peer}_ganomaly.py")]
    commands = {}
    for name, precision in PRECISIONS.items():
        commands[f"ours {name}"] = [*ours, "anomalib", precision]
        commands[f"{peer} {name}"] = [*theirs, precision]
    commands["ours, official losses, bf16"] = [*ours, "official", PRECISIONS["bf16"]]
    commands[f"{peer}, padded as ours, fp32"] = [*theirs, PRECISIONS["fp32"], "1"]
    return commands


def training(peer: str, rounds: int) -> tuple[Times, dict[str, Any]]:
    """Seconds a step of each contender, A B C A B C …, after one uncounted round; and what they say of themselves."""
    return in_turns(contenders(peer), rounds)


def in_turns(commands: dict[str, list[str]], rounds: int) -> tuple[Times, dict[str, Any]]:
    """The same of any contenders.

    Raises:
        RuntimeError: one of them dies, or their networks differ in size.
    """
    with contextlib.ExitStack() as stack:
        started = {name: stack.enter_context(Contender(name, command)) for name, command in commands.items()}
        facts = {name: contender.answer() for name, contender in started.items()}
        sizes = {name: said["weights"] for name, said in facts.items()}
        if len({json.dumps(size, sort_keys=True) for size in sizes.values()}) > 1:
            raise RuntimeError(f"the networks are not the same: {sizes}")
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in started}
        for counted in range(rounds + 1):
            for name, contender in started.items():
                said = contender.turn(STEPS)
                if counted:
                    answers[name].append(said)
    clock = 1 if all(said["threads"] == 1 for said in facts.values()) else 0
    times = {f"step of {name}": [said["training"][clock] / STEPS for said in given] for name, given in answers.items()}
    times |= {f"peak of {name}, GB": [given[-1]["peak_gb"]] for name, given in answers.items()}
    return times, {"clock": ("wall", "processor")[clock], "contenders": facts, "answers": answers}


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """How many times the peer's images a second ours are, of each pair that was measured."""
    steps = {name.removeprefix("step of "): value for name, value in seconds.items() if name.startswith("step of ")}
    ours = {name: value for name, value in steps.items() if name.startswith("ours")}
    theirs = {name: value for name, value in steps.items() if name not in ours}
    return {
        f"{our} / {their}": theirs[their] / ours[our]
        for our, their in itertools.product(ours, theirs)
        if our.endswith("bf16") or their.endswith("fp32")  # nobody would compare the others
    }


def speeds(seconds: dict[str, float]) -> dict[str, float]:
    """Images a second."""
    return {name: BATCH[0] / value for name, value in seconds.items() if name.startswith("step of ")}


class Contender:
    """A process that trains when told; see `pace`. What it prints besides is shown if it dies."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed with the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def turn(self, steps: int) -> dict[str, Any]:
        """What it answers after so many steps."""
        with contextlib.suppress(BrokenPipeError):  # the answer will be missing as well
            print(steps, file=self._process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Its next line."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"{self.name} died:\n{self._log.read()[-2000:]}")
        said: dict[str, Any] = json.loads(line)
        return said
