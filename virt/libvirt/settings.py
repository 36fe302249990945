"""From configuration to what the driver is made of."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from oslo_config.cfg import ConfigOpts

from virt.errors import DriverConfigError
from virt.libvirt.calls import Calls
from virt.libvirt.guest_type import uri_of
from virt.libvirt.host import Host
from virt.libvirt.migration import Manner
from virt.libvirt.parts import Platform
from virt.threads import Threads


def host_of(conf: ConfigOpts, threads: Threads | None) -> Host:
    """The libvirt that the flags name."""
    return Host(
        conf.libvirt_uri or uri_of(conf.libvirt_type),
        calls=Calls(workers=conf.libvirt_max_calls, max_stuck=conf.libvirt_max_stuck_calls, threads=threads),
        call_timeout_s=conf.libvirt_call_timeout,
        open_timeout_s=conf.libvirt_connect_timeout,
    )


def platform_of(conf: ConfigOpts) -> Platform:
    """What the flags say about every guest. Raises DriverConfigError."""
    is_test = conf.libvirt_uri.startswith("test:")
    if (conf.libvirt_cpu_mode == "custom") != bool(conf.libvirt_cpu_model):
        raise DriverConfigError(
            f"libvirt_cpu_model = {conf.libvirt_cpu_model}: it goes with libvirt_cpu_mode = custom, and only with that"
        )
    return Platform(
        type="test" if is_test else conf.libvirt_type,
        arch="",
        cluster=conf.cluster_id,
        machine=conf.libvirt_machine,
        cpu_mode=conf.libvirt_cpu_mode or None,
        cpu_model=conf.libvirt_cpu_model or None,
        firmware=conf.libvirt_firmware,
        disk_cache=conf.libvirt_disk_cache or None,
        vnc_listen=_loopback(conf.vncserver_host) if conf.vnc_enabled else None,
        vnc_keymap=conf.vnc_keymap,
        force_config_drive=conf.force_config_drive,
    )


def manner_of(conf: ConfigOpts) -> Manner:
    """How the flags have guests migrated. Raises DriverConfigError."""
    if conf.live_migration_uri.count("%s") != 1:
        raise DriverConfigError(f"live_migration_uri = {conf.live_migration_uri}: must have one %s, for the address")
    return Manner(
        tls=conf.live_migration_tls,
        tunnelled=conf.live_migration_tunnelled,
        bandwidth=conf.live_migration_bandwidth,
        downtime_ms=conf.live_migration_downtime,
        timeout_s=conf.live_migration_timeout,
        force_complete=conf.live_migration_timeout_action == "force_complete",
        auto_converge=conf.live_migration_auto_converge,
        post_copy=conf.live_migration_post_copy,
        unsafe=conf.live_migration_unsafe,
    )


def absolute(conf: ConfigOpts, option: str) -> Path:
    """A path that an option names. Raises DriverConfigError when it depends on where the daemon was started."""
    path = Path(conf[option])
    if not path.is_absolute():
        raise DriverConfigError(f"{option} = {path}: must be an absolute path")
    return path


def _loopback(address: str) -> str:
    try:
        if ipaddress.ip_address(address).is_loopback:
            return address
    except ValueError as exc:
        raise DriverConfigError(f"vncserver_host = {address}: not an IP address") from exc
    raise DriverConfigError(f"vncserver_host = {address}: guests' screens have no password, so only loopback will do")
