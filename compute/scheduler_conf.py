"""Scheduler options."""

from __future__ import annotations

from dataclasses import fields

from oslo_config import cfg

from compute.scheduling.drivers import Settings
from compute.scheduling.filters import NAMES

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "scheduler_driver",
        default="filter",
        help="How hosts are chosen: filter (scheduler_filters, then weights), chance (any with room), zone (any of the "
        "zone), simple (fewest vCPUs in use), a 2011.2 class name of these, or a dotted path of a callable that takes "
        "compute.scheduling.drivers.Settings.",
    ),
    cfg.ListOpt(
        "scheduler_filters",
        default=list(NAMES),
        help="Filters of the filter scheduler in the order in which their refusals are told; dotted paths of functions "
        "(candidate, request) -> reason or None may be added. Leaving out enabled, zone, same_host or different_host "
        "turns it off; the others always hold.",
    ),
    cfg.FloatOpt(
        "ram_weight_multiplier",
        default=1.0,
        help="Weight of free memory: positive spreads instances over hosts, negative packs them, 0 does not care.",
    ),
    cfg.FloatOpt("cpu_weight_multiplier", default=0.0, help="Weight of free vCPUs, likewise."),
    cfg.FloatOpt("disk_weight_multiplier", default=0.0, help="Weight of free disk space, likewise."),
    cfg.IntOpt(
        "scheduler_host_subset_size",
        default=1,
        min=1,
        help="Choose by lot among that many of the best hosts, so that many schedulers do not wait for one host's row.",
    ),
    cfg.IntOpt("max_cores", default=16, min=1, help="The most vCPUs that the simple scheduler puts on one host."),
    cfg.FloatOpt(
        "scheduler_wait",
        default=60.0,
        min=0.0,
        help="Seconds that nova-scheduler lets a build wait when no host will have it and one that is down would, as "
        "after a restart of the whole site; 0: it fails at once.",
    ),
    cfg.FloatOpt(
        "scheduler_candidates_ttl",
        default=0.0,
        min=0.0,
        help="Seconds for which a process may go on with the hosts it read last. Room is always checked in the "
        "database; a host that went down is seen that much later. 0: read them for every request.",
    ),
]


def settings(conf: cfg.ConfigOpts) -> Settings:
    """The flags that a scheduling driver takes."""
    values = {field.name: getattr(conf, field.name) for field in fields(Settings)}
    return Settings(**{**values, "scheduler_filters": tuple(conf.scheduler_filters)})
