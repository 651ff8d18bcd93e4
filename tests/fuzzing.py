"""Seeded damage: hostile words for the command line, and files and folders that were torn, edited or swapped."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from typer.testing import CliRunner

from anomaly_lab import __main__

SECONDS = 20  # that a refusal, or a tiny run, may take
VALUES = (
    "-1", "0", "1", "2", "7", "1.5", "-0.0", "1e30", "1e-30", "9" * 40, "-" + "9" * 40, "nan", ".nan", "inf", "-.inf",
    "1e999", "null", "~", "true", "''", "[]", "[1]", "[a,b]", "[[1],[2]]", "[1,null]", "[-1,0,nan]", "{}", "{a: 1}",
    "{1: 2}", "{a: {b: c}}", "???", "${seed}", "${data}", "${nope}", "${oc.env:NOPE}", "${oc.env:PATH}", "${", "}",
    "[1", "{a", "\\", "é", "日本", "\U0001f600", "e\u0301", "a=b", "@", "&a", "*a", "- 1", "x", "x" * 5000,
    "!!python/x", "!!binary aGk=", "2001-01-01", "0x1F", "1_000", "01", "../..", "/dev/null", "/", ".",
    "a\nb", "\t", "%s", "{0}",
    "[31m", "builtins.dict", "os.system", "anomaly_lab.types.Case", "typing.Union", "anomaly_lab", "-", "--help",
)  # fmt: skip
PLAIN: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**40, "", "x", "é", "x" * 5000, [], [1], {}, {"a": 1}, [[]],
    "2026-01-01", "../..", ["a", 1, None], {"value": None}, {"": ""},
)  # fmt: skip


ended: Counter[str] = Counter()  # how commands ended, by verb and status


class Hang(BaseException):
    """A command took longer than SECONDS."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise Hang inside the block when it takes longer."""

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(*words: str | Path) -> str:
    """Run a command in this process; return what is wrong with how it ended, or nothing.

    It may succeed, or fail with status 2 (a study with 1, where runs have no result) and a last line `error: …`.
    """
    words = tuple(map(str, words))
    try:
        with within(SECONDS):
            done = CliRunner().invoke(__main__.app, words)
    except Hang:
        return f"{words}: no end after {SECONDS} s"
    if isinstance(done.exception, Hang):
        return f"{words}: no end after {SECONDS} s"
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return f"{words}: {done.exception!r} at {_place(done.exc_info)}"
    ended[f"{words[0]} {done.exit_code}"] += 1
    if done.exit_code == 0 or (done.exit_code == 1 and "study" in words[:3]):
        return ""
    complaints = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    usage = done.stderr.startswith("Usage: ")  # of the words that the command line itself refuses
    if done.exit_code != 2 or not ((len(complaints) == 1 and done.stderr.splitlines()[-1] == complaints[0]) or usage):
        return f"{words}: status {done.exit_code}, {done.stderr[-300:]!r}"
    return ""


def _place(exc_info: Any) -> str:
    """Where an exception came from: the innermost lines of the package and of all."""
    trace, own, last = exc_info[2], "", ""
    while trace is not None:
        code = trace.tb_frame.f_code
        last = f"{code.co_filename}:{trace.tb_lineno}"
        own = last if "anomaly_lab/" in code.co_filename else own
        trace = trace.tb_next
    return own if own == last else f"{own} ({last})"


def hostile_words(draw: random.Random, keys: list[str], likely: list[str]) -> list[str]:
    """One to three overrides of a key, or of what looks like one, by a value, or by what looks like one.

    Args:
        draw: the source of chance.
        keys: known ones.
        likely: values that some key has.
    """

    def key() -> str:
        chosen = draw.choice(keys)
        return draw.choice(
            [chosen] * 40
            + [chosen[:-1], f"{chosen}.x", chosen.partition(".")[0], f"{chosen}[0]", f".{chosen}", f"{chosen}.",
               chosen.upper(), f"{chosen}é", f"callbacks.{chosen}", "a..b", "=", "callbacks.x", "callbacks.x._target_",
               chosen.replace(".", "..", 1), f"{chosen}._target_", f"+{chosen}", f"~{chosen}"]
        )  # fmt: skip

    def value() -> str:
        return draw.choice(draw.choice([VALUES, likely, ["1", "2", "3", "0.5", "0", "1e-3", "true", "null", "[1,2]"]]))

    words = [f"{key()}={value()}" for _ in range(draw.choice([1, 1, 1, 2, 3]))]
    if draw.random() < 0.1:
        words.append(words[0].partition("=")[0] + f"={value()}")  # the same key twice
    return words


