"""Compare the speed of GANomaly's training with a peer library's, each in its own process and environment.

Both train networks of the same size on one fixed batch in memory, with their own Trainer and all it does around a
step, in turns of a few steps. Times are CPU seconds if every contender has one thread, because other jobs disturb the
wall clock by more than the difference of interest; otherwise wall-clock seconds, because threads wait for each other.
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
STEPS = 2  # per turn
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def known() -> list[str]:
    """Return the names of the peers that can be measured.

    Examples:
        >>> known()
        ['anomalib']
    """
    return sorted(path.stem for path in PEERS.glob("*.txt"))


def contenders(peer: str, root: Path = ROOT) -> dict[str, list[str]]:
    """Return the command line of each contender by its name in the table.

    Args:
        peer: one of `known()`.
        root: folder whose `.peers/<peer>` is the peer's virtual environment.

    Raises:
        UserError: the peer is not installed.
    """
    python = root / ".peers" / peer / "bin" / "python"
    if not python.exists():
        raise UserError(f"{peer} is not installed ({python} is missing); `make bench PEER={peer}` installs it")
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
    """Time this package's GANomaly and a peer's; see `in_turns`.

    Args:
        peer: one of `known()`.
        rounds: recorded turns of each contender.

    Raises:
        UserError: the peer is not installed.
        RuntimeError: a contender stops early, or the networks differ in size.
    """
    return in_turns(contenders(peer), rounds)


def in_turns(commands: dict[str, list[str]], rounds: int) -> tuple[Times, dict[str, Any]]:
    r"""Run contenders in turn (A B C A B C …); the first round is a warm-up and not recorded.

    Args:
        commands: command line of each contender by name; each speaks the protocol of `pace`.
        rounds: recorded turns of each contender.

    Returns:
        Seconds per step and peak memory in GB of each contender; and details: the clock used, each contender's facts
        and all its answers.

    Raises:
        RuntimeError: a contender stops early, or the networks differ in size.

    Examples:
        >>> script = "from anomaly_lab.bench.pace import Pace\n"
        >>> script += "step = Pace(weights=1, threads=1).keep(lambda: None)\n"
        >>> script += "while True: step()"
        >>> times, details = in_turns({"toy": [sys.executable, "-c", script]}, rounds=3)
        >>> sorted(times), len(times["step of toy"]), details["clock"]
        (['peak of toy, GB', 'step of toy'], 3, 'processor')
    """
    with contextlib.ExitStack() as stack:
        started = {name: stack.enter_context(Contender(name, command)) for name, command in commands.items()}
        facts = {name: contender.answer() for name, contender in started.items()}
        sizes = {name: fact["weights"] for name, fact in facts.items()}
        if len({json.dumps(size, sort_keys=True) for size in sizes.values()}) > 1:
            raise RuntimeError(
                f"the networks differ in their number of weights, so their times do not compare: {sizes}"
            )
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in started}
        for round_number in range(rounds + 1):
            for name, contender in started.items():
                answer = contender.turn(STEPS)
                if round_number:
                    answers[name].append(answer)
    clock = 1 if all(fact["threads"] == 1 for fact in facts.values()) else 0
    times = {f"step of {name}": [turn["training"][clock] / STEPS for turn in turns] for name, turns in answers.items()}
    times |= {f"peak of {name}, GB": [turns[-1]["peak_gb"]] for name, turns in answers.items()}
    return times, {"clock": ("wall", "processor")[clock], "contenders": facts, "answers": answers}


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """Return the speed-up of this package over the peer for each pair of contenders that was measured.

    Args:
        seconds: median seconds by name; only the names `step of …` are used.

    Examples:
        >>> ratios({"step of ours bf16": 0.5, "step of anomalib fp32": 1.5})
        {'ours bf16 / anomalib fp32': 3.0}
    """
    steps = {name.removeprefix("step of "): value for name, value in seconds.items() if name.startswith("step of ")}
    ours = {name: value for name, value in steps.items() if name.startswith("ours")}
    theirs = {name: value for name, value in steps.items() if name not in ours}
    return {
        f"{our} / {their}": theirs[their] / ours[our]
        for our, their in itertools.product(ours, theirs)
        if our.endswith("bf16") or their.endswith("fp32")  # fp32 against bf16 is no fair comparison
    }


def speeds(seconds: dict[str, float]) -> dict[str, float]:
    """Return images per second of each contender.

    Examples:
        >>> speeds({"step of ours fp32": 2.0})  # a batch has 64 images
        {'step of ours fp32': 32.0}
    """
    return {name: BATCH[0] / value for name, value in seconds.items() if name.startswith("step of ")}


class Contender:
    r"""A process that speaks the protocol of `pace`; use as a context manager, which kills the process at its end.

    Args:
        name: used in error messages.
        command: command line of the process; other text it prints is shown if it stops early.

    Examples:
        >>> script = "from anomaly_lab.bench.pace import Pace\n"
        >>> script += "step = Pace(version='1.0').keep(lambda: None)\n"
        >>> script += "while True: step()"
        >>> with Contender("toy", [sys.executable, "-c", script]) as contender:
        ...     facts = contender.answer()
        ...     answer = contender.turn(steps=5)
        >>> facts, sorted(answer)
        ({'version': '1.0'}, ['peak_gb', 'step', 'training'])
    """

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
        """Let it train `steps` steps and return its answer."""
        with contextlib.suppress(BrokenPipeError):  # `answer` reports a process that has died
            print(steps, file=self._process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Read its next line of JSON.

        Raises:
            RuntimeError: the process has stopped; the message ends with the last text it printed.
        """
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"the benchmark process of {self.name} stopped early:\n{self._log.read()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer
