"""The only place of the iptables firewall that runs a program: it makes steps, and reads what there is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from virt.errors import DriverConfigError, FirewallError, ProcessError
from virt.execute import Execute, run
from virt.firewall import iptables_guard as guard
from virt.firewall import iptables_text as text
from virt.firewall.iptables_netlink import is_elements
from virt.firewall.iptables_plan import IPSET, NFT, RESTORE, Known, Step
from virt.firewall.rules import FAMILIES

LOG = logging.getLogger(__name__)

VARIANTS = ("", "nft", "legacy")
_TIMEOUT_S = 60.0
_LOCK_ATTEMPTS = 3
_LOCKED_EXIT = 4
_SEES_BRIDGES = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")


class FilterHost:
    """One host's packet filters. variant: `nft`, `legacy`, or empty for what the host's `iptables` is.

    lock_timeout_s: how long one attempt waits for another program that holds iptables' lock; there are three.
    feed_elements: does with nft's lines of elements what nft would, and raises FirewallError; without it, nft does.
    feed_sets: the same of ipset's lines.
    """

    def __init__(
        self,
        execute: Execute = run,
        *,
        variant: str = "",
        lock_timeout_s: int = 10,
        feed_elements: Callable[[str], None] | None = None,
        feed_sets: Callable[[str], None] | None = None,
    ) -> None:
        self._execute, self._lock_timeout_s = execute, lock_timeout_s
        self._feed_elements, self._feed_sets = feed_elements, feed_sets
        middle = f"-{variant}" if variant else ""
        self._restore = {tool: f"{tool}{middle}-restore" for tool in RESTORE.values()}
        self._save = {family: f"{tool}{middle}-save" for family, tool in RESTORE.items()}

    def demand_tools(self) -> None:
        """DriverConfigError naming a program that is missing, or one that this kernel does not serve."""
        for words in ([*self._save.values()], ["ipset"], ["nft"]):
            for program in words:
                try:
                    self._run([program, "--version"])
                except ProcessError as exc:
                    raise DriverConfigError(f"firewall_driver = iptables: {exc}") from exc

    def bypasses(self) -> list[str]:
        """The kernel's switches by which bridged packets go past iptables, in words; empty when all is well."""
        found = []
        for name in _SEES_BRIDGES:
            path = f"/proc/sys/net/bridge/{name}"
            try:
                value = self._run(["cat", path]).strip()
            except ProcessError:
                found.append(f"{path} is missing: the kernel's br_netfilter is not loaded")
                continue
            if value != "1":
                found.append(f"{path} is {value}, and must be 1")
        return found

    def read(self) -> Known:
        """What there is of ours; the number of commands does not grow with the guests. Raises FirewallError."""
        try:
            chains = {family: text.parse(self._run([self._save[family], "-t", "filter"])) for family in FAMILIES}
            sets = text.parse_sets(self._run([IPSET, "save"]))
            rules, taps = self._read_guard()
        except ProcessError as exc:
            raise FirewallError(f"the host's filters cannot be read: {exc}") from exc
        return Known(chains=chains, sets=sets, taps=taps, rules=rules)

    def make(self, steps: Sequence[Step]) -> None:
        """Make these steps in order, or undo those that were made. Raises FirewallError, in the tool's own words."""
        made: list[Step] = []
        for step in steps:
            try:
                self.feed(step.tool, step.text)
            except FirewallError:
                self._undo([*made, *([step] if step.tool == IPSET else [])])
                raise
            made.append(step)

    def feed(self, tool: str, words: str) -> None:
        """Give one tool something to do. Raises FirewallError; another's lock is waited for first."""
        if tool == NFT and self._feed_elements is not None and is_elements(words):
            self._feed_elements(words)
            return
        if tool == IPSET and self._feed_sets is not None:
            self._feed_sets(words)
            return
        for attempt in range(1, _LOCK_ATTEMPTS + 1):
            try:
                self._run(self._command(tool), words)
            except ProcessError as exc:
                if not _is_locked(exc):
                    raise FirewallError(str(exc)) from exc
                LOG.warning("%s: another program holds the lock (attempt %d)", tool, attempt)
                if attempt == _LOCK_ATTEMPTS:
                    waited = _LOCK_ATTEMPTS * self._lock_timeout_s
                    raise FirewallError(f"{tool}: another program has held its lock for {waited} s: {exc}") from exc
            else:
                return

    def _undo(self, made: Sequence[Step]) -> None:
        for step in reversed(made):
            if not step.undo:
                continue
            try:
                self.feed(step.tool, step.undo)
            except FirewallError:  # the first error is the one to tell; what is left is closed, and the audit's to find
                LOG.exception("undoing a change of packet filters failed")

    def _read_guard(self) -> tuple[list[object] | None, dict[str, guard.Facts]]:
        try:
            listed = self._run([NFT, "-j", "list", "table", "bridge", guard.TABLE])
        except ProcessError as exc:
            if "No such file or directory" in exc.stderr and exc.exit_code == 1:
                return None, {}
            raise
        return guard.parse(listed)

    def _command(self, tool: str) -> list[str]:
        if tool == NFT:
            return [NFT, "-f", "-"]
        if tool == IPSET:
            return [IPSET, "restore"]
        return [self._restore[tool], "--noflush", "-w", str(self._lock_timeout_s)]

    def _run(self, command: list[str], stdin: str | None = None) -> str:
        return self._execute(command, timeout_s=_TIMEOUT_S, stdin=stdin)


def _is_locked(error: ProcessError) -> bool:
    return error.exit_code == _LOCKED_EXIT and "lock" in error.stderr
