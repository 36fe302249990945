"""libvirt's filters and iptables together, on taps of QEMU: what the one has not, or not yet, the other holds."""

from __future__ import annotations

import pytest

from tests.integration.libvirt.stages import GUEST, a_machine, a_stage, sent
from tests.integration.processes import wait_until

pytestmark = pytest.mark.real

LIES = [{"source": "10.0.0.70"}, {"family": 6, "source": "fd00::46"}, {"protocol": "arp", "source": "10.0.0.1"}]


@pytest.fixture(scope="module")
def stage():
    """A host with both, and a running guest."""
    with a_stage("nwfilter+iptables") as made:
        yield made


def lies_leave(stage):
    return [stage.leaves(sent(**lie)) for lie in LIES]


def test_libvirt_makes_no_rule_of_iptables_that_would_admit_what_ours_drop(stage):
    for tool in ("iptables-save", "ip6tables-save"):
        saved = stage.bare.execute([tool, "-t", "filter"])
        assert "nova-compute-tap" in saved or "nova-compute-inst" in saved
        assert GUEST.vifs[0].dev in saved
        assert f"FO-{GUEST.vifs[0].dev}" not in saved
    assert f"libvirt-I-{GUEST.vifs[0].dev}" in stage.bare.execute(["ebtables-save"])


def test_a_starting_guest_gets_nothing_before_its_filters_are_there(stage):
    spec = a_machine(20)
    with stage.under_fire(spec):
        stage.start(spec)
        assert stage.admits_friends(spec)
        stage.bare.stop(spec, stage.firewall)


def test_a_guest_that_runs_without_libvirts_filter_gets_nothing_either(stage):
    """So the moment in which libvirt has put a tap into its bridge, and does not filter it yet, needs no guard."""
    spec = a_machine(21)
    stage.bare.know(spec)
    stage.firewall.prepare_instance_filter(spec)
    with stage.under_fire(spec):
        stage.bare.connection.createXML(stage.bare.document(spec, None), 0)
        assert stage.admits_friends(spec)
    (found,) = stage.firewall.repair([GUEST, spec], [])
    assert (found.guest, found.opened) == (spec.name, False)
    assert stage.firewall.audit([GUEST, spec], []) == []
    stage.bare.stop(spec, stage.firewall)


def test_what_libvirt_has_lost_iptables_holds(stage):
    stage.bare.execute(["ebtables", "-t", "nat", "-F"])
    with stage.under_fire(GUEST):
        assert not any(lies_leave(stage))
    (found,) = stage.firewall.repair([GUEST], [])
    assert (found.guest, found.opened) == (GUEST.name, False)
    assert stage.firewall.audit([GUEST], []) == []


def test_what_the_table_of_the_bridge_has_lost_libvirt_holds(stage):
    stage.bare.execute(["nft", "delete", "table", "bridge", "micronova"])
    with stage.under_fire(GUEST):
        assert not any(lies_leave(stage))
    assert stage.firewall.repair([GUEST], [])
    assert stage.firewall.audit([GUEST], []) == []
    assert stage.admits_friends(GUEST)


def test_libvirt_that_restarts_leaves_the_guest_filtered(stage):
    with stage.under_fire(GUEST):
        stage.bare.host.restart_libvirtd()
        stage.bare.reconnect()
        wait_until(lambda: stage.firewall.audit([GUEST], []) == [], 5, "filters are as they are to be")
        assert not any(lies_leave(stage))
    assert stage.admits_friends(GUEST)


@pytest.fixture
def alone():
    """A host that has had libvirt's filters alone, and a guest that runs on."""
    with a_stage("nwfilter") as made:
        yield made


def test_a_host_comes_over_from_libvirts_filters_alone_while_its_guest_runs(alone):
    with alone.under_fire(GUEST):
        alone.take("nwfilter+iptables")
        alone.firewall.repair([GUEST], [])
    with alone.under_fire(GUEST):
        alone.bare.stop(GUEST)
        alone.start(GUEST)
        assert alone.firewall.audit([GUEST], []) == []
    assert alone.admits_friends(GUEST)
    assert "micronova_guard" not in alone.bare.execute(["nft", "list", "tables"])
    assert "nova-libvirt-taps" not in alone.bare.execute(["iptables-save"])
