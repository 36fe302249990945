"""Connections of addresses that change hands end, by one command, and no others."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

import pytest

from tests.builders import a_guest, a_vif
from virt.errors import DriverConfigError, FirewallError, ProcessError
from virt.firewall.conntrack import Connections, addresses_of

KNOWN = """\
udp      17 29 src=10.0.0.9 dst=10.0.0.5 sport=1 dport=2 src=10.0.0.5 dst=10.0.0.9 sport=2 dport=1 mark=0 use=1
udp      17 29 src=fd00::55 dst=10.0.0.6 sport=1 dport=2 src=10.0.0.66 dst=fd00::55 sport=2 dport=1 mark=0 use=1
"""


class Shell:
    """Lists connections, keeps what else it is asked, and fails it if it is told to."""

    def __init__(self, error=None):
        self.error, self.asked, self.looks = error, [], 0

    def __call__(self, cmd, *, timeout_s, stdin=None):
        if self.error is not None:
            raise self.error
        if cmd == ["conntrack", "-L"]:
            self.looks += 1
            return KNOWN
        self.asked.append((cmd, stdin))
        return ""


@pytest.fixture
def shell():
    return Shell()


@pytest.fixture
def connections(shell):
    return Connections(shell)


def test_connections_end_whoever_began_them_by_one_command(connections, shell):
    connections.forget([IPv4Address("10.0.0.5"), IPv6Address("fd00::55")])
    ((cmd, said),) = shell.asked
    assert cmd == ["conntrack", "--load-file", "-"]
    assert said.splitlines() == [
        "-D --orig-src 10.0.0.5", "-D --reply-src 10.0.0.5", "-D --orig-src fd00::55", "-D --reply-src fd00::55"
    ]  # fmt: skip


def test_where_nothing_is_known_of_an_address_nothing_is_deleted(connections, shell):
    connections.forget([IPv4Address("10.0.0.6"), IPv6Address("fd00::5")])
    assert (shell.looks, shell.asked) == (1, [])


def test_without_addresses_nothing_is_run(connections, shell):
    connections.forget([])
    assert (shell.looks, shell.asked) == (0, [])


def test_a_refusal_names_the_addresses_and_the_reason():
    connections = Connections(Shell(ProcessError(["conntrack"], 1, "you must be root")))
    with pytest.raises(FirewallError, match=r"connections of 10\.0\.0\.5 cannot be ended: .*you must be root"):
        connections.forget([IPv4Address("10.0.0.5")])


def test_a_host_without_the_tool_is_refused():
    connections = Connections(Shell(ProcessError(["conntrack"], 127, "No such file or directory")))
    with pytest.raises(DriverConfigError, match=r"conntrack 1\.4\.7 .*No such file"):
        connections.demand_tool()


def test_the_tool_is_tried_on_an_address_that_nobody_has(connections, shell):
    connections.demand_tool()
    ((_, said),) = shell.asked
    assert all(IPv6Address(line.split()[-1]).is_global is False for line in said.splitlines())


def test_a_guests_addresses_are_those_of_all_its_interfaces_and_the_link_local_ones():
    vifs = (
        a_vif(addresses=(IPv4Interface("10.0.0.5/24"),), addresses_v6=(IPv6Interface("fd00::5/64"),),
              mac="02:16:3e:00:00:05"),
        a_vif(addresses=(IPv4Interface("10.1.0.5/24"),)),
    )  # fmt: skip
    expected = {"10.0.0.5", "10.1.0.5", "fd00::5", "fe80::16:3eff:fe00:5"}
    assert set(map(str, addresses_of(a_guest(vifs=vifs)))) == expected
