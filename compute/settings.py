"""The flags that operations look at, read once and frozen."""

from __future__ import annotations

from dataclasses import dataclass

from oslo_config.cfg import ConfigOpts


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Flags by their own names; seconds where a name ends in _timeout or _interval."""

    host: str
    my_ip: str
    stub_network: bool
    password_length: int
    shutdown_timeout: float
    rescue_timeout: float
    rescue_image_id: str | None
    rescue_kernel_id: str | None
    rescue_ramdisk_id: str | None
    scheduler_max_attempts: int
    live_migration_retry_count: int
    images_path: str
    console_host: str
    console_topic: str
    network_host: str
    network_topic: str
    compute_topic: str
    node_availability_zone: str
    reserved_host_memory_mb: int
    reserved_host_disk_gb: int
    reserved_host_vcpus: int
    cpu_allocation_ratio: float
    ram_allocation_ratio: float
    disk_allocation_ratio: float
    image_cache_max_age: float
    sync_mass_change_percent: int
    sync_mass_change_min: int
    sync_mass_change_confirmations: int
    service_down_time: float
    redrive_interval: float
    max_concurrent_builds: int
    max_concurrent_migrations: int
    max_concurrent_snapshots: int

    @classmethod
    def from_conf(cls, conf: ConfigOpts) -> Settings:
        """Read every field from the option of its name."""
        return cls(**{name: getattr(conf, name) for name in cls.__slots__})
