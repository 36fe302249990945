"""Refresh packet filters after a change of security groups; drivers without filters have nothing to refresh."""

from __future__ import annotations

from dataclasses import asdict

from compute.specs import SpecBuilder
from db import instances, provider_fw_rules, security_groups, work
from db.session import Database
from virt.driver import ComputeDriver, FiltersTraffic


def refresh_rules(db: Database, driver: ComputeDriver, specs: SpecBuilder, host: str, group_id: int) -> None:
    """Make the filters of this host's members of a group match its rules."""
    if not isinstance(driver, FiltersTraffic):
        return
    with db.read() as tx:
        ids = [row.id for row in instances.list_all(tx, host=host)]
        groups = security_groups.groups_of(tx, ids)
        members = [one for one in ids if any(group.id == group_id for group in groups[one])]
        found = [specs.build(work.for_instance(tx, one, with_groups=True)) for one in members]
    driver.refresh_security_group_rules(found)


def refresh_members(db: Database, driver: ComputeDriver, group_id: int) -> None:
    """Make rules that follow a group admit its present members."""
    if isinstance(driver, FiltersTraffic):
        addresses = db.query(security_groups.members, [group_id])
        driver.refresh_security_group_members(group_id, addresses[group_id])


def refresh_provider_rules(db: Database, driver: ComputeDriver) -> None:
    """Make the provider's deny rules current."""
    if isinstance(driver, FiltersTraffic):
        found = db.query(provider_fw_rules.list_all)
        driver.refresh_provider_fw_rules([{key: str(value) for key, value in asdict(one).items()} for one in found])
