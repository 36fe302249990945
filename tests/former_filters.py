"""What a daemon from before ADR 25 left in the kernel: chains of the taps, and one that marks and accepts.

They are those of the guests `GUESTS` in a group 7 that lets 10.9.0.70 in at port 22, and group 9's members at port 53.
"""

from __future__ import annotations

from pathlib import Path

GUESTS = (1, 10, 11, 100)
_LAYOUT = Path(__file__).parent / "golden" / "iptables" / "former_layout.txt"


def restores(*jumps: str) -> dict[str, str]:
    """What makes iptables and ip6tables have those chains, by program. jumps: what becomes of those to our chains."""
    found = {}
    for section in _LAYOUT.read_text().split("# ")[1:]:
        program, *chains = section.splitlines()
        found[program] = "\n".join(("*filter", *chains, *jumps, "-I OUTPUT 1 -j nova-filter-top", "COMMIT", ""))
    return found
