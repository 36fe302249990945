"""nova-manage host: what hosts have, and what of it instances claim."""

from __future__ import annotations

import argparse
import json
from typing import Any

from compute import hosts
from compute.cli.command import Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Record, Table, View
from db.compute_nodes import Candidate

COLUMNS = ("host", "zone", "status", "state", "hypervisor", "instances", "vcpus", "memory_mb", "local_gb")


def list_hosts(session: Session, args: argparse.Namespace) -> View:
    """Every host: what is claimed, of what may be."""
    down_s = session.conf.service_down_time
    rows = [_facts(one, down_s) for one in hosts.get_all(session.db) if args.zone in {None, one.availability_zone}]
    return Table(rows=rows, columns=COLUMNS, shown=[_shown(row) for row in rows])


def show(session: Session, args: argparse.Namespace) -> View:
    """One host: totals, claims and ratios, and the CPU it reported."""
    found = hosts.get(session.db, args.host)
    cpu_info = json.loads(found.node.cpu_info) if found.node.cpu_info else None
    return Record(facts={**_facts(found, session.conf.service_down_time), "cpu_info": cpu_info})


def _facts(found: Candidate, service_down_time_s: float) -> dict[str, Any]:
    node = found.node
    names = ("vcpus", "memory_mb", "local_gb")
    alive = found.age_s is not None and found.age_s < service_down_time_s
    return {
        "host": node.host,
        "zone": found.availability_zone,
        "status": "disabled" if found.disabled else "enabled",
        "state": ":-)" if alive else "XXX",
        "alive": alive,
        "age_s": found.age_s,
        "instances": node.running_vms,
        **{name: getattr(node, name) for name in names},
        **{f"{name}_used": getattr(node, f"{name}_used") for name in names},
        "cpu_allocation_ratio": node.cpu_allocation_ratio,
        "ram_allocation_ratio": node.ram_allocation_ratio,
        "disk_allocation_ratio": node.disk_allocation_ratio,
        "free_memory_mb": node.free_memory_mb,
        "free_local_gb": node.free_local_gb,
        "hypervisor_type": node.hypervisor_type,
        "hypervisor_version": node.hypervisor_version,
    }


def _shown(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts as the table has them: `claimed/allowed`."""
    pairs = {
        name: f"{facts[f'{name}_used']}/{facts[name] * facts[f'{ratio}_allocation_ratio']:.0f}"
        for name, ratio in (("vcpus", "cpu"), ("memory_mb", "ram"), ("local_gb", "disk"))
    }
    return {**facts, **pairs, "hypervisor": f"{facts['hypervisor_type']} {facts['hypervisor_version']}"}


NOUN = Noun(
    name="host",
    verbs=(
        Verb(
            name="list",
            run=list_hosts,
            help="list compute hosts: claimed/allowed CPUs, MiB and GiB",
            example="nova-manage host list",
            arguments=(arg("zone", metavar="ZONE", nargs="?", help="hosts of this availability zone only"),),
        ),
        Verb(
            name="show",
            run=show,
            help="show one host: totals, claims, ratios, CPU",
            example="nova-manage host show host1",
            arguments=(arg("host", metavar="HOST", completes="hosts"),),
        ),
    ),
)
