"""A signal ends a training at the next iteration; resumed, it equals one that nothing stopped."""

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from data.conftest import write_headct
from pipeline.conftest import settings
from torch import Tensor

from anomaly_lab.callbacks import interruption
from anomaly_lab.callbacks.interruption import Interruption
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.fanogan import FAnoGAN
from anomaly_lab.experiment import checkpoint_files, run_folder
from anomaly_lab.networks.augmentation import ADA
from anomaly_lab.pipeline import engine
from anomaly_lab.types import Stopped

POOL = "callbacks.fakepool={_target_: anomaly_lab.callbacks.fakepool.FakePool, every: 2}"
LENGTHS = ("detector.gan_iterations=7", "detector.encoder_iterations=4", "data.epoch_length=3", "detector.n_critic=2",
           "callbacks.record.every=2", "callbacks.wandb=null", "evaluation.replicates=20",
           "trainer.precision=32-true", POOL)  # fmt: skip


def start(base: Path) -> Path:
    if not (base / "headct").exists():
        write_headct(base / "headct")
    return engine.train(settings(base, *LENGTHS))


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], str, str, bytes]:
    newest = checkpoint_files.newest(run)
    assert newest is not None
    record = (run / "metrics.jsonl").read_text()
    pool = b"".join(path.read_bytes() for path in sorted((run / "fakepool").glob("*.npy")))
    return checkpoint_files.load(newest)["state_dict"], (run / "scores.csv").read_text(), record, pool


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("whole"))


def only_run(base: Path) -> Path:
    (run,) = (base / "runs" / "fanogan_headct").iterdir()
    return run


def signals_at(patch: pytest.MonkeyPatch, number: int, *iterations: int) -> None:
    """Send a signal to this process within each of these iterations (from 0)."""
    step, left = Detector.training_step, list(iterations)

    def training_step(self, batch, batch_idx):
        while self.iterations_done in left:
            left.remove(self.iterations_done)
            os.kill(os.getpid(), number)
        step(self, batch, batch_idx)

    patch.setattr(Detector, "training_step", training_step)


SLOW = [pytest.param(signal.SIGTERM, (place,), marks=pytest.mark.slow) for place in (0, 1, 2, 6, 8, 10)]


@pytest.mark.parametrize(("number", "places"), [(signal.SIGUSR1, (1,)), (signal.SIGTERM, (4, 5)), *SLOW])
def test_stopped_and_resumed_equals_a_straight_run(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, places: tuple[int, ...]
) -> None:
    """In an epoch, at its end, twice in one epoch, at the end of a phase, in the next one, in the last iteration."""
    with pytest.MonkeyPatch.context() as patch:
        signals_at(patch, number, *places)
        with pytest.raises(Stopped) as stopped:
            start(tmp_path)
        run = only_run(tmp_path)
        for place in places[1:]:
            assert checkpoint_files.by_age(run / "checkpoints")[0].name.startswith(f"{place:08d}-")
            with pytest.raises(Stopped):
                engine.resume(str(run))
    assert stopped.value.code == 128 + number
    done = places[-1] + 1
    assert checkpoint_files.by_age(run / "checkpoints")[0].name.startswith(f"{done:08d}-")
    said = " ".join(capsys.readouterr().err.split())
    assert (
        f"stopped by {signal.Signals(number).name} after iteration {done} of 11; continue with: make resume RUN="
        in said
    )
    assert "finished" not in run_folder.read_json(run / "provenance.json")
    engine.resume(str(run))
    weights, *files = outcome(whole)
    found, *found_files = outcome(run)
    assert found_files == files
    assert all(torch.equal(found[key], value) for key, value in weights.items())
    metrics = [json.loads((each / "metrics.json").read_text()) for each in (whole, run)]
    assert metrics[0] == metrics[1]


@pytest.fixture
def handles_ctrl_c() -> Iterator[None]:
    """A job in the background of a shell ignores SIGINT, and this process may be one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with Interruption().listening() as interruption:
        os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert interruption.received is None


def test_a_signal_that_a_program_around_python_handles_stays_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of it Python only knows that it is not its own."""
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda number: None)
        set_to: list[int] = []
        patch.setattr(signal, "signal", lambda number, handler: set_to.append(number))
        with Interruption().listening():
            pass
    assert set_to == []


