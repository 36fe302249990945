"""Options of the compute service, and how configuration is found.

Every option has one owner: this file, db/conf.py, virt/conf.py, compute/scheduler_conf.py or a driver's conf.py.
Values are read in service.py and handed to constructors; nothing else looks at the configuration.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oslo_config import cfg

from compute.errors import ConfigError
from compute.scheduler_conf import OPTS as SCHEDULER_OPTS
from db.conf import OPTS as DB_OPTS
from virt.conf import OPTS as VIRT_OPTS
from virt.fake.conf import OPTS as FAKE_OPTS
from virt.firewall.conf import OPTS as FIREWALL_OPTS
from virt.libvirt.conf import OPTS as LIBVIRT_OPTS
from virt.xenapi.conf import OPTS as XENAPI_OPTS

_LOCATION = r" from LocationInfo\(.*?detail='(?P<file>[^']*)'\)"
_FILES = ("--config-file", "--config-dir")
SEARCH = ("/etc/micronova/micronova.conf", ".state/micronova.conf")


def _default_state_path() -> str:
    local = Path(".state")
    return str(local.resolve()) if local.is_dir() else "/var/lib/micronova"


SERVICE_OPTS = [
    cfg.StrOpt(
        "state_path",
        default=_default_state_path(),
        sample_default="/var/lib/micronova",
        help="Top directory of everything this service keeps on the host. Default: ./.state where it exists.",
    ),
    cfg.StrOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<hostname>",
        help="This host's name in the database and on the bus. It cannot change while instances live here.",
    ),
    cfg.StrOpt("my_ip", default="127.0.0.1", help="The address other hosts reach this one by."),
    cfg.StrOpt("node_availability_zone", default="nova", help="Availability zone of this host, when first registered."),
    cfg.BoolOpt("enable_new_services", default=True, help="A host that registers takes new instances at once."),
    cfg.StrOpt("executor", default="threading", choices=["threading", "eventlet"], help="How RPC verbs run at a time."),
    cfg.IntOpt("rpc_thread_pool_size", default=64, min=1, max=1024, help="RPC verbs that run at a time."),
    cfg.FloatOpt("report_interval", default=10, min=0.1, help="Seconds between heartbeats."),
    cfg.FloatOpt("periodic_interval", default=60, min=0.1, help="Seconds between power-state syncs and audits."),
    cfg.BoolOpt(
        "lifecycle_events",
        default=True,
        help="Look at a guest at once when its hypervisor says that something happened to it, not at the next sync.",
    ),
    cfg.StrOpt(
        "metrics_listen",
        help="HOST:PORT at which Prometheus may fetch metrics; not set: nowhere. There is no password: use loopback, "
        "or an address that guests and strangers do not reach.",
    ),
    cfg.FloatOpt("redrive_interval", default=10, min=0.1, help="Seconds between looks for orders nobody rang for."),
    cfg.FloatOpt("service_down_time", default=60, min=1, help="A host silent for that many seconds is down."),
    cfg.FloatOpt("graceful_stop_timeout", default=60, min=0, help="Seconds a stopping daemon lets operations finish."),
    cfg.StrOpt("logfile", help="Log to this file instead of standard error."),
    cfg.BoolOpt("verbose", default=False, help="Log debug messages."),
    cfg.BoolOpt("use_syslog", default=False, help="Log to syslog as well."),
    cfg.ListOpt(
        "default_log_levels",
        default=[
            "sqlalchemy=WARNING",
            "oslo_messaging=WARNING",
            "amqp=WARNING",
            "alembic=WARNING",
        ],
        help="Levels of other packages' loggers.",
    ),
    cfg.StrOpt("seal_key_file", default="$state_path/seal.key", help="Key that seals secrets; the same on every host."),
]

MESSAGING_OPTS = [
    cfg.StrOpt(
        "transport_url",
        default="sqlite:///$state_path/bus.sqlite",
        secret=True,
        help="The bus: sqlite:///FILE (one machine, nothing to run) or rabbit://user:password@host:port/vhost.",
    ),
    cfg.StrOpt("control_exchange", default="nova", help="Exchange that all topics live in."),
    cfg.StrOpt("compute_topic", default="compute", help="Topic of the compute daemons."),
    cfg.StrOpt("scheduler_topic", default="scheduler", help="Topic of nova-scheduler."),
    cfg.StrOpt("console_topic", default="console", help="Topic of console proxies."),
    cfg.StrOpt("network_topic", default="network", help="Topic that get_network_topic answers with."),
    cfg.StrOpt("console_host", default="$host", help="Host of this host's console proxy."),
    cfg.StrOpt("network_host", default="$host", help="Host that get_network_topic names."),
    cfg.IntOpt("rpc_response_timeout", default=30, min=1, help="Seconds that an RPC call waits for its answer."),
    cfg.IntOpt("rpc_send_retry", default=2, min=0, help="Tries again for a message that the broker did not take."),
    cfg.FloatOpt("broker_timeout", default=10, min=0.1, help="Seconds a starting daemon waits for the broker."),
    cfg.BoolOpt("rabbit_durable_queues", default=True, help="Queues outlive the broker. A change needs a new vhost."),
    cfg.BoolOpt("rabbit_quorum_queue", default=False, help="Queues are replicated. Changing it needs a new vhost."),
]

COMPUTE_OPTS = [
    cfg.StrOpt(
        "compute_driver",
        default="libvirt",
        help="fake, libvirt, xenapi, or a dotted path to a driver class or to a factory taking the configuration.",
    ),
    cfg.StrOpt("instance_name_template", default="instance-%08x", help="A guest's name on its hypervisor, by id."),
    cfg.StrOpt("default_instance_type", default="m1.small", help="Instance type when none is asked for."),
    cfg.StrOpt("null_kernel", default="nokernel", help="A kernel of this name means: boot from the disk."),
    cfg.IntOpt("password_length", default=12, min=4, max=255, help="Length of passwords that the service makes up."),
    cfg.BoolOpt(
        "start_guests_on_host_boot",
        default=False,
        deprecated_name="resume_guests_state_on_host_boot",
        help="After a boot of the host, start the guests that ran when it went down.",
    ),
    cfg.FloatOpt("rescue_timeout", default=0, min=0, help="Unrescue after so many seconds; 0: never."),
    cfg.FloatOpt("shutdown_timeout", default=60, min=0, help="Seconds a guest may take to shut down when asked."),
    cfg.StrOpt("rescue_image_id", help="Image (id or name) that rescue boots; the instance's own when not set."),
    cfg.StrOpt("rescue_kernel_id", help="Kernel image that rescue boots."),
    cfg.StrOpt("rescue_ramdisk_id", help="Ramdisk image that rescue boots."),
    cfg.IntOpt("max_concurrent_builds", default=10, min=1, help="Builds that run at a time on this host."),
    cfg.IntOpt("max_concurrent_migrations", default=1, min=1, help="Migrations at a time on this host."),
    cfg.IntOpt("max_concurrent_snapshots", default=4, min=1, help="Snapshots that run at a time on this host."),
    cfg.IntOpt("scheduler_max_attempts", default=3, min=1, help="Hosts on which a build is tried."),
    cfg.StrOpt(
        "scheduler_mode",
        default="inprocess",
        choices=["inprocess", "rpc"],
        help="inprocess: the caller of create places instances; rpc: nova-scheduler does.",
    ),
    cfg.IntOpt("live_migration_retry_count", default=30, min=1, help="Tries to prepare a migration's destination."),
    cfg.BoolOpt("stub_network", default=False, help="Give instances no network."),
    cfg.StrOpt("flat_network_bridge", default="br100", help="Bridge of networks that are created without one."),
    cfg.IntOpt("reserved_host_memory_mb", default=512, min=0, help="Memory kept for the host itself."),
    cfg.IntOpt("reserved_host_disk_gb", default=0, min=0, help="Disk kept for the host itself."),
    cfg.IntOpt("reserved_host_vcpus", default=0, min=0, help="CPUs kept for the host itself."),
    cfg.FloatOpt("cpu_allocation_ratio", default=16.0, min=0.01, help="Virtual CPUs sold for each real one."),
    cfg.FloatOpt("ram_allocation_ratio", default=1.0, min=0.01, help="Memory sold for each real MiB."),
    cfg.FloatOpt("disk_allocation_ratio", default=1.0, min=0.01, help="Disk sold for each real GiB."),
    cfg.FloatOpt("filter_audit_interval", default=120, min=0, help="Seconds between looks at packet filters; 0: none."),
    cfg.FloatOpt("image_cache_interval", default=3600, min=0, help="Seconds between looks for old images; 0: none."),
    cfg.FloatOpt("image_cache_max_age", default=86400, min=0, help="Seconds an image that no guest has is kept."),
    cfg.IntOpt("sync_mass_change_percent", default=20, min=1, max=100, help="A sync changing more waits for proof."),
    cfg.IntOpt("sync_mass_change_min", default=5, min=1, help="Changes below this number never wait."),
    cfg.IntOpt("sync_mass_change_confirmations", default=2, min=1, help="Further syncs that must see the same."),
]

QUOTA_OPTS = [
    cfg.IntOpt("quota_instances", default=10, min=-1, help="Instances a project may have; -1: no limit."),
    cfg.IntOpt("quota_cores", default=20, min=-1, help="Virtual CPUs a project may have."),
    cfg.IntOpt("quota_volumes", default=10, min=-1, help="Volumes a project may have."),
    cfg.IntOpt("quota_gigabytes", default=1000, min=-1, help="GiB of volumes a project may have."),
    cfg.IntOpt("quota_metadata_items", default=128, min=-1, help="Metadata items an instance may have."),
    cfg.IntOpt("quota_max_injected_files", default=5, min=-1, help="Files that may be injected at boot."),
    cfg.IntOpt("quota_max_injected_file_content_bytes", default=10240, min=-1, help="Size of such a file."),
    cfg.IntOpt("quota_max_injected_file_path_bytes", default=255, min=-1, help="Length of such a file's path."),
    cfg.IntOpt("quota_security_group_rules", default=100, min=-1, help="Rules that a security group may have."),
]

OPTS = [
    *(*SERVICE_OPTS, *MESSAGING_OPTS, *COMPUTE_OPTS, *QUOTA_OPTS, *SCHEDULER_OPTS),
    *(*DB_OPTS, *VIRT_OPTS, *FIREWALL_OPTS, *FAKE_OPTS, *LIBVIRT_OPTS, *XENAPI_OPTS),
]


def load(
    config_files: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    *,
    args: Sequence[str] = (),
    prog: str = "micronova",
) -> cfg.ConfigOpts:
    """Read the configuration: the files given, or the first of SEARCH that exists; then `args` as command-line options.

    Raises ConfigError naming the file or the option.
    """
    conf = _Options()
    files = list(config_files) or [_trusted(name) for name in SEARCH if Path(name).is_file()][:1]
    named, rest = _apart(args)
    conf.register_cli_opts(OPTS) if rest else conf.register_opts(OPTS)  # the former takes time
    usage = "%(prog)s [--config-file FILE]... [--OPTION VALUE]...  (--help lists the options)"
    try:
        conf(
            [*named, *rest],  # so that what it says itself outranks a file, wherever that is named
            project="micronova",
            prog=prog,
            usage=usage,
            default_config_files=files,
            default_config_dirs=[],
        )
        for name, value in (overrides or {}).items():
            conf.set_override(name, value)
        for opt in OPTS:
            getattr(conf, opt.dest)
    except cfg.ConfigFilesNotFoundError as exc:
        raise ConfigError(f"configuration file {', '.join(exc.config_files)} does not exist") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"configuration: {' '.join(named or files)}: not UTF-8 text") from exc
    except (cfg.Error, ValueError) as exc:
        told = re.sub(_LOCATION, r" in \g<file>", str(exc))
        raise ConfigError(f"configuration: {told}") from exc
    return conf


class _Options(cfg.ConfigOpts):
    """Options whose wrong values are told by `load`, which knows their file; oslo's own look prints and exits."""

    def _validate_cli_options(self, namespace: object) -> None:
        """Nothing: `load` looks at every one."""


