import importlib.util

import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.training.cluster import Member, find_launcher, find_member

STEP = {
    "SLURM_JOB_ID": "4100",
    "SLURM_STEP_NODELIST": "node[07-09],other",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1,2,1",
}
OMPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}
BATCH = {name: STEP[name] for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")}


def members(environ, monkeypatch, *flags):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)  # JAX looks there too
    return find_member(*flags or (None, None, None), environ)


@pytest.mark.parametrize(
    ("environ", "title"),
    [
        (STEP, "Slurm"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (BATCH, None),  # a batch script that starts one process in an allocation of four
        (BATCH | {"SLURM_ARRAY_TASK_ID": "3"}, None),
        (OMPI, "Open MPI"),
        (OMPI | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}, "a TPU"),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        ({}, None),
    ],
)
def test_what_started_several_processes_of_one_job_is_recognized(environ, title):
    launcher = find_launcher(environ)
    assert (launcher and launcher.title) == title


def test_slurm_tells_all(monkeypatch):
    port = 4100 % 2**12 + 65535 - 2**12 + 1  # of JAX's class
    assert members(STEP, monkeypatch) == Member(f"node07:{port}", 4, 2, (1,))


def test_a_task_that_sees_one_gpu_takes_it(monkeypatch):
    assert members(STEP | {"CUDA_VISIBLE_DEVICES": "3"}, monkeypatch).devices is None
    assert members(STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, monkeypatch).devices == (1,)


@pytest.mark.parametrize(("tasks", "devices"), [("1(x4)", None), ("1", None), ("2(x2)", (1,)), ("1,3", (1,))])
def test_a_task_that_has_its_machine_alone_takes_all_of_its_devices(tasks, devices, monkeypatch):
    assert members(STEP | {"SLURM_STEP_TASKS_PER_NODE": tasks}, monkeypatch).devices == devices


def test_open_mpi_tells_all(monkeypatch):
    port = 1531576320 // 2**12 % 2**12 + 65535 - 2**12 + 1
    assert members(OMPI, monkeypatch) == Member(f"10.96.0.1:{port}", 2, 1, (0,))


def test_a_newer_open_mpi_needs_the_coordinator(monkeypatch):
    newer = {name: value for name, value in OMPI.items() if "uri" not in name}
    with pytest.raises(ConfigError, match="need --coordinator=HOST:PORT; Open MPI does not tell it"):
        members(newer, monkeypatch)
    assert members(newer, monkeypatch, "node1:1234", None, None) == Member("node1:1234", 2, 1, (0,))
    alone = newer | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
    assert members(alone, monkeypatch, "node1:1234", None, None) == Member("node1:1234", 2, 1)


def test_kubernetes_is_asked_only_where_its_package_is(monkeypatch):
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert members(pod, monkeypatch) is None
    assert members(pod, monkeypatch, "job-0.service:1234", 3, None) == Member("job-0.service:1234", 3, 1)


def test_flags_come_before_what_the_environment_says(monkeypatch):
    assert members(STEP, monkeypatch, "localhost:1", 3, 0) == Member("localhost:1", 3, 0)
    assert members(STEP, monkeypatch, None, 1, None) is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("node1:1234", 2, None), "several processes of one job need --process=I; nothing here tells it"),
        (("node1:1234", None, 0), "several processes of one job need --processes=N; nothing here tells it"),
        ((None, 2, 0), "several processes of one job need --coordinator=HOST:PORT; nothing here tells it"),
        (("node1:1234", 2, 2), "--process=2 of --processes=2: count from 0 to 1"),
        (("node1", 2, 0), "--coordinator=node1 is not HOST:PORT, as node1:1234"),
        (("node1:70000", 2, 0), "--coordinator=node1:70000 is not HOST:PORT, as node1:1234"),
    ],
)
def test_mistakes_are_named(flags, message):
    with pytest.raises(ConfigError) as caught:
        find_member(*flags, {})
    assert str(caught.value) == message
