"""Options of the fake driver."""

from __future__ import annotations

from oslo_config import cfg

OPTS = [
    cfg.StrOpt(
        "fake_state_path",
        help="Directory in which the fake hypervisors keep their guests, so that they outlive the daemon and move "
        "between daemons that share it. Unset: guests live in the daemon's memory and end with it.",
    ),
    cfg.IntOpt("fake_vcpus", default=16384, min=1, help="CPUs of a fake host (overcommit is allowed)."),
    cfg.IntOpt(
        "fake_memory_mb", default=64 * 1024**2, min=1, help="Memory of a fake host, in MiB; guests get no more."
    ),
    cfg.IntOpt("fake_local_gb", default=1024**2, min=1, help="Disk of a fake host, in GiB; guests get no more."),
    cfg.FloatOpt("fake_latency_s", default=0.0, min=0.0, help="Seconds that every call to a fake hypervisor takes."),
    cfg.ListOpt(
        "fake_failures",
        default=[],
        help="Failures to inject: POINT:ERROR[:MESSAGE[:TIMES]] or POINT:hang. POINT is a driver method (spawn) or a "
        "step of one (spawn.disks), ERROR a class of virt.errors; without TIMES it fails for ever.",
    ),
    cfg.IntOpt("fake_seed", help="Seed of console tokens and disk contents, for runs that can be repeated."),
]
