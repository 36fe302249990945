"""What an operator sees of a guest: serial line, terminals and screen."""

from __future__ import annotations

from virt.libvirt.xml.node import Node, at


class Serial(Node):
    """The first serial line: a terminal, and a log file that outlives it."""

    TAG = "serial"
    type: str = at("@type", default="pty")
    log_file: str | None = at("log/@file", default=None)
    log_append: str | None = at("log/@append", default=None)
    port: int = at("target/@port", default=0)


class Console(Node):
    """A terminal of a guest that has no serial line; the first is what its init or kernel prints on."""

    TAG = "console"
    type: str = at("@type", default="pty")
    target_type: str | None = at("target/@type", default=None)
    port: int | None = at("target/@port", default=None)


class Vnc(Node):
    """A screen served by VNC on a port that libvirt picks."""

    TAG = "graphics"
    type: str = at("@type", default="vnc")
    port: int = at("@port", default=-1)
    autoport: bool = at("@autoport", default=True)
    keymap: str | None = at("@keymap", default=None)
    listen: str = at("@listen")
    listen_type: str = at("listen/@type", default="address")
    listen_address: str = at("listen/@address")


class Video(Node):
    """The graphics card."""

    TAG = "video"
    model: str = at("model/@type")
