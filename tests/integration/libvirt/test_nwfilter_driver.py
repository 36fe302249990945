"""The libvirt driver with its filters: they are there before a guest runs, while it does, and not after it."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from tests.builders import a_group, a_guest, a_network, a_rule, a_vif, an_image
from tests.integration.processes import wait_until
from tests.integration.servers import LibvirtHost, running
from tests.integration.two_hosts import ADDRESSES, hide, second_host
from virt.disk import Disks
from virt.errors import NetworkError
from virt.execute import run
from virt.firewall.conntrack import Connections
from virt.firewall.guard import TapGuard
from virt.firewall.latest import LatestFirewall
from virt.firewall.nwfilter import NWFilterFirewall
from virt.images import ImageCache
from virt.libvirt.build import Builder
from virt.libvirt.domain import Platform
from virt.libvirt.driver import LibvirtDriver
from virt.libvirt.host import Host, open_libvirt
from virt.libvirt.migration import Manner
from virt.libvirt.nwfilters import NWFilters
from virt.libvirt.peer import Peers
from virt.network.bridges import Bridges
from virt.network.networks import Networks

pytestmark = pytest.mark.real


class Place:
    """A host, its driver with firewall_driver = nwfilter, and where the driver finds another host."""

    def __init__(self, server, images, other=None):
        host, instances = Host(server.uri), server.folder / "state/instances"
        self.server, self.instances = server, instances
        self.other = other
        firewall = NWFilterFirewall(NWFilters(host), TapGuard(self.execute), execute=self.execute)
        self.driver = LibvirtDriver(
            host,
            Platform(type="qemu", arch="", cluster="filters"),
            Builder(instances, ImageCache(instances / "_base", images), Disks()),
            networks=Networks(Bridges(netns=f"/proc/{server.pid}/ns/net"), server.folder / "networks"),
            firewall=LatestFirewall(firewall, Connections(self.execute)),
            peers=Peers("qemu+tcp://%s/system", connect=lambda uri: open_libvirt(self.other or uri)),
            manner=Manner(tls=False),
        )
        self.driver.init_host(server.name)

    def execute(self, cmd, **options):
        return run(self.server.inside(*cmd), **options)

    def filters(self, spec):
        """True when every tap of a guest is there, filtered and open."""
        held = TapGuard(self.execute).held()
        return {vif.dev for vif in spec.vifs} <= held.open and self.driver.audit_filters([spec], []) == []

    def assert_nothing_is_left(self):
        """No filter of a guest, no tap that is guarded."""
        names = self.execute(["virsh", "nwfilter-list"])
        left = [word for word in names.split() if word.startswith(("nova-instance", "nova-secgroup"))]
        assert (left, TapGuard(self.execute).held().names) == ([], frozenset())


@pytest.fixture(scope="module")
def place(guest_image):
    """A host."""
    with running(functools.partial(LibvirtHost, name="alpha", network=True)) as server:
        made = Place(server, guest_image.kernel.parent)
        yield made
        made.driver.close()


@pytest.fixture
def other_place(place, guest_image):
    """Another host that guests may move to."""
    with second_host(place.server, "beta") as server:
        made = Place(server, guest_image.kernel.parent)
        place.other = server.uri
        hide(server, place.instances, made.instances)
        yield made
        made.driver.close()


@pytest.fixture(scope="module")
def guest(place, guest_image):
    """A running guest that lets SSH in."""
    vif = a_vif(network=a_network(bridge="brfilters"))
    image = an_image(location=str(guest_image.disk), disk_format="qcow2")
    spec = a_guest(image=image, vifs=(vif,), memory_mb=112, security_groups=(a_group(a_rule(), id=7),))
    place.driver.spawn(spec)
    yield spec
    place.driver.destroy(spec)


def test_a_spawned_guest_is_filtered(place, guest):
    assert place.filters(guest)


def test_a_guest_that_was_suspended_is_filtered_again(place, guest):
    place.driver.suspend(guest)
    assert TapGuard(place.execute).held().open == frozenset()
    place.driver.resume(guest)
    assert place.filters(guest)


def test_a_rebooted_guest_is_filtered(place, guest):
    place.driver.reboot(guest)
    assert place.filters(guest)


def test_a_second_interface_is_filtered_as_long_as_it_is_there(place, guest):
    second = a_vif(network=guest.vifs[0].network)
    both = dataclasses.replace(guest, vifs=(*guest.vifs, second))
    place.driver.attach_nic(guest, second)
    assert place.filters(both)
    wait_until(lambda: detached(place.driver, both, second), 20, "the guest lets go of its interface")
    assert place.filters(guest)


def detached(driver, spec, vif):
    try:
        driver.detach_nic(spec, vif)
    except NetworkError:
        return False
    return True


def test_a_guest_that_moves_is_filtered_where_it_comes_and_leaves_nothing_where_it_was(place, other_place, guest):
    other_place.driver.pre_live_migration(guest)
    place.driver.live_migration(guest, ADDRESSES[1])
    place.driver.cleanup_live_migration(guest)
    wait_until(lambda: other_place.filters(guest), 5, "the guest's filters on its new host")
    place.assert_nothing_is_left()
    other_place.driver.destroy(guest)
    other_place.assert_nothing_is_left()
