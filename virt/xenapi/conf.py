"""Options of the xenapi driver."""

from __future__ import annotations

from oslo_config import cfg

OPTS: list[cfg.Opt] = [
    cfg.StrOpt("xenapi_connection_url", help="Where the pool's master is: https://HOST[:PORT]. Required by xenapi."),
    cfg.StrOpt("xenapi_connection_username", default="root", help="Account of the pool."),
    cfg.StrOpt("xenapi_connection_password", secret=True, help="Its password. Required by xenapi."),
    cfg.StrOpt("xenapi_ca_file", default="",
               help="File of the certificates (PEM) that the pool's hosts are believed by: their own, or their CA's. "
                    "Empty: those that this machine trusts."),
    cfg.StrOpt("xenapi_host", default="",
               help="The host of the pool that this daemon serves: its name or uuid. Empty: the pool has only one."),
    cfg.StrOpt("xenapi_sr", default="",
               help="Storage repository of guests' disks: its name or uuid. Empty: the pool's default."),
    cfg.StrOpt("xenapi_template", default="Other install media",
               help="Template, without disks, that guests are cloned from: its name or uuid."),
    cfg.FloatOpt("xenapi_login_timeout", default=10.0, min=0.1, help="Seconds that logging in may take."),
    cfg.FloatOpt("xenapi_call_timeout", default=60.0, min=0.1, help="Seconds that the pool may take to answer a call."),
    cfg.FloatOpt("xenapi_task_timeout", default=1200.0, min=1.0,
                 help="Seconds that the pool may take for a task such as starting or suspending a guest."),
    cfg.FloatOpt("xenapi_transfer_timeout", default=14400.0, min=1.0,
                 help="Seconds that moving a disk may take: an upload, a download, a copy, a live migration."),
    cfg.FloatOpt("xenapi_task_poll_interval", default=0.5, min=0.01, help="Seconds between looks at a task."),
    cfg.IntOpt("xenapi_max_calls", default=16, min=2, help="Calls to the pool at a time."),
    cfg.FloatOpt("xenapi_listing_interval", default=600.0, min=1.0,
                 help="Seconds after which all guests are listed anew, should an event have been missed."),
    cfg.IntOpt("xenapi_max_vhd_chain", default=20, min=2,
               help="Longest chain of disk images that a snapshot is made of; xapi itself gives up at 30."),
    cfg.FloatOpt("xenapi_vhd_coalesce_poll_interval", default=5.0, min=0.01,
                 help="Seconds between looks whether a longer one has been coalesced."),
    cfg.IntOpt("xenapi_vhd_coalesce_max_attempts", default=5, min=1, help="Such looks before the snapshot is refused."),
]  # fmt: skip
