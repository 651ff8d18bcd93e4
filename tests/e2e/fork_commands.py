"""Runs `python -m anomaly_lab …` many times, each in a process of its own that need not import torch again.

A server imports what the package imports from others, nothing of the package itself, and forks for each command.
Answers on standard output, a JSON line for each JSON line on standard input:
`{"words", "folder", "environment", "said", "first"}` starts a command, `{"wait": pid}` waits for its end.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import sys
import time
import traceback

OTHERS = (
    "matplotlib", "nibabel", "numpy", "omegaconf", "PIL.Image", "pydicom", "pytorch_lightning", "rich.progress",
    "scipy.ndimage", "sklearn.metrics", "tifffile", "torch", "torchvision", "typer", "wandb", "pandas", "highdicom",
)  # fmt: skip


def start(asked: dict) -> int:
    """Fork a process that runs the words; `first` is Python to be executed in it before."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        for number in (signal.SIGINT, signal.SIGTERM):  # what a background job ignores is not ignored here
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        said = os.open(asked["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        sys.path[0] = ""  # as -m has it
        sys.argv = ["anomaly_lab", *asked["words"]]
        exec(asked["first"], {"__name__": "first"})
        runpy.run_module("anomaly_lab", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def wait(child: int, seconds: float) -> int:
    """The exit status of a child, which is killed after some seconds."""
    begun = time.monotonic()
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - begun > seconds:
            os.kill(child, signal.SIGKILL)
            begun = float("inf")
        time.sleep(0.01)


if __name__ == "__main__":
    for other in OTHERS:
        with contextlib.suppress(ImportError):
            importlib.import_module(other)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = wait(asked["wait"], asked["seconds"]) if "wait" in asked else start(asked)
        print(json.dumps(answer), flush=True)
