"""Bridges and VLANs in a network namespace of their own."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.builders import a_network
from tests.integration.processes import require_root, wait_until
from virt.errors import NetworkError
from virt.network.bridges import Bridges


@pytest.fixture
def namespace():
    require_root()
    with subprocess.Popen(["unshare", "--net", "sleep", "300"]) as holder:
        path = f"/proc/{holder.pid}/ns/net"
        own = subprocess.check_output(["readlink", "/proc/self/ns/net"])
        wait_until(lambda: subprocess.check_output(["readlink", path]) != own, 1, "the namespace")
        yield path
        holder.kill()


@pytest.fixture
def ip(namespace):
    def run(*words):
        out = subprocess.run(
            ["nsenter", f"--net={namespace}", "ip", "-j", "-d", *words], check=True, capture_output=True
        )
        return json.loads(out.stdout or "[]")

    return run


def test_a_bridge_is_made_and_up(namespace, ip):
    Bridges(netns=namespace).ensure(a_network(bridge="br100"))
    [link] = ip("link", "show", "br100")
    assert link["linkinfo"]["info_kind"] == "bridge"
    assert "UP" in link["flags"]
    assert (link["linkinfo"]["info_data"]["forward_delay"], link["linkinfo"]["info_data"]["stp_state"]) == (0, 0)


def test_an_existing_bridge_keeps_its_addresses_and_members(namespace, ip):
    ip("link", "add", "br100", "type", "bridge")
    ip("addr", "add", "10.0.0.1/24", "dev", "br100")
    ip("link", "add", "eth9", "type", "veth", "peer", "eth8")
    ip("link", "set", "eth9", "master", "br100")
    for _ in range(2):
        Bridges(netns=namespace).ensure(a_network(bridge="br100"))
    assert ip("addr", "show", "br100")[0]["addr_info"][0]["local"] == "10.0.0.1"
    assert ip("link", "show", "eth9")[0]["master"] == "br100"


def test_many_at_once_make_one_bridge(namespace, ip):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Bridges(netns=namespace).ensure(a_network(bridge="br100")), range(16)))
    assert len(ip("link", "show", "type", "bridge")) == 1


def test_an_interface_joins_its_bridge(namespace, ip):
    ip("link", "add", "eth9", "type", "veth", "peer", "eth8")
    Bridges(netns=namespace).ensure(a_network(bridge="br100", bridge_interface="eth9"))
    assert ip("link", "show", "eth9")[0]["master"] == "br100"


def test_an_interface_is_not_taken_from_another_bridge(namespace, ip):
    ip("link", "add", "eth9", "type", "veth", "peer", "eth8")
    Bridges(netns=namespace).ensure(a_network(bridge="br100", bridge_interface="eth9"))
    with pytest.raises(NetworkError, match="eth9 is in another bridge"):
        Bridges(netns=namespace).ensure(a_network(bridge="br200", bridge_interface="eth9"))


def test_a_name_that_is_not_a_bridge_is_refused(namespace, ip):
    ip("link", "add", "br100", "type", "veth", "peer", "eth8")
    with pytest.raises(NetworkError, match="br100 exists, and is not a bridge"):
        Bridges(netns=namespace).ensure(a_network(bridge="br100"))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ({"bridge": "a-name-that-is-too-long"}, "cannot be the name"),
        ({"bridge": ""}, "cannot be the name"),
        ({"vlan": 100, "bridge_interface": "eth7"}, "no interface eth7"),
        ({"bridge_interface": "eth7"}, "no interface eth7"),
    ],
)
def test_what_cannot_be_had_is_named(namespace, network, reason):
    with pytest.raises(NetworkError, match=reason):
        Bridges(netns=namespace).ensure(a_network(**network))


@pytest.fixture
def _vlans_work(ip):
    ip("link", "add", "trunk", "type", "veth", "peer", "trunk-end")
    try:
        ip("link", "add", "link", "trunk", "name", "probe", "type", "vlan", "id", "5")
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no VLAN devices; tests/unit/virt/test_network.py shows what would be done")


@pytest.mark.usefixtures("_vlans_work")
def test_a_vlan_joins_its_bridge(namespace, ip):
    Bridges(netns=namespace).ensure(a_network(bridge="br100", vlan=100, bridge_interface="trunk"))
    assert ip("link", "show", "vlan100")[0]["master"] == "br100"
