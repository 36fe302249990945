"""Every figure, beside its target, its ceiling and the peer's.

python -m bench                                   on the embedded default
python -m bench --servers                         and on RabbitMQ and PostgreSQL, started here
python -m bench --postgresql URL --rabbit URL     and on these: an empty database, an unused virtual host
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import domain_xml, firewall, places, traffic, upkeep
from bench.places import Place
from bench.rows import PEER_DOMAIN_XML_US, Row, number

URLs = Callable[[], tuple[str, str]]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 when a target is missed."""
    args = _parser().parse_args(argv)
    logging.getLogger("amqp").setLevel(logging.ERROR)  # it warns of every connection that is closed while busy
    console = Console(width=None if sys.stdout.isatty() else 140)
    with ExitStack() as stack:
        new_places = [places.embedded]
        if urls := _server_urls(args, stack):
            new_places.append(lambda: places.servers(*urls()))
        rows = list(_told(console, _measured(new_places, args)))
    console.print(_table(rows))
    if args.json:
        Path(args.json).write_text(json.dumps(_document(rows), indent=2) + "\n")
    return int(any(row.met is False for row in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer operations and instances: a look, not a figure")
    parser.add_argument("--json", metavar="FILE", help="write the rows there as well")
    parser.add_argument("--servers", action="store_true", help="also on RabbitMQ and PostgreSQL, started here")
    parser.add_argument("--postgresql", metavar="URL", help="also on this empty database (with --rabbit)")
    parser.add_argument("--rabbit", metavar="URL", help="and this virtual host, which nothing else uses")
    parser.add_argument("--only", metavar="WORD", default="", help="traffic, sync, start, firewall or xml: these alone")
    return parser


def _server_urls(args: argparse.Namespace, stack: ExitStack) -> URLs | None:
    if args.servers:
        urls: URLs = stack.enter_context(places.own_servers())
        return urls
    if args.postgresql and args.rabbit:
        return lambda: (args.postgresql, args.rabbit)
    return None


def _measured(new_places: Sequence[Callable[[], Any]], args: argparse.Namespace) -> Iterator[Row]:
    for new_place in new_places:
        with new_place() as place:
            yield from _rows_at(place, args)
    if args.only in {"", "firewall"}:
        yield from firewall.rows()
    if args.only in {"", "xml"}:
        found = domain_xml.measure(*((500, 2) if args.quick else ()))
        yield Row(
            what="domain XML", where="libvirt", value=found["domain_xml_us"], unit="us", at_most=found["target_us"],
            peer=PEER_DOMAIN_XML_US,
        )  # fmt: skip


def _rows_at(place: Place, args: argparse.Namespace) -> Iterator[Row]:
    if args.only in {"", "traffic"}:
        yield from traffic.rows(place, times=100 if args.quick else 1000, rounds=1 if args.quick else 3)
    if args.only in {"", "start"}:
        yield from upkeep.start_rows(place, 100 if args.quick else 1000)
    if args.only in {"", "sync"}:
        for count in (10, 1000) if args.quick else (10, 1000, 10_000):
            yield from upkeep.sync_rows(place, count)


def _told(console: Console, rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        console.print(f"[dim]{row.where}: {row.what}: {number(row.value)} {row.unit} {row.verdict}[/dim]")
        yield row


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="micronova: measured, each ceiling in the same run")
    for heading in ("what", "where", "measured", "target", "verdict", "ceiling", "of it", "peer"):
        table.add_column(heading, justify="left" if heading in {"what", "where"} else "right")
    for row in rows:
        table.add_row(
            row.what,
            row.where,
            f"{number(row.value)} {row.unit}",
            f"{row.target} {row.unit}" if row.target else "",
            row.verdict,
            "" if row.ceiling is None else number(row.ceiling),
            "" if row.ratio is None else f"{row.ratio:.0%}",
            "" if row.peer is None else number(row.peer),
        )
    return table


def _document(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()},
        "rows": [row.document() for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