# -- files


def edited(draw: random.Random, tree: Any) -> Any:
    """A copy of nested mappings and lists with one to three values replaced, removed, doubled or renamed."""
    whole = {"": copy.deepcopy(tree)}
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        above, key = draw.choice(list(_places(whole)))
        act = draw.choice(["replace", "replace", "replace", "remove", "rename", "nest"])
        if act == "remove" and above is not whole:
            del above[key]
        elif act == "rename" and isinstance(above, dict) and above is not whole:
            above[draw.choice(["x", "", 1, None, f"{key}x"])] = above.pop(key)
        elif act == "nest":
            above[key] = draw.choice([[above[key]], {"x": above[key]}])
        else:
            above[key] = copy.deepcopy(draw.choice(PLAIN))
    return whole[""]


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, dict | list):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from _places(node[key])


def json_edited(draw: random.Random, path: Path) -> None:
    path.write_text(json.dumps(edited(draw, json.loads(path.read_text())), skipkeys=True))


def yaml_edited(draw: random.Random, path: Path) -> None:
    path.write_text(yaml.safe_dump(edited(draw, yaml.safe_load(path.read_text())), allow_unicode=True))


def lines_edited(draw: random.Random, path: Path) -> None:
    """Of a table, or of JSON lines."""
    lines = path.read_text().splitlines(keepends=True)
    for _ in range(draw.choice([1, 1, 2])):
        place = draw.randrange(len(lines))
        act = draw.choice(["cell", "cell", "cell", "drop", "double", "junk", "long", "swap"])
        if act == "cell":
            separator = ", " if path.suffix == ".jsonl" else ","
            cells = lines[place].rstrip("\n").split(separator)
            cells[draw.randrange(len(cells))] = draw.choice(VALUES)
            lines[place] = separator.join(cells) + "\n"
        elif act == "drop":
            lines[place] = ""
        elif act == "double":
            lines.insert(place, lines[place])
        elif act == "long":
            lines[place] = lines[place].rstrip("\n") + ",1,2,3\n"
        elif act == "swap":
            other = draw.randrange(len(lines))
            lines[place], lines[other] = lines[other], lines[place]
        else:
            lines[place] = draw.choice(
                ["\0\0\n", '"\n', "é\n", "null\n", "[1]\n", "{}\n", '{"iteration": "x"}\n', "x" * 200_000]
            )
    path.write_text("".join(lines))


