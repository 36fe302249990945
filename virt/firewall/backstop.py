"""Holds while libvirt moves its own rules about.

Whenever libvirt makes any guest's rules, or starts, it takes the jump to its chain `libvirt-out` out of FORWARD and
puts it in again; between the two every guest would be open. So a chain of ours goes there by itself, and drops what is
for a guest's tap and comes back undecided.
"""

from __future__ import annotations

from virt.errors import FirewallError, ProcessError
from virt.execute import Execute, run
from virt.firewall.iptables_names import TAP_PREFIX

CHAIN = "nova-libvirt-taps"
LIBVIRTS = "libvirt-out"
_JUMP = f"-A FORWARD -j {CHAIN}"
_RULES = (
    f"-A {CHAIN} -j {LIBVIRTS}",
    f"-A {CHAIN} -m physdev --physdev-out {TAP_PREFIX}+ --physdev-is-bridged -j DROP",
)
_TIMEOUT_S, _LOCK_WAIT_S = 60.0, 30
TOOLS = {4: "iptables", 6: "ip6tables"}


class Backstop:
    """The chain on one host. Raises FirewallError, in iptables' own words."""

    def __init__(self, execute: Execute = run) -> None:
        self._execute = execute

    def ensure(self) -> None:
        """Have the chain, and the jump to it; nothing is changed where they are."""
        for tool in TOOLS.values():
            saved = self._run([f"{tool}-save", "-t", "filter"])
            if is_in_place(saved):
                continue
            if f":{LIBVIRTS} " not in saved:
                self._run([tool, "-w", str(_LOCK_WAIT_S), "-N", LIBVIRTS])
            jump = () if _JUMP in saved.splitlines() else (_JUMP.replace("-A FORWARD", "-I FORWARD 1"),)
            text = "\n".join(("*filter", f":{CHAIN} - [0:0]", *_RULES, *jump, "COMMIT", ""))
            self._run([f"{tool}-restore", "-w", str(_LOCK_WAIT_S), "--noflush"], stdin=text)

    def remove(self) -> None:
        """Have no such chain and no jump to it; nothing is changed where there is none."""
        for tool in TOOLS.values():
            saved = self._run([f"{tool}-save", "-t", "filter"])
            if f":{CHAIN} " not in saved:
                continue
            jumps = (line.replace("-A ", "-D ", 1) for line in saved.splitlines() if line == _JUMP)
            text = "\n".join(("*filter", *jumps, f"-F {CHAIN}", f"-X {CHAIN}", "COMMIT", ""))
            self._run([f"{tool}-restore", "-w", str(_LOCK_WAIT_S), "--noflush"], stdin=text)

    def _run(self, cmd: list[str], stdin: str | None = None) -> str:
        try:
            return self._execute(cmd, timeout_s=_TIMEOUT_S, stdin=stdin)
        except ProcessError as exc:
            raise FirewallError(f"chain {CHAIN}: {exc}") from exc


def is_in_place(saved: str) -> bool:
    """True when the chain is what it is to be in what iptables-save printed, and packets come to it."""
    lines = saved.splitlines()
    ours = tuple(line for line in lines if line.startswith(f"-A {CHAIN} "))
    return ours == _RULES and _JUMP in lines
