"""libvirt's filters in a daemon of green threads: changes of one moment are made, and nothing else stands still."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest

from tests.integration.servers import LibvirtHost, running

pytestmark = pytest.mark.real

GREEN = """
import json, sys, threading, time
from compute import concurrency
concurrency.choose("eventlet")
from tests.builders import a_group, a_rule
from tests.integration.libvirt.bare_guests import a_bare_guest
from virt.firewall.conntrack import Connections
from virt.firewall.guard import TapGuard
from virt.firewall.latest import LatestFirewall
from virt.firewall.nwfilter import NWFilterFirewall
from virt.libvirt.calls import Calls
from virt.libvirt.host import Host
from virt.libvirt.nwfilters import NWFilters

def guests(port):
    group = a_group(a_rule(from_port=port, to_port=port), id=7)
    return [a_bare_guest(n, id=n, name=f"instance-{n}", security_groups=(group,)) for n in range(10, 20)]

def at_once(change, args):
    threads = [threading.Thread(target=change, args=(one,)) for one in args]
    [one.start() for one in threads]
    [one.join() for one in threads]

def breathe():
    while True:
        breaths.append(time.monotonic())
        time.sleep(0.01)

host = Host("qemu:///system", calls=Calls(threads=concurrency.driver_threads()))
firewall, breaths = LatestFirewall(NWFilterFirewall(NWFilters(host), TapGuard()), Connections()), []
threading.Thread(target=breathe, daemon=True).start()
firewall.init_host()
at_once(firewall.prepare_instance_filter, guests(22))
at_once(lambda spec: firewall.refresh_security_group_rules([spec]), guests(80))
amiss = [str(one) for one in firewall.audit(guests(80), [])]
at_once(firewall.unfilter_instance, guests(80))
left = [name for name in NWFilters(host).names() if name.startswith(("nova-instance", "nova-secgroup"))]
longest = max(later - one for one, later in zip(breaths, breaths[1:]))
print(json.dumps([amiss, left, longest]))
"""


def test_green_threads_filter_without_standing_still():
    with running(functools.partial(LibvirtHost, network=True)) as host:
        command = host.inside(sys.executable, "-W", "ignore", "-c", GREEN)
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    amiss, left, longest_s = json.loads(done.stdout)
    assert (amiss, left) == ([], [])
    assert longest_s < 2
