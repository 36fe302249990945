"""nova-manage network: networks and their pools of addresses."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from compute import network
from compute.cli.command import Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Record, Table, Text, View
from db.networks import Network
from virt.network.mode import NetworkMode

COLUMNS = ("id", "label", "cidr", "gateway", "bridge", "vlan", "dns", "held", "free", "project_id")


def create(session: Session, args: argparse.Namespace) -> View:
    """Define a network."""
    bridge = args.bridge or (f"br{args.vlan}" if args.vlan else session.conf.flat_network_bridge)
    made = network.create(
        session.db,
        session.context,
        label=args.label,
        cidr=args.cidr,
        bridge=bridge,
        gateway=args.gateway,
        dns=args.dns,
        vlan=args.vlan,
        cidr_v6=args.cidr_v6,
        project_id=args.project,
        bridge_interface=args.bridge_interface,
        mode=NetworkMode.from_conf(session.conf),
    )
    return Record(facts=_row(session, made))


def list_networks(session: Session, _args: argparse.Namespace) -> View:
    """The networks that the caller may use, with how full they are."""
    found = network.get_all(session.db, session.context)
    return Table(rows=[_row(session, one) for one in found], columns=COLUMNS, whole=frozenset({"id", "label", "cidr"}))


def delete(session: Session, args: argparse.Namespace) -> View:
    """Withdraw a network that no instance has an address of."""
    network.delete(session.db, session.context, args.network)
    return Text(lines=[f"network {args.network} is deleted"], document={"network": args.network})


def _row(session: Session, row: Network) -> dict[str, Any]:
    held, free = network.pool(session.db, row.id)
    return {**asdict(row), "held": held, "free": free}


NOUN = Noun(
    name="network",
    verbs=(
        Verb(
            name="create",
            run=create,
            help="define a network with its addresses; with --project for that project only",
            example="nova-manage network create private 10.0.0.0/24 --gateway 10.0.0.1 --dns 10.0.0.1",
            arguments=(
                arg("label", metavar="LABEL"),
                arg("cidr", metavar="CIDR", help="its IPv4 addresses, /16 to /30"),
                arg("--bridge", metavar="BR", help="the hosts' bridge (default flat_network_bridge, or brVLAN)"),
                arg("--gateway", metavar="IP", help="default: the first address"),
                arg("--dns", metavar="IP", action="append", default=[], help="a name server; may be repeated"),
                arg("--vlan", metavar="N", help="its VLAN, 1 to 4094"),
                arg("--cidr_v6", metavar="C", help="its IPv6 addresses, a /64"),
                arg("--bridge_interface", metavar="IF", help="the hosts' interface that carries the VLAN"),
            ),
        ),
        Verb(name="list", run=list_networks, help="list networks", example="nova-manage network list"),
        Verb(
            name="delete",
            run=delete,
            help="withdraw a network that no instance uses",
            example="nova-manage network delete private",
            arguments=(arg("network", metavar="NETWORK", completes="networks", help="label or id"),),
        ),
    ),
)
