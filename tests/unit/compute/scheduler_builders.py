"""Hosts and requests with defaults, for the scheduler's tests."""

from dataclasses import fields, replace
from typing import Any

from compute.scheduling.request import Request
from db.compute_nodes import Candidate, ComputeNode

NODE = ComputeNode(
    id=1,
    service_id=1,
    host="host1",
    vcpus=8,
    memory_mb=16384,
    local_gb=100,
    vcpus_used=0,
    memory_mb_used=0,
    local_gb_used=0,
    cpu_allocation_ratio=1.0,
    ram_allocation_ratio=1.0,
    disk_allocation_ratio=1.0,
    hypervisor_type="QEMU",
    hypervisor_version=8002000,
    cpu_info=None,
    running_vms=0,
    free_memory_mb=None,
    free_local_gb=None,
)
_OWN = {field.name for field in fields(Candidate)} - {"node"}


def a_host(host: str = "host1", **facts: Any) -> Candidate:
    """An idle, enabled host that reported just now; `facts` are fields of Candidate or ComputeNode."""
    own = {"availability_zone": "nova", "disabled": False, "age_s": 1.0}
    own |= {name: facts.pop(name) for name in _OWN & facts.keys()}
    return Candidate(node=replace(NODE, host=host, **facts), **own)  # type: ignore[arg-type]


def a_request(**facts: Any) -> Request:
    """A small instance of no special wishes."""
    return Request(**{"vcpus": 1, "memory_mb": 512, "local_gb": 1, **facts})


def by_name(*hosts: Candidate) -> dict[str, Candidate]:
    """Hosts as planners take them."""
    return {host.node.host: host for host in hosts}
