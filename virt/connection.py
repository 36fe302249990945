"""Turn the `compute_driver` flag into a driver."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from oslo_config.cfg import ConfigOpts

from virt.driver import ComputeDriver
from virt.errors import DriverConfigError

ALIASES = {
    "fake": "virt.fake.driver.FakeDriver",
    "libvirt": "virt.libvirt.lxc.get_driver",
    "xenapi": "virt.xenapi.driver.XenAPIDriver",
}


def get_connection(conf: ConfigOpts, threads: object | None = None) -> ComputeDriver:
    """The driver that `compute_driver` names: an alias, a dotted class, or a dotted factory taking the configuration.

    threads: what blocking calls are to run on, for drivers that make any (virt.threads.Threads).
    Raises DriverConfigError naming the flag when there is no such thing or it makes something else.
    """
    name: str = conf.compute_driver
    target = _load(name, ALIASES.get(name, name))
    make = getattr(target, "from_conf", target)
    if not callable(make):
        raise DriverConfigError(f"compute_driver = {name}: a {type(target).__name__}, neither a driver nor a factory")
    takes_threads = threads is not None and "threads" in inspect.signature(make).parameters
    driver = make(conf, threads=threads) if takes_threads else make(conf)
    if not isinstance(driver, ComputeDriver):
        raise DriverConfigError(f"compute_driver = {name}: it makes a {type(driver).__name__}, not a ComputeDriver")
    return driver


def _load(name: str, dotted: str) -> Any:
    module_name, _, attribute = dotted.rpartition(".")
    if not module_name:
        raise DriverConfigError(f"compute_driver = {name}: neither one of {', '.join(ALIASES)} nor a dotted path")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as exc:
        raise DriverConfigError(f"compute_driver = {name}: {exc}") from exc
