"""Every table, as SQLAlchemy Core tables; migrations create the same and a test compares the two.

Times are naive UTC from the database server's clock. Rows are soft-deleted: `deleted` is set, names stay readable in
the history. Where a name must be unique among live rows, `live` is 1 while the row lives and NULL after: a unique
index takes any number of NULLs on every supported server.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from db.session import utcnow

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = sa.MetaData(naming_convention=NAMING)

DATETIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=True)


def _ref(name: str, target: str, *, nullable: bool = False, index: bool = True) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, sa.ForeignKey(target), nullable=nullable, index=index)


def _str(name: str, length: int = 255, **kw: Any) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), **kw)


def _int(name: str, default: int | None = None, **kw: Any) -> sa.Column[int]:
    if default is not None:
        kw.setdefault("server_default", sa.text(str(default)))
        kw.setdefault("nullable", False)
    return sa.Column(name, sa.Integer, **kw)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())


def _live() -> sa.Column[int]:
    return sa.Column("live", sa.Integer, nullable=True, server_default=sa.text("1"))


def _table(name: str, *columns: Any) -> sa.Table:
    """A table with an id and the four life-time columns of 2011.2."""
    own = [item for item in columns if isinstance(item, sa.Column)]
    constraints = [item for item in columns if not isinstance(item, sa.Column)]
    return sa.Table(
        name,
        metadata,
        _id(),
        *own,
        sa.Column("created_at", DATETIME, nullable=False, default=utcnow()),
        sa.Column("updated_at", DATETIME, nullable=True),
        sa.Column("deleted_at", DATETIME, nullable=True),
        _flag("deleted"),
        *constraints,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


services = _table(
    "services",
    _str("host", nullable=False),
    _str("binary", nullable=False),
    _str("topic", nullable=False),
    _int("report_count", 0),
    _flag("disabled"),
    _str("disabled_reason"),
    _str("availability_zone", nullable=False),
    _str("compute_id", 36, unique=True),
    _str("owner", 36),
    _str("machine", 64),
    _str("version", 32),
    sa.Column("heartbeat_at", DATETIME, nullable=True),
    sa.UniqueConstraint("host", "binary"),
)

compute_nodes = _table(
    "compute_nodes",
    _ref("service_id", "services.id", index=False),
    _str("host", nullable=False, unique=True),
    _int("vcpus", 0),
    _int("memory_mb", 0),
    _int("local_gb", 0),
    _int("vcpus_used", 0),
    _int("memory_mb_used", 0),
    _int("local_gb_used", 0),
    sa.Column("cpu_allocation_ratio", sa.Float, nullable=False, server_default=sa.text("1")),
    sa.Column("ram_allocation_ratio", sa.Float, nullable=False, server_default=sa.text("1")),
    sa.Column("disk_allocation_ratio", sa.Float, nullable=False, server_default=sa.text("1")),
    _str("hypervisor_type", nullable=False, server_default=""),
    _int("hypervisor_version", 0),
    sa.Column("cpu_info", TEXT, nullable=True),
    _int("running_vms", 0),
    sa.Column("free_memory_mb", sa.Integer, nullable=True),
    sa.Column("free_local_gb", sa.Integer, nullable=True),
)

instance_types = _table(
    "instance_types",
    _str("name", nullable=False),
    _str("flavorid", nullable=False),
    _int("memory_mb", nullable=False),
    _int("vcpus", nullable=False),
    _int("local_gb", nullable=False),
    _int("swap", 0),
    _int("ephemeral_gb", 0),
    _int("rxtx_quota", 0),
    _int("rxtx_cap", 0),
    _live(),
    sa.UniqueConstraint("name", "live"),
    sa.UniqueConstraint("flavorid", "live"),
)

images = _table(
    "images",
    _str("name", nullable=False),
    _str("project_id"),
    _flag("is_public"),
    _str("status", 32, nullable=False),
    _str("disk_format", 16, nullable=False),
    _str("location", 1024, nullable=False),
    _str("sha256", 64),
    sa.Column("size_bytes", sa.BigInteger, nullable=True),
    _int("min_disk_gb", 0),
    _ref("kernel_id", "images.id", nullable=True, index=False),
    _ref("ramdisk_id", "images.id", nullable=True, index=False),
    sa.Column("properties", TEXT, nullable=False),
    _live(),
    sa.UniqueConstraint("name", "live"),
)

instances = _table(
    "instances",
    _str("uuid", 36, nullable=False, unique=True),
    _str("display_name", nullable=False),
    _str("display_description"),
    _str("hostname", nullable=False),
    _str("user_id", nullable=False),
    _str("project_id", nullable=False),
    _ref("image_id", "images.id", nullable=True),
    _ref("kernel_id", "images.id", nullable=True, index=False),
    _ref("ramdisk_id", "images.id", nullable=True, index=False),
    _ref("instance_type_id", "instance_types.id", index=False),
    _int("memory_mb", nullable=False),
    _int("vcpus", nullable=False),
    _int("local_gb", nullable=False),
    _int("swap", 0),
    _int("ephemeral_gb", 0),
    _str("vm_state", 32, nullable=False),
    _str("task_state", 32),
    _int("power_state", 0),
    _int("epoch", 0),
    _str("host"),
    _str("launched_on"),
    _str("availability_zone"),
    _str("reservation_id", 32, nullable=False, index=True),
    _int("launch_index", 0),
    _str("os_type", 32),
    _str("key_name"),
    sa.Column("key_data", TEXT, nullable=True),
    sa.Column("user_data", TEXT, nullable=True),
    sa.Column("sealed_files", TEXT, nullable=True),
    sa.Column("sealed_password", TEXT, nullable=True),
    _flag("locked"),
    sa.Column("fault", TEXT, nullable=True),
    _ref("server_group_id", "server_groups.id", nullable=True),
    _ref("network_id", "networks.id", nullable=True, index=False),
    sa.Column("scheduled_at", DATETIME, nullable=True),
    sa.Column("launched_at", DATETIME, nullable=True),
    sa.Column("terminated_at", DATETIME, nullable=True),
    sa.Column("rescued_at", DATETIME, nullable=True),
    sa.Index("ix_instances_host_deleted", "host", "deleted"),
    sa.Index("ix_instances_usage", "project_id", "deleted", "vcpus", "memory_mb"),
)

instance_actions = _table(
    "instance_actions",
    _ref("instance_id", "instances.id"),
    _str("action", 32, nullable=False),
    _str("step", 64, nullable=False),
    _str("progress"),
    _str("request_id", 64, nullable=False),
    _str("message_id", 64),
    _str("user_id", nullable=False),
    _str("project_id", nullable=False),
    sa.Column("args", TEXT, nullable=False),
    _str("host"),
    _str("state", 16, nullable=False),
    _int("attempt", 0),
    _str("owner", 36),
    sa.Column("error", TEXT, nullable=True),
    sa.Column("traceback", TEXT, nullable=True),
    sa.Column("requested_at", DATETIME, nullable=False, default=utcnow()),
    sa.Column("started_at", DATETIME, nullable=True),
    sa.Column("finished_at", DATETIME, nullable=True),
    sa.Column("deadline", DATETIME, nullable=True),
    sa.UniqueConstraint("message_id", "instance_id", "action"),
    sa.Index("ix_instance_actions_state_host", "state", "host"),
)

instance_metadata = _table(
    "instance_metadata",
    _ref("instance_id", "instances.id", index=False),
    _str("key", nullable=False),
    _str("value", nullable=False),
    sa.UniqueConstraint("instance_id", "key"),
)

migrations = _table(
    "migrations",
    _ref("instance_id", "instances.id"),
    _str("kind", 16, nullable=False),
    _str("source_compute", nullable=False),
    _str("dest_compute", nullable=False),
    _str("dest_host"),
    _ref("old_flavor_id", "instance_types.id", nullable=True, index=False),
    _ref("new_flavor_id", "instance_types.id", nullable=True, index=False),
    _str("old_vm_state", 32),
    _str("status", 32, nullable=False),
    sa.Column("disk_info", TEXT, nullable=True),
)

volumes = _table(
    "volumes",
    _str("display_name"),
    _str("display_description"),
    _str("user_id", nullable=False),
    _str("project_id", nullable=False),
    _str("host"),
    _int("size", nullable=False),
    _str("availability_zone"),
    _str("status", 32, nullable=False),
    _str("attach_status", 32, nullable=False),
    _str("provider_location", 1024),
    sa.Column("sealed_auth", TEXT, nullable=True),
    _flag("managed"),
    sa.Column("scheduled_at", DATETIME, nullable=True),
    sa.Column("launched_at", DATETIME, nullable=True),
    sa.Column("terminated_at", DATETIME, nullable=True),
)

volume_attachments = _table(
    "volume_attachments",
    _ref("volume_id", "volumes.id", index=False),
    _ref("instance_id", "instances.id"),
    _str("mountpoint", nullable=False),
    _str("state", 16, nullable=False),
    _flag("is_root"),
    _flag("delete_on_termination"),
    sa.Column("attach_time", DATETIME, nullable=True),
    _live(),
    sa.UniqueConstraint("volume_id", "live"),
    sa.UniqueConstraint("instance_id", "mountpoint", "live"),
)

security_groups = _table(
    "security_groups",
    _str("name", nullable=False),
    _str("description"),
    _str("user_id", nullable=False),
    _str("project_id", nullable=False),
    _live(),
    sa.UniqueConstraint("project_id", "name", "live"),
)

security_group_rules = _table(
    "security_group_rules",
    _ref("parent_group_id", "security_groups.id"),
    _str("protocol", 5),
    _int("from_port", -1),
    _int("to_port", -1),
    _str("cidr", 64),
    _ref("group_id", "security_groups.id", nullable=True),
)

security_group_instance_association = sa.Table(
    "security_group_instance_association",
    metadata,
    _id(),
    _ref("security_group_id", "security_groups.id"),
    _ref("instance_id", "instances.id", index=False),
    sa.UniqueConstraint("instance_id", "security_group_id"),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)

networks = _table(
    "networks",
    _str("label", nullable=False),
    _str("cidr", 64, nullable=False),
    _str("netmask", 64, nullable=False),
    _str("broadcast", 64),
    _str("gateway", 64),
    _str("dns"),
    _str("dhcp_start", 64),
    _str("bridge", 15, nullable=False),
    _str("bridge_interface", 15),
    _int("vlan"),
    _flag("injected"),
    _str("cidr_v6", 64),
    _str("gateway_v6", 64),
    _str("netmask_v6", 64),
    _str("project_id"),
    _str("host"),
    _live(),
    sa.UniqueConstraint("label", "live"),
    sa.UniqueConstraint("vlan", "live"),
)

fixed_ips = sa.Table(
    "fixed_ips",
    metadata,
    _id(),
    _ref("network_id", "networks.id", index=False),
    _str("address", 64, nullable=False),
    _ref("instance_id", "instances.id", nullable=True),
    _str("mac_address", 17),
    _flag("reserved"),
    _flag("leased"),
    sa.Column("updated_at", DATETIME, nullable=True),
    sa.UniqueConstraint("network_id", "address"),
    sa.Index("ix_fixed_ips_free", "network_id", "reserved", "instance_id", "id"),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)

key_pairs = _table(
    "key_pairs",
    _str("name", nullable=False),
    _str("user_id", nullable=False),
    _str("project_id", nullable=False),
    _str("fingerprint", nullable=False),
    sa.Column("public_key", TEXT, nullable=False),
    _live(),
    sa.UniqueConstraint("user_id", "name", "live"),
)

quotas = _table(
    "quotas",
    _str("project_id", nullable=False),
    _str("resource", 64, nullable=False),
    _int("hard_limit", nullable=False),
    sa.UniqueConstraint("project_id", "resource"),
)

server_groups = _table(
    "server_groups",
    _str("name", nullable=False),
    _str("project_id", nullable=False),
    _str("policy", 32, nullable=False),
    _live(),
    sa.UniqueConstraint("project_id", "name", "live"),
)

console_tokens = _table(
    "console_tokens",
    _str("token_hash", 64, nullable=False, unique=True),
    _ref("instance_id", "instances.id"),
    _str("console_type", 16, nullable=False),
    _str("host", nullable=False),
    _int("port", nullable=False),
    _int("epoch", 0),
    sa.Column("expires_at", DATETIME, nullable=False),
    sa.Column("used_at", DATETIME, nullable=True),
)

provider_fw_rules = _table(
    "provider_fw_rules",
    _str("protocol", 5, nullable=False),
    _int("from_port", -1),
    _int("to_port", -1),
    _str("cidr", 64, nullable=False),
)
