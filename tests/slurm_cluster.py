"""A SLURM cluster of two nodes on this machine, for the tests that need one: its own key, ports and folder."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "squeue")
NODES, CPUS = 2, 4
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why there can be no cluster here, if so."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"SLURM is not installed ({', '.join(absent)}): apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "the daemons of SLURM need root"


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start the daemons and stop them at the end; yields the environment that clients need.

    Nodes have more processors than the machine, so that two jobs of one task each always run side by side.
    """
    host = socket.gethostname().partition(".")[0]
    ports = _free_ports(NODES + 1)
    nodes = "\n".join(
        f"NodeName=node{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[i]} CPUs={CPUS} RealMemory=1000"
        for i in range(1, NODES + 1)
    )
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, port=ports[0], user="root", folder=folder, nodes=nodes))
    for name in ("state", *(f"spool.node{i}" for i in range(1, NODES + 1))):
        (folder / name).mkdir()
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(conf), "MASTER_ADDR": "127.0.0.1"}
    munge = {"key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munge.log",
             "seed-file": "munge.seed"}  # fmt: skip
    daemons = [
        ["munged", "--force", *(f"--{option}={folder / name}" for option, name in munge.items())],
        ["slurmctld", "-c"],
        *(["slurmd", "-c", "-N", f"node{i}"] for i in range(1, NODES + 1)),
    ]
    try:
        for words in daemons:
            subprocess.run(words, env=environment, check=True, capture_output=True, timeout=60)
        _await(lambda: _idle(environment) == NODES, 60, "the nodes do not come up", folder)
        yield environment
    finally:
        subprocess.run(["scancel", "--full", "--user", "root"], env=environment, check=False, capture_output=True)
        with suppress(AssertionError):
            _await(lambda: _idle(environment) == NODES, 20, "jobs do not end", folder)
        for pid in sorted(folder.glob("*.pid"), reverse=True):
            _end(int(pid.read_text()))


def _path() -> str:
    """The search path with the folders of daemons, which users may lack."""
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])


def _idle(environment: dict[str, str]) -> int:
    words = ["sinfo", "--noheader", "--partition=main", "--states=idle", "--format=%D"]
    answer = subprocess.run(words, env=environment, check=False, capture_output=True, text=True, timeout=60).stdout
    return sum(int(number) for number in answer.split())


def _await(condition, seconds: float, complaint: str, folder: Path) -> None:
    end = time.monotonic() + seconds
    while not condition():
        logs = "".join(path.read_text()[-1000:] for path in folder.glob("*.log"))
        assert time.monotonic() < end, f"{complaint}: {logs}"
        time.sleep(0.2)


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        for _ in range(50):
            time.sleep(0.1)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
