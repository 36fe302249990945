"""Database options."""

from __future__ import annotations

from oslo_config import cfg

OPTS = [
    cfg.StrOpt(
        "sql_connection",
        default="sqlite:///$state_path/nova.sqlite",
        secret=True,
        help="SQLAlchemy URL of the database: sqlite:///FILE, postgresql+psycopg://..., mysql+pymysql://...",
    ),
    cfg.BoolOpt(
        "sqlite_synchronous",
        default=True,
        help="SQLite has every commit on the disk before anybody is told of it, so that a power cut loses nothing that "
        "was accepted. Without, it may lose the last seconds; the file stays whole either way.",
    ),
    cfg.IntOpt("sql_idle_timeout", default=3600, min=1, help="Seconds after which a pooled connection is replaced."),
    cfg.IntOpt("sql_max_retries", default=12, min=0, help="How often a lost connection is tried again."),
    cfg.FloatOpt("sql_retry_interval", default=1.0, min=0.01, help="Seconds between two such tries, at the most."),
    cfg.IntOpt("sql_pool_size", default=10, min=1, help="Connections that a process keeps open to a server."),
]
