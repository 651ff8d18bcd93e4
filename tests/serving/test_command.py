"""The command: what it needs, what it refuses before it opens a run, and that its process stays light."""

import socket
import subprocess
import sys

import pytest

from anomaly_lab.serving import command
from anomaly_lab.serving.settings import Settings
from anomaly_lab.types import UserError


def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(UserError, match=r"serving needs uvicorn: pip install 'anomaly_lab\[serve\]'"):
        command.main("runs/none")


def test_an_address_that_is_taken_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port={port}: the address cannot be had"):
            command.main("runs/none", [f"port={port}"])
    with pytest.raises(UserError, match=r"host=no\.such\.host\.invalid"):
        command.main("runs/none", ["host=no.such.host.invalid"])


@pytest.mark.parametrize("host", ["a" * 64, "..", "caf\udce9"])
def test_a_name_that_no_host_can_have_is_one_line(host: str) -> None:
    with pytest.raises(UserError, match="the address cannot be had"):
        command.main("runs/none", [f"host={host}"])


def test_a_run_that_cannot_be_opened_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="runs/none"):
        command.main("runs/none", [f"port={port}"])


@pytest.mark.parametrize(("host", "local"), [
    ("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.1", False), ("lab", False),
])  # fmt: skip
def test_who_hears_an_address(host: str, local: bool) -> None:
    assert command._is_local(host) is local


def test_the_process_on_the_network_never_imports_torch() -> None:
    script = (
        "import sys, anomaly_lab.serving.command, anomaly_lab.serving.app\n"
        "print(*({'torch', 'scipy', 'sklearn', 'monai', 'pydicom', 'nibabel'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.split() == []


def test_defaults_are_for_one_machine() -> None:
    assert command._is_local(Settings().host)
