"""`make bench SECTION=serve`: a server under 1 000 requests at once, a fifth of them bad.

A small run is trained on its synthetic twin and served by a process of its own; everything goes through sockets. What
is counted: answers that are not the expected ones, percentiles of the time to the answer, memory before and after.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from anomaly_lab.experiment import run_folder
from anomaly_lab.types import UserError

REQUESTS = 1000
ROUNDS = 2  # the memory after the second tells a leak from what a first round needs
PERCENTILES = (50, 90, 99, 100)
_PATIENCE = 300  # seconds for a server to start


class Sent(NamedTuple):
    """A request: its body and the statuses of HTTP that are right for it."""

    kind: str
    body: bytes
    right: frozenset[int]


class Answered(NamedTuple):
    """An answer: its status, 0 for none, and the seconds until it was there."""

    status: int
    seconds: float


def main(out: Path, words: Sequence[str] = ()) -> None:
    """Train a small run, serve it and flood it; print a table, write all values as JSON.

    Args:
        out: the file.
        words: `key=value` words of the run that is trained, `ganomaly_headct` at the smoke budget.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = _trained(Path(folder), words)
        with served(run, Path(folder)) as url:
            _wait_for(url)
            rounds = [measure(url, requests(REQUESTS, seed)) for seed in range(ROUNDS)]
    out.parent.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(out, run_folder.provenance() | {"load": os.getloadavg()[0], "rounds": rounds})
    table = Table("what", *(f"round {number}" for number in range(1, ROUNDS + 1)), title=f"{REQUESTS} requests at once")
    for name in rounds[0]:
        table.add_row(name, *(f"{found[name]:.4g}" for found in rounds))
    console = Console()
    console.print(table)
    console.print(f"All values: {out}")


def requests(count: int, seed: int) -> list[Sent]:
    """Return pictures, of which every fifth is bad in one of several ways.

    Examples:
        >>> [sent.kind for sent in requests(10, seed=0)][3:10]
        ['picture', 'torn', 'picture', 'picture', 'picture', 'picture', 'empty']
    """
    rng = np.random.default_rng(seed)
    return [_bad(number // 5, rng) if number % 5 == 4 else _good(rng) for number in range(count)]


def measure(url: str, sent: Sequence[Sent]) -> dict[str, float]:
    """Send all requests at once and wait for all answers.

    Args:
        url: of the server.
        sent: the requests.

    Returns:
        lost and wrong answers, answers a second, percentiles of seconds, resident memory in MB before and after, and
        how often the process that scores was lost.
    """
    before, start = gauges(url), time.perf_counter()
    answers = asyncio.run(_flood(url, sent))
    took = time.perf_counter() - start
    after = gauges(url)
    seconds = [answer.seconds for answer in answers]
    found: dict[str, float] = {
        "lost": sum(not answer.status for answer in answers),
        "wrong status": sum(answer.status not in one.right for answer, one in zip(answers, sent, strict=True)),
        "scored": sum(answer.status == 200 for answer in answers),
        "answers a second": len(sent) / took,
    }
    found |= {f"seconds, {part} %": float(np.percentile(seconds, part)) for part in PERCENTILES}
    for name in ("server", "scoring"):
        key = f"anomaly_lab_{name}_memory_bytes"
        found |= {f"{name}, MB before": before[key] / 2**20, f"{name}, MB after": after[key] / 2**20}
    return found | {"restarts": after["anomaly_lab_scoring_restarts"]}


def gauges(url: str) -> dict[str, float]:
    """Return the present values of a server's metrics, by name."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=_PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.split(" ") for line in lines if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in pairs}


@contextmanager
def served(run: Path, folder: Path) -> Iterator[str]:
    """Serve a run by a process of its own, on a free port of this machine; yields the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "server.log").open("w") as log:
        words = [sys.executable, "-m", "anomaly_lab", "serve", str(run), f"port={port}"]
        server = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)


def _trained(folder: Path, words: Sequence[str]) -> Path:
    places = [f"runs={folder / 'runs'}", f"data.store.folder={folder / 'store'}", "callbacks.wandb=null"]
    line = ["train", "ganomaly_headct", "budget=smoke", "data.source=twin", *places, *words]
    ended = subprocess.run([sys.executable, "-m", "anomaly_lab", *line], check=False, capture_output=True, text=True)
    found = list((folder / "runs").glob("*/*/metrics.json"))
    if ended.returncode or not found:
        raise UserError(f"the run to be served could not be trained: {ended.stderr.strip().splitlines()[-1]}")
    return found[0].parent


def _wait_for(url: str) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise UserError(f"{url}: the server did not start within {_PATIENCE} s")


async def _flood(url: str, sent: Sequence[Sent]) -> list[Answered]:
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.gather(*(_ask(host, int(port), one) for one in sent))


async def _ask(host: str, port: int, sent: Sent) -> Answered:
    start = time.perf_counter()
    status = 0
    try:
        reader, writer = await asyncio.open_connection(host, port)
        head = f"POST /score HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {len(sent.body)}\r\n\r\n"
        writer.write(head.encode() + sent.body)
        answer = await reader.read()
        writer.close()
        said, _, body = answer.partition(b"\r\n\r\n")
        json.loads(body)  # whole, and of the kind that all answers have
        status = int(said.split()[1])
    except (OSError, ValueError, IndexError):
        status = 0
    return Answered(status, time.perf_counter() - start)


def _good(rng: np.random.Generator) -> Sent:
    return Sent("picture", _png(rng.integers(0, 256, (96, 96), np.uint8)), frozenset({200}))


def _bad(number: int, rng: np.random.Generator) -> Sent:
    whole = _png(rng.integers(0, 256, (96, 96), np.uint8))
    frames = struct.pack("<i", 348) + bytes(36) + struct.pack("<8h", 4, 64, 64, 64, 32767, 1, 1, 1) + bytes(14)
    frames += struct.pack("<hh", 2, 8) + bytes(32) + struct.pack("<f", 352.0)
    nifti = frames + bytes(344 - len(frames)) + b"n+1\0" + bytes(100)
    bodies = {
        "torn": whole[: len(whole) // 2],
        "empty": b"",
        "zip": b"PK\x03\x04" + bytes(2000),
        "bomb": _bomb(),
        "frames": nifti,
        "dicom": bytes(128) + b"DICM" + rng.bytes(500),
        "gzip": b"\x1f\x8b\x08" + rng.bytes(300),
    }
    kind = _KINDS[number % len(_KINDS)]
    return Sent(kind, bodies[kind], frozenset({400, 413, 422}))


@cache
def _bomb() -> bytes:
    """A small file of more pixels than the server takes."""
    return _png(np.zeros((12000, 12000), np.uint8))


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


_KINDS = ("torn", "empty", "zip", "bomb", "frames", "dicom", "gzip")
