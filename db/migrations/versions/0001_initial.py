"""The tables of the first release, and the five flavors of 2011.2.

Revises: nothing
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from db.session import utcnow

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

DATETIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
TABLES = (
    "services",
    "compute_nodes",
    "instance_types",
    "images",
    "server_groups",
    "networks",
    "instances",
    "instance_metadata",
    "instance_actions",
    "migrations",
    "volumes",
    "volume_attachments",
    "security_groups",
    "security_group_rules",
    "security_group_instance_association",
    "provider_fw_rules",
    "fixed_ips",
    "key_pairs",
    "quotas",
    "console_tokens",
)
FLAVORS = (
    ("m1.tiny", "1", 512, 1, 0),
    ("m1.small", "2", 2048, 1, 20),
    ("m1.medium", "3", 4096, 2, 40),
    ("m1.large", "4", 8192, 4, 80),
    ("m1.xlarge", "5", 16384, 8, 160),
)


def upgrade() -> None:
    """Create every table and the flavors."""
    _create_services()
    _create_catalogue()
    _create_networks()
    _create_instances()
    _create_journal()
    _create_volumes()
    _create_security()
    _create_pool()
    _create_projects()
    _create_consoles()
    _add_flavors()


def downgrade() -> None:
    """Drop every table."""
    for name in reversed(TABLES):
        op.drop_table(name)


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


def _bare_table(name: str, *items: Any) -> None:
    key = sa.Column("id", sa.Integer, primary_key=True, autoincrement=True)
    op.create_table(name, key, *items, mysql_engine="InnoDB", mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin")


def _table(name: str, *items: Any) -> None:
    """A table with an id and the four life-time columns of 2011.2."""
    constraints = [item for item in items if not isinstance(item, sa.Column)]
    _bare_table(
        name,
        *(item for item in items if isinstance(item, sa.Column)),
        sa.Column("created_at", DATETIME, nullable=False),
        sa.Column("updated_at", DATETIME, nullable=True),
        sa.Column("deleted_at", DATETIME, nullable=True),
        _flag("deleted"),
        *constraints,
    )


def _create_services() -> None:
    """Daemons and what their hosts offer."""
    _table(
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
    _table(
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


def _create_catalogue() -> None:
    """What instances are made from."""
    _table(
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
    _table(
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
    _table(
        "server_groups",
        _str("name", nullable=False),
        _str("project_id", nullable=False),
        _str("policy", 32, nullable=False),
        _live(),
        sa.UniqueConstraint("project_id", "name", "live"),
    )


def _create_networks() -> None:
    """Where instances are reached."""
    _table(
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


def _create_instances() -> None:
    """Instances."""
    _table(
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


def _create_journal() -> None:
    """What is said about instances and done to them."""
    _table(
        "instance_metadata",
        _ref("instance_id", "instances.id", index=False),
        _str("key", nullable=False),
        _str("value", nullable=False),
        sa.UniqueConstraint("instance_id", "key"),
    )
    _table(
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
        sa.Column("requested_at", DATETIME, nullable=False),
        sa.Column("started_at", DATETIME, nullable=True),
        sa.Column("finished_at", DATETIME, nullable=True),
        sa.Column("deadline", DATETIME, nullable=True),
        sa.UniqueConstraint("message_id", "instance_id", "action"),
        sa.Index("ix_instance_actions_state_host", "state", "host"),
    )
    _table(
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


def _create_volumes() -> None:
    """Disks of their own."""
    _table(
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
    _table(
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


def _create_security() -> None:
    """Who may talk to instances."""
    _table(
        "security_groups",
        _str("name", nullable=False),
        _str("description"),
        _str("user_id", nullable=False),
        _str("project_id", nullable=False),
        _live(),
        sa.UniqueConstraint("project_id", "name", "live"),
    )
    _table(
        "security_group_rules",
        _ref("parent_group_id", "security_groups.id"),
        _str("protocol", 5),
        _int("from_port", -1),
        _int("to_port", -1),
        _str("cidr", 64),
        _ref("group_id", "security_groups.id", nullable=True),
    )
    _bare_table(
        "security_group_instance_association",
        _ref("security_group_id", "security_groups.id"),
        _ref("instance_id", "instances.id", index=False),
        sa.UniqueConstraint("instance_id", "security_group_id"),
    )
    _table(
        "provider_fw_rules",
        _str("protocol", 5, nullable=False),
        _int("from_port", -1),
        _int("to_port", -1),
        _str("cidr", 64, nullable=False),
    )


def _create_pool() -> None:
    """Addresses and who holds them."""
    _bare_table(
        "fixed_ips",
        _ref("network_id", "networks.id", index=False),
        _str("address", 64, nullable=False),
        _ref("instance_id", "instances.id", nullable=True),
        _str("mac_address", 17),
        _flag("reserved"),
        _flag("leased"),
        sa.Column("updated_at", DATETIME, nullable=True),
        sa.UniqueConstraint("network_id", "address"),
        sa.Index("ix_fixed_ips_free", "network_id", "reserved", "instance_id", "id"),
    )


def _create_projects() -> None:
    """What users and projects keep."""
    _table(
        "key_pairs",
        _str("name", nullable=False),
        _str("user_id", nullable=False),
        _str("project_id", nullable=False),
        _str("fingerprint", nullable=False),
        sa.Column("public_key", TEXT, nullable=False),
        _live(),
        sa.UniqueConstraint("user_id", "name", "live"),
    )
    _table(
        "quotas",
        _str("project_id", nullable=False),
        _str("resource", 64, nullable=False),
        _int("hard_limit", nullable=False),
        sa.UniqueConstraint("project_id", "resource"),
    )


def _create_consoles() -> None:
    """Who may look at a screen."""
    _table(
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


def _add_flavors() -> None:
    names = ("name", "flavorid", "memory_mb", "vcpus", "local_gb")
    table = sa.table("instance_types", *map(sa.column, (*names, "created_at")))
    for flavor in FLAVORS:
        op.execute(sa.insert(table).values(created_at=utcnow(), **dict(zip(names, flavor, strict=True))))
