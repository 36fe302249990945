"""The connection: reopened when lost, left when hung on, and never taken for an empty host."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import libvirt
import pytest

from virt.errors import (
    DriverTimeoutError,
    GuestExistsError,
    GuestNotFoundError,
    GuestStateError,
    HypervisorError,
    HypervisorUnreachableError,
)
from virt.libvirt.domains import Domains
from virt.libvirt.host import Host


class FakeConnection:
    """Enough of virConnect; `hung` holds the names whose lookup never ends."""

    def __init__(self, hung=(), release=None):
        self.alive, self.hung, self.release = True, hung, release

    def isAlive(self):  # noqa: N802 - libvirt's name
        return int(self.alive)

    def setKeepAlive(self, interval, count):  # noqa: N802 - libvirt's name
        assert interval > 0 < count

    def lookupByName(self, name):  # noqa: N802 - libvirt's name
        if name in self.hung:
            self.release.wait()
        return self

    def UUIDString(self):  # noqa: N802 - libvirt's name
        return "u"

    def metadata(self, _kind, _namespace):
        return '<instance cluster="c" uuid="u" name="vm" project="p" epoch="1"/>'

    def info(self):
        return [1, 1024, 1024, 1, 0]

    def hasManagedSaveImage(self, _flags):  # noqa: N802 - libvirt's name
        return 0


class Failure(libvirt.libvirtError):
    """libvirt's error with a code of our choice."""

    def __init__(self, code, domain=libvirt.VIR_FROM_QEMU):
        super().__init__("libvirt said no")
        self.err = (code, domain, "libvirt said no", 2, "", None, None, 0, 0)


class Factory:
    """Makes connections and remembers them."""

    def __init__(self, **changes):
        self.made, self.down, self.changes = [], False, changes

    def __call__(self, uri):
        if self.down:
            raise Failure(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC)
        self.made.append(FakeConnection(**self.changes))
        return self.made[-1]


def raising(error):
    def work(_connection):
        raise error

    return work


@pytest.fixture
def release():
    event = threading.Event()
    yield event
    event.set()


def test_a_lost_connection_is_reopened_by_the_next_call():
    factory = Factory()
    host = Host("fake:///", connect=factory)
    host.call("a", lambda connection: None)
    factory.made[0].alive = False
    assert host.call("a", lambda connection: connection) is factory.made[1]


def test_no_connection_is_no_fact_about_any_guest():
    factory = Factory()
    factory.down = True
    with pytest.raises(HypervisorUnreachableError, match="fake:///"):
        Domains(Host("fake:///", connect=factory), "c").list_guests()


def test_a_host_that_is_down_is_not_hammered_and_found_again():
    factory = Factory()
    factory.down = True
    host = Host("fake:///", connect=factory)
    for _ in range(2):
        with pytest.raises(HypervisorUnreachableError):
            host.call("a", lambda connection: None)
    factory.down = False
    with pytest.raises(HypervisorUnreachableError):
        host.call("a", lambda connection: None)
    time.sleep(0.25)
    host.call("a", lambda connection: None)


def test_a_connection_lost_while_listing_makes_no_list():
    factory = Factory()
    host = Host("fake:///", connect=factory)

    def work(connection):
        connection.alive = False
        return []

    with pytest.raises(HypervisorUnreachableError):
        host.listing("(list)", work)


def test_an_error_on_the_way_says_nothing_about_the_guest():
    host = Host("fake:///", connect=Factory())
    lost = Failure(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC)
    with pytest.raises(HypervisorUnreachableError) as caught:
        host.call("a", raising(lost))
    assert caught.value.__cause__ is lost


def test_no_domain_on_a_dead_connection_is_not_believed():
    factory = Factory()
    host = Host("fake:///", connect=factory)

    def work(connection):
        connection.alive = False
        raise Failure(libvirt.VIR_ERR_NO_DOMAIN)

    with pytest.raises(HypervisorUnreachableError):
        host.call("a", work)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, GuestNotFoundError),
        (libvirt.VIR_ERR_OPERATION_INVALID, GuestStateError),
        (libvirt.VIR_ERR_DOM_EXIST, GuestExistsError),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, DriverTimeoutError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, HypervisorError),
    ],
)
def test_libvirts_errors_become_ours_and_keep_their_words(code, kind):
    with pytest.raises(kind, match="instance-1: libvirt said no") as caught:
        Host("fake:///", connect=Factory()).call("instance-1", raising(Failure(code)))
    assert type(caught.value) is kind


def test_hung_guests_delay_no_other(release):
    hung = {f"hung-{n}" for n in range(10)}
    factory = Factory(hung=hung, release=release)
    domains = Domains(Host("fake:///", connect=factory, call_timeout_s=0.1), "c")
    before = threading.active_count()
    for name in hung:
        with pytest.raises(DriverTimeoutError):
            domains.get_info(name)
    start = time.monotonic()
    for n in range(100):
        domains.get_info(f"well-{n}")
    assert time.monotonic() - start < 5  # one deadline each would be ten
    assert threading.active_count() <= before + len(hung) + 1


def test_a_connection_that_a_call_hangs_on_is_left_to_it(release):
    factory = Factory(hung={"hung"}, release=release)
    host = Host("fake:///", connect=factory, call_timeout_s=0.05)
    with pytest.raises(DriverTimeoutError):
        Domains(host, "c").get_info("hung")
    assert host.call("well", lambda connection: connection) is factory.made[1]
    with pytest.raises(DriverTimeoutError):
        Domains(host, "c").get_info("hung")
    assert len(factory.made) == 2


def test_opening_that_hangs_is_unreachable(release):
    host = Host("fake:///", connect=lambda uri: release.wait(), open_timeout_s=0.05)
    for _ in range(2):
        with pytest.raises(HypervisorUnreachableError):
            host.call("a", lambda connection: None)


def test_no_two_calls_are_ever_on_one_connection(release):
    factory = Factory(hung={"slow"}, release=release)
    host = Host("fake:///", connect=factory)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(host.call, "slow", lambda connection: connection.lookupByName("slow"))
        while not factory.made:
            time.sleep(0.01)
        quick = {host.call(f"quick-{n}", lambda connection: connection) for n in range(3)}
        release.set()
        assert slow.result() not in quick
    assert len(quick) == 1


def test_a_connection_that_a_call_failed_on_is_used_again():
    factory = Factory()
    host = Host("fake:///", connect=factory)
    for error in (Failure(libvirt.VIR_ERR_NO_DOMAIN), ValueError()):
        with pytest.raises((GuestNotFoundError, ValueError)):
            host.call("a", raising(error))
    host.call("a", lambda connection: connection)
    assert len(factory.made) == 1
