"""What is generated from the code: the tables in docs/, docs/states.md, and the sample configuration.

`.venv/bin/python -m tests.unit.doc_tables` writes it all where it belongs.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oslo_config import generator
from prometheus_client.core import Metric

from compute import errors
from compute import metrics_families as families
from compute.cli import nouns
from compute.cli.command import Argument, Noun, Verb
from compute.cli.parser import FOLLOW
from compute.manager import ComputeManager
from compute.metrics import Histogram
from compute.metrics_families import HypervisorFacts, OwnFacts, RecordFacts
from compute.scheduler_manager import SchedulerManager
from compute.states import as_markdown
from virt import driver
from virt.power_state import Power
from virt.spec import BlockStats, GuestUsage, HostResources, InterfaceStats

REPOSITORY = Path(__file__).resolve().parents[2]
WRAP = ("--wrap-width", "100")
DOCUMENTS = sorted((REPOSITORY / "docs").glob("*.md"))


def rpc_rows(manager: type) -> Iterator[str]:
    """Every exposed verb: arguments with types and defaults, what a call returns, the first line of its docstring."""
    yield from ("| verb | arguments | returns | what it does |", "|---|---|---|---|")
    for name, verb in vars(manager).items():
        if getattr(verb, "exposed", False):
            signature = inspect.signature(verb)
            given = [_parameter(one) for one in signature.parameters.values() if one.name not in {"self", "context"}]
            line = (verb.__doc__ or "").strip().splitlines()[0]
            yield f"| `{name}` | {_code(', '.join(given))} | {_code(str(signature.return_annotation))} | {line} |"


def error_rows() -> Iterator[str]:
    """Every class in compute.errors: nova-manage's exit code for it, and what it means."""
    yield from ("| class | exit code | meaning |", "|---|---|---|")
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, errors.ComputeError):
            yield f"| `{name}` | {kind.exit_code} | {(kind.__doc__ or '').strip()} |"


def cli_rows() -> Iterator[str]:
    """Every verb of nova-manage with its arguments and an example, a table a noun."""
    for name, about in nouns.NOUNS.items():
        noun = nouns.load(name)
        yield from (f"### {name}", "", f"{about[0].upper()}{about[1:]}.", "", "| command | what it does | example |")
        yield "|---|---|---|"
        yield from (_cli_row(noun, verb) for verb in noun.verbs)
        yield ""


def driver_rows() -> Iterator[str]:
    """Every capability, and which driver lists it in its class header; read, not imported: no hypervisor is needed."""
    bases = {path.parent.name: _bases(path) for path in sorted((REPOSITORY / "virt").glob("*/driver.py"))}
    bases.pop("firewall", None)  # a FirewallDriver is no hypervisor's
    bases["libvirt (lxc)"] = _bases(REPOSITORY / "virt/libvirt/lxc.py")
    yield f"| capability | {' | '.join(bases)} | what it does |"
    yield "|---|" + "---|" * (len(bases) + 1)
    for capability in driver.CAPABILITIES:
        names = {one.__name__ for one in driver.CAPABILITIES if issubclass(one, capability)}
        cells = ["yes" if names & found else "no" for found in bases.values()]
        what = (capability.__doc__ or "").strip().splitlines()[0]
        yield f"| `{capability.__name__}` | {' | '.join(cells)} | {what} |"


def metric_rows() -> Iterator[str]:
    """Every metric family: its name as Prometheus stores it, its kind and labels, and what it says."""
    yield from ("| metric | kind | labels | what it says |", "|---|---|---|---|")
    for family in _families():
        samples = family.samples
        labels = sorted(set(samples[0].labels) - {"le"}) if samples else []
        total = "_total" if family.type == "counter" else ""
        yield f"| {family.name}{total} | {family.type} | {', '.join(labels)} | {family.documentation} |"


def _families() -> Iterator[Metric]:
    """One of each, with something in it."""
    disk = BlockStats(**dict.fromkeys(BlockStats.__slots__, 0))
    nic = InterfaceStats(**dict.fromkeys(InterfaceStats.__slots__, 0))
    counters = dict.fromkeys(("vcpus", "cpu_time_ns", "mem_kb", "max_mem_kb"), 0)
    devices: dict[str, Any] = {"disks": {"vda": disk}, "interfaces": {"tap": nic}}
    guest = GuestUsage(name="", uuid="", power=Power.RUNNING, **counters, **devices)
    host = HostResources(**dict.fromkeys(HostResources.__slots__, 0))  # type: ignore[arg-type]
    facts = HypervisorFacts([guest], host)
    yield families.build_info("", "", "")
    yield from families.own_families(OwnFacts({("pausing", "done"): Histogram()}, Histogram(), {"build": 0}, 0))
    yield from families.hypervisor_families(facts, 0.0, answers=True)
    yield from families.record_families(RecordFacts({"active": 0}, {"running": 0}), answers=True)


def _bases(path: Path) -> set[str]:
    """The names of the bases of the driver class in a module."""
    classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    return {getattr(base, "id", "") for node in classes for base in node.bases}


def _cli_row(noun: Noun, verb: Verb) -> str:
    words = [noun.name, verb.name, *map(_argument, verb.arguments), *(map(_argument, FOLLOW) if verb.follows else ())]
    return f"| {_code(' '.join(word for word in words if word))} | {_cell(verb.help)} | {_code(verb.example)} |"


def _argument(item: Argument) -> str:
    options, name = item.options, item.names[0]
    choices = "|".join(map(str, options.get("choices", ())))
    value = options.get("metavar") or choices or name.lstrip("-").upper()
    if not name.startswith("-"):
        return f"[{value}]" if options.get("nargs") == "?" else str(value)
    word = name if options.get("action") == "store_true" else f"{name} {value}"
    repeated = "..." if options.get("action") == "append" else ""
    return f"{word}{repeated}" if options.get("required") else f"[{word}]{repeated}"


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _parameter(one: inspect.Parameter) -> str:
    stars = "**" if one.kind is inspect.Parameter.VAR_KEYWORD else ""
    default = "" if one.default is inspect.Parameter.empty else f" = {one.default!r}"
    return f"{stars}{one.name}: {one.annotation}{default}"


def tables() -> dict[str, list[str]]:
    """Every table by the name that its place in docs/ is marked with."""
    return {
        "compute": [*rpc_rows(ComputeManager)],
        "scheduler": [*rpc_rows(SchedulerManager)],
        "errors": [*error_rows()],
        "cli": [*cli_rows()][:-1],
        "drivers": [*driver_rows()],
        "metrics": [*metric_rows()],
    }


def filled(text: str) -> str:
    """A document with its generated tables renewed."""
    for name, lines in tables().items():
        start, end = f"<!-- generated: {name} -->\n", "<!-- end -->"
        head, mark, rest = text.partition(start)
        if mark:
            text = head + start + "\n" + "\n".join(lines) + "\n\n" + end + rest.partition(end)[2]
    return text


def renew() -> None:
    """Write everything in the repository that is generated: tables, docs/states.md and the sample configuration."""
    for path in DOCUMENTS:
        path.write_text(filled(path.read_text()))
    (REPOSITORY / "docs/states.md").write_text(as_markdown())
    generator.main(["--namespace", "micronova", *WRAP, "--output-file", str(REPOSITORY / "etc/micronova.conf.sample")])


if __name__ == "__main__":
    renew()
