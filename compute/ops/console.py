"""Answer what a guest shows and how it can be reached: calls that change nothing."""

from __future__ import annotations

from typing import Any

from virt.driver import ComputeDriver, HasConsole, ReportsStats, require
from virt.spec import ConsoleAccess, InstanceSpec

MAX_OUTPUT_BYTES = 65536


def output(driver: ComputeDriver, spec: InstanceSpec) -> str:
    """The end of the console log, at most 64 KiB."""
    return require(driver, HasConsole).get_console_output(spec, MAX_OUTPUT_BYTES)


def ajax(driver: ComputeDriver, spec: InstanceSpec) -> dict[str, Any]:
    """A one-time way to the serial console: token, host, port."""
    return _access(require(driver, HasConsole).get_ajax_console(spec))


def vnc(driver: ComputeDriver, spec: InstanceSpec) -> dict[str, Any]:
    """A one-time way to the screen: token, host, port."""
    return _access(require(driver, HasConsole).get_vnc_console(spec))


def pool_info(driver: ComputeDriver, console_type: str) -> dict[str, str]:
    """How a console proxy reaches this host: address, username, password."""
    pool = require(driver, HasConsole).get_console_pool_info(console_type)
    return {"address": pool.address, "username": pool.username, "password": pool.password}


def diagnostics(driver: ComputeDriver, spec: InstanceSpec) -> dict[str, int]:
    """The guest's counters."""
    return require(driver, ReportsStats).get_diagnostics(spec)


def _access(access: ConsoleAccess) -> dict[str, Any]:
    return {"token": access.token, "host": access.host, "port": access.port}
