"""Programs that start several processes of one run: torchrun, srun, mpirun, jsrun, and Lightning for itself."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from anomaly_lab.types import UserError

if TYPE_CHECKING:  # the command line asks who is first before it loads anything heavy
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

KEYS = ("trainer.devices", "trainer.num_nodes")
JOB = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid")  # what processes have in common that mpirun started together
_state = set[str]()  # of this process
PLACE = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")


class _Program(NamedTuple):
    """A launcher, the variable by which it is known, and those of a process's place among all and on its machine."""

    name: str
    sign: str
    rank: str
    size: str
    local_rank: str
    local_size: str


PROGRAMS = (  # the first whose sign is set: one may have been started by another, for example mpirun by a job of SLURM
    _Program("torchrun", "TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    _Program("jsrun", "JSM_NAMESPACE_RANK", *(f"JSM_NAMESPACE_{name}" for name in PLACE)),
    _Program("mpirun", "OMPI_COMM_WORLD_RANK", *(f"OMPI_COMM_WORLD_{name}" for name in PLACE)),
    _Program("mpiexec", "MPI_LOCALRANKID", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    _Program("srun", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    _Program("mpiexec", "PMI_RANK", "PMI_RANK", "PMI_SIZE", "PMI_LOCAL_RANK", "PMI_LOCAL_SIZE"),
)  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """One of several processes that a launcher has started for one run.

    Attributes:
        program: name of the launcher.
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process on its machine, from 0.
        local_size: number of processes on each machine.

    Examples:
        >>> launch = Launch("srun", rank=3, size=4, local_rank=1, local_size=2)
        >>> launch.nodes, launch.node
        (2, 1)
    """

    program: str
    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.size // self.local_size

    @property
    def node(self) -> int:
        """Number of this machine, from 0; a launcher numbers the processes of a machine one after the other."""
        return self.rank // self.local_size


def launched(environment: Mapping[str, str] | None = None) -> Launch | None:
    """Return how this process was started together with others; None for one alone, or one that starts others itself.

    Args:
        environment: environment variables; those of this process if None.

    Raises:
        UserError: the launcher does not say all that is needed, or the machines have different numbers of processes.

    Examples:
        >>> launched({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        ...           "OMPI_COMM_WORLD_LOCAL_SIZE": "2"})
        Launch(program='mpirun', rank=1, size=2, local_rank=1, local_size=2)
        >>> launched({"SLURM_NTASKS": "4"}) is None  # in the script of a job, outside srun
        True
    """
    environment = os.environ if environment is None else environment
    program = next((program for program in PROGRAMS if environment.get(program.sign)), None)
    if program is None or (environment.get(program.size) == "1" and program.name != "torchrun"):
        return None
    texts = {name: environment.get(name, "") for name in program[2:]}
    texts[program.local_size] = texts[program.local_size].partition("(")[0]  # SLURM writes 2(x3), or 2,1
    if "," in texts[program.local_size]:
        raise _uneven(program.name, texts[program.local_size])
    for name, text in texts.items():
        if not text.isdecimal():
            raise UserError(
                f"{program.name} has set {program.sign}, but {name} is {text or 'missing'}; start the processes by "
                "torchrun or srun, or one that starts the others by trainer.devices=…"
            )
    found = Launch(program.name, *map(int, texts.values()))
    if found.local_size * found.nodes != found.size:
        raise _uneven(program.name, f"{found.local_size} of {found.size}")
    return found


def is_first() -> bool:
    """Return whether this is the first process of a run, or the only one, by its environment variables.

    Examples:
        >>> is_first()
        True
    """
    program = next((program for program in PROGRAMS if os.environ.get(program.sign)), None)
    if program is not None and os.environ.get(program.size) != "1":
        return os.environ.get(program.rank, "0") == "0"
    return all(os.environ.get(key, "0") == "0" for key in ("LOCAL_RANK", "NODE_RANK"))  # Lightning's own


def speaks() -> bool:
    """Return whether this process says what is wrong.

    Before the processes have met all of them find the same fault, in the command or in how they were started, and the
    first one says it. Afterwards they have settled who says it.

    Examples:
        >>> speaks()
        True
    """
    return "met" in _state or is_first()


def have_met() -> None:
    """Note that the processes have met."""
    _state.add("met")


def adopted(trainer: Mapping[str, Any], launch: Launch, said: Sequence[str] = ()) -> dict[str, int]:
    """Return the numbers of devices and nodes that a launcher has settled, by their names in the section `trainer`.

    Args:
        trainer: the section.
        launch: how the processes were started.
        said: `key=value` words of the user; what they say of a number must agree with the launcher, and so must an
            experiment that asks for more than one.

    Raises:
        UserError: they disagree.

    Examples:
        >>> adopted({"devices": 1, "num_nodes": 1}, Launch("mpirun", 0, 2, 0, 2))
        {'devices': 2, 'num_nodes': 1}
        >>> adopted({"devices": 4, "num_nodes": 1}, Launch("mpirun", 0, 2, 0, 2))
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: mpirun started 2 processes, but trainer.devices=4 and trainer.num_nodes=1 make ...
    """
    devices, nodes = _count(trainer["devices"]), int(trainer["num_nodes"])
    started = (launch.local_size, launch.nodes)
    asked = (devices or launch.local_size, nodes)
    is_said = [any(word.startswith(f"{key}=") for word in said) for key in KEYS]
    if any(n != m and (typed or n > 1) for n, m, typed in zip(asked, started, is_said, strict=True)):
        where = f", {launch.local_size} on each of {launch.nodes} machines" if launch.nodes > 1 else ""
        raise UserError(
            f"{launch.program} started {launch.size} processes{where}, but trainer.devices={trainer['devices']} and "
            f"trainer.num_nodes={nodes} make {asked[0] * nodes}; set trainer.devices={launch.local_size} "
            f"trainer.num_nodes={launch.nodes}, or leave both out"
        )
    return {"devices": launch.local_size, "num_nodes": launch.nodes}


def environment() -> ClusterEnvironment:
    """Return Lightning's description of how this process was started, without requeues and checkpoints of its own.

    Under SLURM it would write `hpc_ckpt_….ckpt`, which has neither checksum nor run.

    Examples:
        >>> type(environment()).__name__  # no launcher
        'LightningEnvironment'
    """
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.lsf import LSFEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    launch = launched()
    if launch is None:
        return LightningEnvironment()
    if launch.program == "torchrun":
        return TorchElasticEnvironment()
    if launch.program == "srun":
        os.environ["SLURM_NTASKS_PER_NODE"] = str(launch.local_size)  # without it Lightning wants another `srun`
        return SLURMEnvironment(auto_requeue=False)
    if launch.program == "jsrun" and LSFEnvironment.detect():
        return LSFEnvironment()
    return _mpi_environment(launch)


def _mpi_environment(launch: Launch) -> ClusterEnvironment:
    """Describe processes that know their places, but not where to meet; Lightning's own needs the package mpi4py.

    Raises:
        UserError: they are on several machines and were not told where to meet.
    """
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    if launch.nodes > 1 and "MASTER_ADDR" not in os.environ:
        raise UserError(
            f"{launch.program} does not say where processes of several machines meet; give them all MASTER_ADDR=<the "
            "first machine> and MASTER_PORT=29500, with Open MPI by -x MASTER_ADDR=… -x MASTER_PORT=29500"
        )
    if launch.rank % launch.local_size != launch.local_rank:
        raise UserError(f"{launch.program} numbers the processes across machines; say --map-by slot")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    job = next((os.environ[name] for name in JOB if name in os.environ), str(os.getppid()))
    os.environ.setdefault("MASTER_PORT", str(15000 + zlib.crc32(job.encode()) % 15000))  # below the system's own ports
    os.environ |= {"LOCAL_RANK": str(launch.local_rank), "NODE_RANK": str(launch.node), "WORLD_SIZE": str(launch.size)}
    return LightningEnvironment()


def _count(devices: Any) -> int | None:
    """Return how many devices a setting of Lightning's asks for; None for all there are."""
    if str(devices) in ("auto", "-1"):
        return None
    if isinstance(devices, str):
        return int(devices) if devices.isdecimal() else len([each for each in devices.split(",") if each])
    return devices if isinstance(devices, int) else len(devices)


def _uneven(program: str, numbers: str) -> UserError:
    return UserError(
        f"{program} started different numbers of processes on the machines ({numbers}); start the same number on each"
    )