def test_a_terminal_that_is_closed_ends_a_training_with_a_checkpoint() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with Interruption().listening(), pytest.raises(Stopped, match="129"):
        os.kill(os.getpid(), signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)


def test_who_writes_to_a_terminal_that_was_closed_stops_as_by_a_signal(tmp_path: Path) -> None:
    """Not by the error that every write to it is from then on: the bar would raise it, and no checkpoint be written."""
    program = f"""
        import sys, time
        from anomaly_lab.callbacks.interruption import Interruption
        from anomaly_lab.callbacks.progress import Meter
        from anomaly_lab.pipeline.console import say
        from anomaly_lab.types import Stopped
        try:
            with Interruption().listening(), Meter("work", "step") as meter:
                for step in range(6000):
                    meter.show(step + 1, 6000)
                    time.sleep(0.01)
        except Stopped as stopped:
            say("stopped")
            print("stopped", file=sys.stderr, flush=True)
            open({str(tmp_path / "said")!r}, "w").write(str(int(stopped.signal)))
    """
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", textwrap.dedent(program)])
    os.read(terminal, 1)  # the bar is there
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (tmp_path / "said").read_text() == str(int(signal.SIGHUP))


@pytest.mark.usefixtures("handles_ctrl_c")
def test_ctrl_c_is_a_keyboard_interrupt_with_a_checkpoint(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        signals_at(patch, signal.SIGINT, 4)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path)
    assert checkpoint_files.by_age(only_run(tmp_path) / "checkpoints")[0].name.startswith("00000005-")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_a_training_a_signal_ends_the_work_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption().listening(), pytest.raises(Stopped, match="143"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_slurm_which_repeats_signals_does_not_cut_the_iteration_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.MonkeyPatch.context() as patch:
        signals_at(patch, signal.SIGTERM, 4, 4)
        with pytest.raises(Stopped):
            start(tmp_path)
    assert checkpoint_files.by_age(only_run(tmp_path) / "checkpoints")[0].name.startswith("00000005-")


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    step = Detector.training_step

    def training_step(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "training_step", training_step)
        with pytest.raises(Stopped):
            start(tmp_path)
    assert not checkpoint_files.by_age(only_run(tmp_path) / "checkpoints")


def test_a_main_thread_that_takes_no_notice_of_a_signal_is_ended() -> None:
    script = (
        "import hashlib, os, signal, threading; from anomaly_lab.callbacks import interruption\n"
        "interruption.PATIENCE = 0.5\n"
        "with interruption.Interruption().listening():\n"
        "    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    hashlib.pbkdf2_hmac('sha1', b'', b'', 2**31 - 1)  # minutes in native code\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 128 + signal.SIGTERM
    assert ended.stderr.startswith("error: SIGTERM had no effect for ")


def test_what_the_processes_have_counted_is_brought_together_before_it_is_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first process alone writes the file, and all of them go on with what it holds; a sum of means stays it."""
    detector = FAnoGAN((32, 32), width=4, latent_dim=4, augment_d="ada")
    assert isinstance(detector.augmentation, ADA)
    own, others = torch.tensor([3.0, 8.0]), torch.tensor([-1.0, 8.0])
    detector.augmentation.seen.copy_(own)

    def reduce(value: Tensor, reduce_op: str) -> Tensor:
        return (value + others) / 2 if torch.equal(value, own) else value

    strategy = SimpleNamespace(
        reduce_boolean_decision=lambda *_, **__: True, reduce=reduce, launcher=SimpleNamespace(procs=[])
    )
    trainer: Any = SimpleNamespace(strategy=strategy, world_size=2, lightning_module=detector, checkpoint_callbacks=[0])
    monkeypatch.setattr(type(detector), "trainer", trainer, raising=False)
    saved: list[list[float]] = []
    monkeypatch.setattr(interruption, "save", lambda _, module: saved.append(module.augmentation.seen.tolist()))
    callback = Interruption()
    callback._in_epoch = True
    with pytest.raises(Stopped):
        callback._stop_if_asked(trainer)
    assert saved == [[1.0, 8.0]]
