import os
import socket

import pytest

from anomaly_lab.experiment import compose
from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import UserError


def put(path, kind):
    """Make something that is no file."""
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as at:
            os.chdir(path.parent)  # the path of a socket must be short
            at.bind(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to a pipe":
        os.mkfifo(path.with_name("pipe"))
        path.symlink_to(path.with_name("pipe"))
    else:
        {"pipe": os.mkfifo, "folder": os.mkdir}[kind](path)


IRREGULAR = pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device", "socket", "folder"])


@IRREGULAR
def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "a", kind)
    with pytest.raises(OSError, match=r"it is no file: '.*/a'"):
        regular(tmp_path / "a")


def test_a_file_and_a_link_to_one_are_let_pass(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").symlink_to("a")
    assert [regular(tmp_path / name).name for name in "ab"] == ["a", "b"]
    with pytest.raises(FileNotFoundError, match="No such file"):
        regular(tmp_path / "c")


@IRREGULAR
def test_yaml_that_is_no_file_is_refused_in_one_line(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "a.yaml", kind)
    with pytest.raises(UserError, match=r"a\.yaml: not readable as YAML .*it is no file"):
        compose.read(tmp_path / "a.yaml")