def _apart(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files and folders that a command line names, and the rest of it."""
    files: list[str] = []
    rest: list[str] = []
    left = iter(args)
    for arg in left:
        if arg in _FILES:
            files += [f"{arg}={value}" for value in [next(left, None)] if value is not None] or [arg]
        else:
            (files if arg.startswith(tuple(f"{name}=" for name in _FILES)) else rest).append(arg)
    return files, rest


def _trusted(name: str) -> str:
    """A file found in the current folder, if only we or root could have put it there: it may name code to load."""
    found = Path(name).stat()
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & stat.S_IWOTH:
        raise ConfigError(f"configuration file {name} belongs to somebody else: name it with --config-file to use it")
    return name


def unknown_options(conf: cfg.ConfigOpts) -> list[str]:
    """Options in the configuration files that nothing here has: misspelt, or of 2011.2 and gone."""
    known = {opt.name for opt in OPTS} | {opt.dest for opt in OPTS}
    found: set[str] = set()
    for name in conf.config_file or []:
        sections: dict[str, dict[str, Any]] = {}
        cfg.ConfigParser(name, sections).parse()
        found |= sections.get("DEFAULT", {}).keys() - known
    return sorted(found)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Everything that oslo-config-generator writes into etc/micronova.conf.sample."""
    return [("DEFAULT", OPTS)]
