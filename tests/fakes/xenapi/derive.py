"""Write model.txt, the compact table of the classes and messages that the simulator serves, from the data model.

python -m tests.fakes.xenapi.derive FOLDER: the folder with xapi's published xenapi.json and optional_args.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLASSES = [
    *("session", "task", "event", "pool", "host", "host_metrics", "host_cpu", "VM", "VM_metrics", "VM_guest_metrics"),
    *("console", "VBD", "VDI", "SR", "PBD", "network", "VIF", "PIF", "VLAN", "data_source"),
]
MARKS = {"RW": "*", "RO/constructor": "+", "RO/runtime": "-"}
TABLE = Path(__file__).with_name("model.txt")


def table_of(model: list[dict[str, Any]], optional: dict[str, Any], served: set[str]) -> str:
    """The table's text. served: names of the messages that have a handler."""
    classes = {one["name"]: one for one in model}
    lines: list[str] = []
    for name in CLASSES:
        lines += [*_class_lines(classes[name], optional, served), ""]
    used = "\n".join(lines)
    enums = {enum["name"]: enum for one in model for enum in one["enums"]}
    for name in sorted(enums):
        if f"enum {name}" in used:
            lines.append(f"enum {name}: {' '.join(value['name'] for value in enums[name]['values'])}")
    return "\n".join(lines) + "\n"


def _class_lines(one: dict[str, Any], optional: dict[str, Any], served: set[str]) -> Iterator[str]:
    accessors = {prefix + field["name"] for field in one["fields"]
                 for prefix in ("get_", "set_", "add_", "remove_", "add_to_", "remove_from_")}  # fmt: skip
    made = [m["name"] for m in one["messages"] if m["implicit"] and m["name"] not in accessors]
    yield f"class {one['name']}: {' '.join(sorted(made))}".rstrip()
    for field in one["fields"]:
        if field["lifecycle"]["state"] != "Removed_s" and one["name"] != "event":
            default = "" if field.get("default") is None else f" = {field['default']}"
            yield f"{MARKS[field['qualifier']]} {field['name']}: {field['type']}{default}"
    for message in sorted(one["messages"], key=lambda message: str(message["name"])):
        full = f"{one['name']}.{message['name']}"
        if full in served and not message["implicit"]:
            yield _message_line(full, message, optional)


def _message_line(full: str, message: dict[str, Any], optional: dict[str, Any]) -> str:
    loose = {argument for argument, _release, may_be_absent in optional.get(full, []) if may_be_absent}
    first = 0 if full == "session.login_with_password" else 1
    arguments = ", ".join(f"{p['name']}{'?' * (p['name'] in loose)}: {p['type']}" for p in message["params"][first:])
    mark = "~" if full in optional["_sync_only"] else "!"
    return f"{mark} {message['name']}({arguments}) -> {message['result'][0]}"


def main(folder: str) -> None:
    """Write the table."""
    from tests.fakes.xenapi.calls import HANDLERS

    model, optional = (json.loads((Path(folder) / name).read_text()) for name in ("xenapi.json", "optional_args.json"))
    TABLE.write_text(table_of(model, optional, set(HANDLERS)))


if __name__ == "__main__":
    main(*sys.argv[1:])
