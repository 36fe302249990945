"""A XenServer pool for tests: a real HTTPS server on loopback that the PyPI client `XenAPI` talks to.

It is strict where xapi is: calls, argument types and record fields are those of the published data model
(`model.txt`), objects are opaque references, power states and allowed operations decide what may be done, and errors
carry xapi's codes with xapi's parameters. It proves conformance to the published interface, not behaviour on a real
pool.

    with Pool(folder) as pool:                        # or pool.start() ... pool.stop()
        session = XenAPI.Session(pool.url)            # https://127.0.0.1:PORT; trust pool.ca_file
        session.login_with_password(pool.username, pool.password, "1.0", "test")

The pool

- `pool.hosts`: two of `Host(name, address, is_master, ref, uuid, url)`, alpha and beta; `pool.master` is alpha at
  first, `pool.slave` the other, `pool.make_master("beta")` moves it. Both listen on the same port, on 127.0.0.1 and
  127.0.0.2: what HOST_IS_SLAVE and host.address say has no port, so keep that of the URL. (A 302's Location has it.)
- `pool.url` is the master's; `pool.ca_file` signs both; `pool.host("beta")`; `pool.add_user(name, password, role)`.
- It comes with, by name: SRs `local-alpha`, `local-beta` (`pool.local_sr("alpha")`), `shared` (`pool.shared_sr`, the
  pool's default; all of VHD, types ext and nfs, so sizes are rounded up to 2 MiB), `XenServer Tools` (iso); networks
  `private` (bridge `xenbr0`, a PIF of each host) and `internal` (bridge `xapi0`, no PIF); the template `Other install
  media` (HVM, Halted). `pool.sr(name)`, `pool.network(name)`, `pool.template` are references.
- `pool.add_sr(name, kind=, size=, hosts=)`, `add_network(name)`, `add_vm(name, ...)`, `add_vdi(name, sr, size,
  data)`, `add_target(address, iqn, luns={"1": size}, chap=(user, password))` (iSCSI): more, behind the API's back.

Looking and acting behind the API

- `pool.records("VM")`: {reference: record}; integers are int here. `pool.record("VM", ref)`, `pool.vms()` (no
  templates, snapshots, control domains), `pool.find("VM", name_label="x")`, `pool.leftovers()` (what somebody made,
  by class).
- `pool.vdi_bytes(ref, offset=0, size=-1)`: what is on the disk; `pool.write_vdi(ref, offset, data)`: a guest writes.
- `pool.guest(vm)`: the inside of a guest: `shut_down()`, `reboot()`, `crash()`; `set_deaf()` (clean orders fail with
  VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT), `holds(vbd_or_vif)` (DEVICE_DETACH_REJECTED), `lets_go(device)`,
  `install_tools()`, `remove_tools()`, `xenstore()` (what it sees below vm-data), `output` (what its serial line
  says). Guests have PV drivers ("tools") from their start unless `pool.settings.tools = False`.

What xapi is strict about and is easily missed: a CD takes a VDI only of an SR with content_type iso, and an HVM guest
has no read-only disks, so a config drive is a VBD of type Disk and mode RW. CDs are not hot-plugged. plug and unplug
need a running VM with PV drivers. VM.destroy leaves the VDIs. A clone of a template is one until VM.provision.
Integers are strings, the timeout of event.from is a float. migrate_send wants in its map every disk that the target
host does not see.

Faults: `pool.faults` (see faults.py), each for the calls that come after it; `pending` are those that wait.

- `fail("VM.start", code, *params, nth=1, times=1)`: an error, nothing done; nth counts from here, times=None is for
  ever. Async.VM.start is the same method: it answers with a task, which fails. `fail_after(...)`: done, and an error.
- `lose_reply("VM.clone")`: the work is done, the connection is closed without an answer.
- `drop_request("VM.clone")`: the connection is closed and nothing is done.
- `hang("VM.start", seconds)`: done late; meanwhile the VM is busy, and a task may be cancelled.
  `never_finish(method)`.
- `hold(where, nth=1, done=False)`: a call or transfer stands still, before its work or after it: the answer has
  `.reached` (an Event) and `.release()`; `release()` lets all go on. For killing somebody in the middle.
- transfers, by `import_raw_vdi` or `export_raw_vdi`: `fail_transfer(where, code, *params)` (200, then the task
  fails), `cut_transfer(where, at_bytes)` (the connection drops), `redirect(where)` (302 to the other host),
  `refuse_transfer(where, status)` (a plain HTTP error), `hang_transfer(where, seconds)`. A disk on a storage that the
  host asked does not have is answered with 302 anyway, as xapi does.
- `pool.expire_sessions()`; `pool.fill(sr)` and `pool.free(sr)` (SR_BACKEND_FAILURE_44); `pool.expire_certificate()`,
  and with False a good one again; `pool.cut_off("alpha")`: a context manager in which nothing listens (without names:
  on no host); `pool.kill_host("beta")`; `pool.settings.coalesce = False`: VHD chains only grow
  (SR_BACKEND_FAILURE_109).

What was called: `pool.calls`, a list of `Call(method, args, session, host, error)`, args without the session; methods
as sent, with Async.; transfers as `PUT /import_raw_vdi` with their query. `pool.calls_of("VM.clone")` has both forms.
`violations(pool.calls)` of check.py holds each against the published data model (the method exists and is not removed,
arity, argument types, fields); an empty list is what one wants. Where ../shared is absent, it tells what the server
refused as misuse.
"""

from tests.fakes.xenapi.check import violations
from tests.fakes.xenapi.faults import Faults
from tests.fakes.xenapi.pool import Call, Host, Pool

__all__ = ["Call", "Faults", "Host", "Pool", "violations"]
