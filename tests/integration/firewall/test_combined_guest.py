"""A real guest of a host that routes, behind libvirt's filters and iptables, from nova-manage to packets.

The tests are steps of one story, in order.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.functional.harness import ROOT, eventually
from tests.integration.filtered_guests import BOOT_S, RoutedLab, furnished

pytestmark = pytest.mark.real

FLAGS = {"firewall_driver": "nwfilter+iptables", "network_manager": "flatdhcp"}


@pytest.fixture(scope="module")
def lab(guest_image):
    with furnished(RoutedLab, guest_image, **FLAGS) as lab:
        yield lab


def test_a_daemon_that_would_filter_by_libvirt_alone_does_not_start_there(lab, tmp_path):
    config = tmp_path / "alone.conf"
    options = lab.daemon.options | {"firewall_driver": "nwfilter"}
    config.write_text("[DEFAULT]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()))
    command = [sys.executable, "-m", "compute.service", "--config-file", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 1
    (told,) = done.stderr.strip().splitlines()
    for words in ("firewall_driver = nwfilter:", "network_manager = flatdhcp", "network_routing = nat"):
        assert words in told


def test_a_guest_gets_its_address_and_what_a_rule_names_by_both_paths(lab):
    lab.operate("vm", "boot", "--name", "one", "--instance_type", "m1.nano", "--image", "tiny", "--wait")
    lab.operate("secgroup", "add-rule", "default", "icmp")
    eventually(lambda: "GUEST-READY" in lab.operate("vm", "console_log", "one"), BOOT_S, "its marker")
    eventually(lambda: lab.reached() == [True, True, False, False], 60, "answers to pings")
    assert lab.operate.ask("verify", "--hosts") == []


def test_both_filter_its_tap(lab):
    (interface,) = [
        line.split() for line in lab.host.run("virsh", "nwfilter-binding-list").splitlines() if "tap" in line
    ]
    dev, name = interface
    assert name.startswith("nova-instance-")
    assert "nova-base" in lab.host.run("virsh", "nwfilter-dumpxml", name)
    assert "secgroup" not in lab.host.run("virsh", "nwfilter-dumpxml", name)
    assert f'"{dev}"' in lab.host.run("nft", "list", "table", "bridge", "micronova")


def test_a_deleted_guest_leaves_nothing_of_either(lab):
    lab.operate("vm", "delete", "one", "--wait")
    assert "nova-instance" not in lab.host.run("virsh", "nwfilter-list")
    assert "nova-compute-tap" not in lab.host.run("iptables-save", "-t", "filter")
    assert "nova-compute-inst" not in lab.host.run("iptables-save", "-t", "filter")
    assert '"tap' not in lab.host.run("nft", "list", "table", "bridge", "micronova").replace('"tap2163e*"', "")
