"""Changes inside running guests, through QEMU's guest agent.

An agent may be absent, not up yet, or hang for ever. So agents are asked over a connection of their own, on lanes of
their own, with a deadline that libvirt keeps too; whatever they do not do, the rest of the driver goes on.

`reset_network` leaves what to do to the guest: it writes the network facts (network_data.json as on the config drive)
to NETWORK_FACTS and runs RESET_NETWORK with that path as its argument. docs/guest-data.md tells image makers more.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import re
import time
from collections.abc import Callable
from typing import Any

from virt import configdrive
from virt.errors import DriverTimeoutError, GuestAgentError, HypervisorError, HypervisorUnreachableError
from virt.libvirt import host as lv
from virt.libvirt.domains import Domains
from virt.spec import InstanceSpec

LOG = logging.getLogger(__name__)

NETWORK_FACTS = "/run/micronova-network-data.json"
RESET_NETWORK = "/etc/micronova/reset-network"

_ABSOLUTE = re.compile(r"(/|[A-Za-z]:[\\/])[^\0]*")
_CHUNK = 48 * 1024
_MAX_CALLS = 4
_GRACE_S = 5.0
_PING_S = 5.0
_POLL_S = 0.2


class Agents:
    """The agents in the guests of one libvirt; each thing asked of one takes at most `timeout_s`."""

    def __init__(self, host: lv.Host, cluster: str, *, timeout_s: float = 30.0) -> None:
        self._host = host.another(_MAX_CALLS)
        self._domains, self._timeout_s = Domains(self._host, cluster), timeout_s

    def close(self) -> None:
        """Let go of the connection."""
        self._host.close()

    def set_password(self, spec: InstanceSpec, password: str) -> None:
        """Set the administrator's password. Raises GuestAgentError, GuestNotFoundError."""
        user = administrator(spec)
        _Talk(self._domains, spec, self._timeout_s).do(lambda domain: domain.setUserPassword(user, password, 0))

    def write_file(self, spec: InstanceSpec, path: str, contents: bytes) -> None:
        """Write a file. Raises GuestAgentError, GuestNotFoundError, HypervisorError when the guest cannot."""
        self._write(_Talk(self._domains, spec, self._timeout_s), path, contents)

    def ping(self, spec: InstanceSpec) -> None:
        """Succeed if the agent answers within a few seconds. Raises GuestAgentError, GuestNotFoundError."""
        _Talk(self._domains, spec, min(self._timeout_s, _PING_S)).ask("guest-ping")

    def freeze(self, spec: InstanceSpec) -> None:
        """Have the guest's file systems complete on disk and written no more.

        Raises GuestAgentError, GuestNotFoundError, HypervisorError when the agent will not.
        """
        _Talk(self._domains, spec, self._timeout_s).do(lambda domain: domain.fsFreeze())

    def thaw(self, spec: InstanceSpec) -> None:
        """Let them be written again; succeed if they are not frozen. Raises GuestAgentError, HypervisorError."""
        _Talk(self._domains, spec, self._timeout_s).do(lambda domain: domain.fsThaw())

    def hand_over_network(self, spec: InstanceSpec) -> None:
        """Write the network facts for the next `reset_network`, where an agent takes them."""
        try:
            self.write_file(spec, NETWORK_FACTS, configdrive.network_document(spec))
        except (HypervisorUnreachableError, DriverTimeoutError):
            raise
        except (GuestAgentError, HypervisorError) as exc:
            LOG.info("guest %s: reads its new network facts when it is started next: %s", spec.name, exc)

    def reset_network(self, spec: InstanceSpec) -> None:
        """Hand over the network facts and have the guest use them.

        Raises GuestAgentError, GuestNotFoundError, HypervisorError when the guest's hook is missing or fails.
        """
        talk = _Talk(self._domains, spec, self._timeout_s)
        self._write(talk, NETWORK_FACTS, configdrive.network_document(spec))
        started = talk.ask("guest-exec", path=RESET_NETWORK, arg=[NETWORK_FACTS], **{"capture-output": True})
        while not (done := talk.ask("guest-exec-status", pid=started["pid"]))["exited"]:
            time.sleep(_POLL_S)
        if done.get("exitcode") != 0:
            said = base64.b64decode(done.get("err-data", "")).decode(errors="replace").strip()[-200:]
            raise HypervisorError(f"guest {spec.name}: {RESET_NETWORK} failed in it: {said or done}")

    @staticmethod
    def _write(talk: _Talk, path: str, contents: bytes) -> None:
        if not _ABSOLUTE.fullmatch(path):
            raise HypervisorError(f"{path!r} is not an absolute path")
        handle = talk.ask("guest-file-open", path=path, mode="wb")
        try:
            for start in range(0, len(contents), _CHUNK):
                _write_chunk(talk, handle, contents[start : start + _CHUNK])
        except HypervisorError:  # the agent answers still
            talk.ask("guest-file-close", handle=handle)
            raise
        talk.ask("guest-file-close", handle=handle)


class _Talk:
    """What is asked of one agent until one deadline."""

    def __init__(self, domains: Domains, spec: InstanceSpec, timeout_s: float) -> None:
        self._domains, self._spec = domains, spec
        self._deadline = time.monotonic() + timeout_s

    def ask(self, command: str, **arguments: Any) -> Any:
        """What the agent returns for one of its commands."""
        text = json.dumps({"execute": command, "arguments": arguments})
        left = self._left_s()
        return json.loads(self.do(lambda domain: lv.agent_command(domain, text, left)))["return"]

    def do(self, work: Callable[[lv.Domain], Any]) -> Any:
        """What a call to libvirt returns that needs the agent."""
        left = self._left_s()

        def bounded(domain: lv.Domain) -> Any:
            domain.agentSetResponseTimeout(left, 0)  # else libvirt waits for ever on an agent that hangs
            return work(domain)

        try:
            return self._domains.ask_agent(self._spec, bounded, 2 * left + _GRACE_S)
        except GuestAgentError as exc:
            raise GuestAgentError(f"guest {self._spec.name}: no guest agent answers") from exc

    def _left_s(self) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise GuestAgentError(f"guest {self._spec.name}: the guest agent did not finish within its time")
        return math.ceil(left)


def administrator(spec: InstanceSpec) -> str:
    """The account whose password is set: the image's property os_admin_user, or what its kind of system has."""
    asked = spec.image.properties.get("os_admin_user", "") if spec.image else ""
    return asked or ("Administrator" if spec.os_type == "windows" else "root")


def _write_chunk(talk: _Talk, handle: int, chunk: bytes) -> None:
    while chunk:
        written = talk.ask("guest-file-write", handle=handle, **{"buf-b64": base64.b64encode(chunk).decode()})
        if written["count"] <= 0:
            raise HypervisorError("the guest agent wrote nothing: is the guest's disk full?")
        chunk = chunk[written["count"] :]
