"""How a migration is asked for, followed and ended, without a second host: libvirt is a stand-in here."""

from __future__ import annotations

import threading
import time

import libvirt
import pytest

from tests.builders import a_guest
from virt.errors import DriverTimeoutError, HypervisorError, HypervisorUnreachableError
from virt.libvirt.migration import Manner, Migrator
from virt.power_state import Power


class Domain:
    """A domain that migrates until it is told to stop, forced, or has ended by itself after `takes_s`."""

    def __init__(self, takes_s=60.0, error=None):
        self.takes_s, self.error, self.asked, self._end = takes_s, error, [], threading.Event()

    def migrateToURI3(self, uri, parameters, flags):  # noqa: N802 - libvirt's name
        self.asked.append((uri, parameters, flags))
        self._end.wait(self.takes_s)
        if self.error is not None:
            raise self.error

    def jobStats(self, _flags):  # noqa: N802 - libvirt's name
        running = {"type": 2, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT}
        return {**running, "memory_total": 64 << 20, "memory_remaining": 32 << 20}

    def migrateSetMaxDowntime(self, milliseconds):  # noqa: N802 - libvirt's name
        self.asked.append(milliseconds)
        if milliseconds > 10_000:
            self._end.set()

    def abortJob(self):  # noqa: N802 - libvirt's name
        self.asked.append("abort")
        self.error = HypervisorError("operation aborted")
        self._end.set()


class Domains:
    """Guests whose calls are made on one domain."""

    def __init__(self, domain, power=Power.RUNNING):
        self.domain, self._power = domain, power

    def ask_beside(self, _spec, _what, work, _timeout_s=None):
        return work(self.domain)

    def power(self, _spec):
        if isinstance(self._power, Exception):
            raise self._power
        return self._power

    def live_xml(self, _spec):
        disks = [
            "<disk><source file='/i/g/disk'/><target dev='vda'/></disk>",
            "<disk><source file='/i/g/disk.config'/><target dev='hda'/><readonly/></disk>",
            "<disk><source file='/volumes/1'/><target dev='vdb'/></disk>",
            "<disk><target dev='hdc'/></disk>",
        ]
        return f"<domain><devices>{''.join(disks)}</devices></domain>"


class Anywhere:
    """Peers and builder, as far as a migration's run looks at them."""

    def uri_of(self, address):
        return f"qemu+tls://{address}/system"

    def layout(self, _name):
        return type("Layout", (), {"directory": "/i/g"})


def run(domain, manner, progress=lambda _: None, *, shared=False, power=Power.RUNNING):
    migrator = Migrator(Domains(domain, power), Anywhere(), Anywhere(), manner)
    migrator._run(a_guest(), "192.0.2.7", progress, shared=shared)


def test_disks_of_the_guest_go_along_and_no_others():
    domain = Domain(takes_s=0)
    run(domain, Manner())
    ((uri, parameters, flags), *_) = domain.asked
    assert uri == "qemu+tls://192.0.2.7/system"
    assert parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] == ["vda"]
    assert flags & libvirt.VIR_MIGRATE_NON_SHARED_DISK
    assert flags & libvirt.VIR_MIGRATE_TLS


def test_no_disk_goes_along_where_storage_is_shared():
    manner = Manner(unsafe=True)
    assert libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS not in manner.parameters("h", ["vda"], shared=True)
    assert not manner.flags(shared=True) & libvirt.VIR_MIGRATE_NON_SHARED_DISK
    assert manner.flags(shared=True) & libvirt.VIR_MIGRATE_UNSAFE
    assert not manner.flags(shared=False) & libvirt.VIR_MIGRATE_UNSAFE


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"tunnelled": True}, libvirt.VIR_MIGRATE_TUNNELLED),
        ({"auto_converge": True}, libvirt.VIR_MIGRATE_AUTO_CONVERGE),
        ({"post_copy": True}, libvirt.VIR_MIGRATE_POSTCOPY),
    ],
)
def test_a_flag_is_asked_for_when_it_is_set(changes, flag):
    off = dict.fromkeys(changes, False)
    assert Manner(**changes).flags(shared=False) & flag
    assert not Manner(**off).flags(shared=False) & flag


def test_an_ipv6_address_is_bracketed_and_bandwidth_has_its_limit():
    parameters = Manner(bandwidth=7).parameters("2001:db8::7", [], shared=True)
    assert parameters[libvirt.VIR_MIGRATE_PARAM_URI] == "tcp://[2001:db8::7]"
    assert parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] == 7


def test_progress_is_told_and_the_standstill_limited():
    domain, said = Domain(takes_s=0.7), []
    run(domain, Manner(downtime_ms=300), said.append)
    assert "copying memory: 32 of 64 MiB" in said
    assert 300 in domain.asked


def test_a_migration_that_takes_too_long_is_aborted():
    domain = Domain()
    with pytest.raises(HypervisorError, match=r"within 0\.3 s"):
        run(domain, Manner(timeout_s=0.3))
    assert "abort" in domain.asked


def test_a_migration_that_takes_too_long_is_forced_when_that_is_wanted():
    domain, begun = Domain(), time.monotonic()
    run(domain, Manner(timeout_s=0.3, force_complete=True))
    assert "abort" not in domain.asked
    assert time.monotonic() - begun < 10


def test_a_cancelled_migration_is_aborted_and_says_why():
    domain = Domain()

    def cancel(step):
        if "of" in step:
            raise ValueError(step)

    with pytest.raises(ValueError, match="copying"):
        run(domain, Manner(), cancel)
    assert "abort" in domain.asked


@pytest.mark.parametrize(
    ("error", "power", "kind"),
    [
        (HypervisorError("no route"), Power.RUNNING, HypervisorError),
        (HypervisorError("no route"), Power.SHUTOFF, DriverTimeoutError),
        (HypervisorError("no route"), HypervisorUnreachableError("cut"), DriverTimeoutError),
        (HypervisorUnreachableError("cut"), Power.RUNNING, DriverTimeoutError),
        (DriverTimeoutError("slow"), Power.RUNNING, DriverTimeoutError),
    ],
)
def test_a_failure_is_one_only_where_the_guest_is_known_to_be_here(error, power, kind):
    with pytest.raises(kind) as caught:
        run(Domain(takes_s=0, error=error), Manner(), power=power)
    assert type(caught.value) is kind
