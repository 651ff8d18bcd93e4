"""Launchers are known by their environment variables; their numbers are taken, or refused where they contradict."""

from collections.abc import Mapping

import pytest
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from anomaly_lab.pipeline import launchers
from anomaly_lab.pipeline.launchers import Launch, adopted, is_first, launched
from anomaly_lab.types import UserError


def variables(program: str, rank: int, size: int, local_rank: int, local_size: int) -> dict[str, str]:
    """What a launcher gives a process, as seen with torchrun 2.9, Open MPI 4 and SLURM 22, and in the manuals."""
    place = {"RANK": rank, "SIZE": size, "LOCAL_RANK": local_rank, "LOCAL_SIZE": local_size}
    named = {
        "torchrun": {"TORCHELASTIC_RUN_ID": "none", "RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": local_rank,
                     "LOCAL_WORLD_SIZE": local_size},
        "mpirun": {f"OMPI_COMM_WORLD_{name}": value for name, value in place.items()},
        "jsrun": {f"JSM_NAMESPACE_{name}": value for name, value in place.items()},
        "mpiexec": {"PMI_RANK": rank, "PMI_SIZE": size, "MPI_LOCALRANKID": local_rank, "MPI_LOCALNRANKS": local_size},
        "srun": {"SLURM_STEP_ID": 0, "SLURM_PROCID": rank, "SLURM_NTASKS": size, "SLURM_LOCALID": local_rank,
                 "SLURM_STEP_TASKS_PER_NODE": f"{local_size}(x{size // local_size})"},
    }  # fmt: skip
    return {name: str(value) for name, value in named[program].items()}


PROGRAMS = ("torchrun", "mpirun", "jsrun", "mpiexec", "srun")
SET = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_NAME")
JOB = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_TASKS_PER_NODE": "4"}  # outside srun


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch):
    """Sets environment variables as a launcher does, in the place of all others of its kind."""
    known = {name for program in PROGRAMS for name in variables(program, 0, 2, 0, 2)} | {*JOB, *SET, *launchers.JOB}

    def give(environment: Mapping[str, str]) -> None:
        for name in known:
            monkeypatch.setenv(name, environment.get(name, ""))
            if name not in environment:
                monkeypatch.delenv(name)

    return give


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_launcher_is_known_also_inside_a_job_of_slurm(program: str) -> None:
    given = JOB | variables(program, rank=3, size=4, local_rank=1, local_size=2)
    assert launched(given) == Launch(program, 3, 4, 1, 2)


@pytest.mark.parametrize("given", [{}, JOB, variables("srun", 0, 1, 0, 1), variables("mpirun", 0, 1, 0, 1)])
def test_one_process_alone_may_start_others_itself(given: dict[str, str]) -> None:
    assert launched(given) is None


def test_machines_with_different_numbers_are_refused() -> None:
    given = variables("srun", 0, 3, 0, 1) | {"SLURM_STEP_TASKS_PER_NODE": "2,1"}
    with pytest.raises(UserError, match=r"srun started different numbers .*2,1"):
        launched(given)
    with pytest.raises(UserError, match="mpirun started different numbers"):
        launched(variables("mpirun", 0, 3, 0, 2))


def test_a_launcher_that_says_too_little_is_refused() -> None:
    with pytest.raises(UserError, match="PMI_LOCAL_RANK is missing"):
        launched({"PMI_RANK": "1", "PMI_SIZE": "2"})


@pytest.mark.parametrize("program", PROGRAMS)
def test_one_process_is_the_first(program: str, world) -> None:
    world(variables(program, 0, 4, 0, 2))
    assert is_first()
    world(variables(program, 2, 4, 0, 2))
    assert not is_first()


@pytest.mark.parametrize(
    ("local_size", "devices", "nodes", "said"),
    [
        (2, 1, 1, []),
        (2, "auto", 1, []),
        (2, -1, 2, ["trainer.num_nodes=2"]),
        (2, 2, 2, ["trainer.devices=2", "trainer.num_nodes=2"]),
        (2, "0,1", 2, ["trainer.devices=0,1"]),
        (2, [2, 3], 2, []),
        (2, 2, 1, ["trainer.devices=2"]),
        (1, 1, 4, ["trainer.devices=1", "trainer.num_nodes=4"]),
    ],
)
def test_what_agrees_is_taken(local_size: int, devices: object, nodes: int, said: list[str]) -> None:
    launch = Launch("torchrun", 0, 4, 0, local_size)
    expected = {"devices": local_size, "num_nodes": 4 // local_size}
    assert adopted({"devices": devices, "num_nodes": nodes}, launch, said) == expected


@pytest.mark.parametrize(
    ("devices", "nodes", "said"),
    [
        (1, 1, ["trainer.devices=1"]),
        (4, 1, []),  # four on one machine, not two on each of two
        (1, 4, ["trainer.devices=1", "trainer.num_nodes=4"]),
        (1, 3, []),
    ],
)
def test_what_contradicts_is_refused_with_what_to_set(devices: object, nodes: int, said: list[str]) -> None:
    launch = Launch("srun", 0, 4, 0, 2)
    with pytest.raises(
        UserError, match=r"srun started 4 processes, 2 on each of 2.*trainer\.devices=2 trainer\.num_nodes=2"
    ):
        adopted({"devices": devices, "num_nodes": nodes}, launch, said)


def test_lightning_neither_requeues_nor_checkpoints_under_slurm(world) -> None:
    world(variables("srun", 1, 2, 1, 2) | {"SLURM_JOB_NAME": "night"})
    environment = launchers.environment()
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue
    environment.validate_settings(num_devices=2, num_nodes=1)
    world(variables("torchrun", 1, 2, 1, 2))
    assert isinstance(launchers.environment(), TorchElasticEnvironment)


def test_processes_of_mpi_meet_on_one_machine_and_must_be_told_where_on_several(world) -> None:
    given = variables("mpirun", 1, 2, 1, 2) | {"PMIX_NAMESPACE": "night@1"}
    world(given)
    environment = launchers.environment()
    assert isinstance(environment, LightningEnvironment)
    assert environment.creates_processes_externally
    assert (environment.local_rank(), environment.node_rank(), environment.main_address) == (1, 0, "127.0.0.1")
    port = environment.main_port
    world(variables("mpirun", 0, 2, 0, 2) | {"PMIX_NAMESPACE": "night@1"})
    assert launchers.environment().main_port == port
    world(variables("mpirun", 1, 2, 0, 1))
    with pytest.raises(UserError, match=r"several machines meet.*MASTER_ADDR"):
        launchers.environment()
    world({"MASTER_ADDR": "node1"} | variables("mpirun", 1, 4, 0, 2))
    with pytest.raises(UserError, match="--map-by slot"):
        launchers.environment()
