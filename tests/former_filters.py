"""What a daemon of a former layout left in the kernel.

They are the chains of the guests `GUESTS` in a group 7 that lets 10.9.0.70 in at port 22, and group 9's members at
port 53.
"""

from __future__ import annotations

from pathlib import Path

GUESTS = (1, 10, 11, 100)
LAYOUTS = {
    "before ADR 25: chains of the taps, and one that marks and accepts": ("former_layout.txt", "nova-filter-top"),
    "before ADR 27: every rule in a chain, and each guest marks": ("former_layout_26.txt", "nova-compute-local"),
}
"""Its chains, and where OUTPUT came in."""

_GOLDEN = Path(__file__).parent / "golden" / "iptables"


def restores(layout: str, *jumps: str) -> dict[str, str]:
    """What makes iptables and ip6tables have those chains, by program. jumps: what becomes of those to our chains."""
    name, entry = LAYOUTS[layout]
    found = {}
    for section in (_GOLDEN / name).read_text().split("# ")[1:]:
        program, *chains = section.splitlines()
        found[program] = "\n".join(("*filter", *chains, *jumps, f"-I OUTPUT 1 -j {entry}", "COMMIT", ""))
    return found