def torn(draw: random.Random, path: Path) -> None:
    """Cut, with bits flipped, or other bytes altogether."""
    content = bytearray(path.read_bytes())
    act = draw.choice(["cut", "flip", "noise", "zeros", "utf16", "empty"])
    if act == "cut":
        del content[draw.randrange(len(content) + 1) :]
    elif act == "flip":
        for _ in range(draw.choice([1, 5, 50]) if content else 0):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif act == "noise":
        content = bytearray(draw.randbytes(draw.choice([1, 100, 5000])))
    elif act == "zeros":
        content[len(content) // 2 :] = bytes(len(content) // 2)
    elif act == "utf16":
        content = bytearray(content[:2000].decode("latin-1").encode("utf-16"))
    else:
        content.clear()
    path.write_bytes(content)


def swapped(draw: random.Random, path: Path) -> None:
    """Gone, or a folder, a link to nowhere or to itself in its place."""
    path.unlink()
    act = draw.choice(["gone", "folder", "full folder", "nowhere", "itself"])
    if "folder" in act:
        path.mkdir()
        (path / "x").touch() if act == "full folder" else None
    elif act == "nowhere":
        path.symlink_to("nowhere/at all")
    elif act == "itself":
        path.symlink_to(path.name)


def arrays_edited(draw: random.Random, path: Path) -> None:
    """Of an .npz file."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    name = draw.choice(list(arrays))
    act = draw.choice(["remove", "shape", "dtype", "nan", "scalar", "object", "extra"])
    if act == "remove":
        del arrays[name]
    elif act == "shape":
        arrays[name] = arrays[name][: draw.randrange(len(arrays[name]))]
    elif act == "dtype":
        arrays[name] = np.array(["x"] * len(arrays[name]))
    elif act == "nan" and arrays[name].dtype.kind == "f":
        arrays[name] = np.full_like(arrays[name], np.nan)
    elif act == "scalar":
        arrays[name] = np.array(1.0)
    elif act == "object":
        arrays[name] = np.array([None, {}], dtype=object)
    else:
        arrays["x"] = arrays[name]
    np.savez(path, **arrays)


def checkpoint_edited(draw: random.Random, path: Path) -> None:
    """Other content under the digest that suits it."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    act = draw.choice(["edit", "edit", "edit", "top", "tensor", "weights", "other"])
    if act == "edit":
        checkpoint = edited(draw, checkpoint)
    elif act == "top":
        key = draw.choice(list(checkpoint))
        checkpoint[key] = copy.deepcopy(draw.choice(PLAIN))
    elif act == "tensor":
        name = draw.choice(list(checkpoint["state_dict"]))
        value = checkpoint["state_dict"][name]
        checkpoint["state_dict"][name] = draw.choice(
            [value.double(), value[..., None], torch.full_like(value.float(), torch.nan), torch.zeros(0), value.bool()]
        )
    elif act == "weights":
        for value in checkpoint["state_dict"].values():
            value.fill_(draw.choice([0, 1])) if value.dtype != torch.int64 else None
    else:
        checkpoint = draw.choice([torch.zeros(3), [], {}, {"state_dict": {}}, "x", None])
    buffer = io.BytesIO()
    try:
        torch.save(checkpoint, buffer)
        content = buffer.getvalue()
    except (RuntimeError, ValueError, OverflowError):
        content = b"not a checkpoint"
    write_checkpoint(path, content)


def write_checkpoint(path: Path, content: bytes) -> None:
    """Replace a checkpoint by one of this content and the name that it then has."""
    path.unlink()
    digest = hashlib.sha256(content).hexdigest()[:16]
    path.with_name(f"{path.stem.partition('-')[0]}-{digest}.ckpt").write_bytes(content)


Damage = Callable[[random.Random, Path], None]
EDITS: dict[str, Damage] = {
    "config.yaml": yaml_edited,
    "provenance.json": json_edited,
    "metrics.json": json_edited,
    "split.csv": lines_edited,
    "scores.csv": lines_edited,
    "classes.csv": lines_edited,
    "metrics.jsonl": lines_edited,
    "timings.jsonl": lines_edited,
    "gallery.npz": arrays_edited,
    "missed.npz": arrays_edited,
    ".ckpt": checkpoint_edited,
}


def damage(draw: random.Random, run: Path) -> str:
    """Damage a run folder; return what was done. Edited files, which read well, are the likeliest."""
    done = []
    for _ in range(draw.choice([1, 1, 1, 2])):
        files = sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
        known = [path for path in files if _edit_of(path)]
        if draw.random() < 0.65 and known:
            weights = [{"provenance.json": 4, "metrics.json": 3, "config.yaml": 3}.get(path.name, 2) for path in known]
            (path,) = draw.choices(known, weights)
            act = _edit_of(path)
        else:
            path, act = draw.choice(files), draw.choice([torn, torn, swapped])
        assert act is not None
        try:
            act(draw, path)
        except (ValueError, KeyError, OSError, IndexError, AttributeError, yaml.YAMLError, pickle.UnpicklingError):
            act = torn  # it was damaged before
            torn(draw, path)
        done.append(f"{act.__name__} {path.relative_to(run)}")
    if draw.random() < 0.05:
        folder = draw.choice(["checkpoints", "samples", "."])
        shutil.rmtree(run / folder) if folder != "." else [path.unlink() for path in run.iterdir() if path.is_file()]
        done.append(f"no {folder}")
    return ", ".join(done)


def _edit_of(path: Path) -> Damage | None:
    return EDITS.get(path.name) or EDITS.get(path.suffix)


@contextmanager
def powerless() -> Iterator[None]:
    """Inside the block, a superuser is an ordinary one, to whom permissions of files apply."""
    if os.geteuid():
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
