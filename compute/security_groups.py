"""Security groups: what a rule may be, whose groups one may use, and which hosts hear of a change."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from compute import valid
from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import InUseError, InvalidInputError, NotFoundError, QuotaError, SecurityGroupNotFoundError
from compute.policy import may_see, project_filter
from compute.refreshing import Refreshing
from db import security_groups
from db.instances import Instance
from db.security_groups import Rule, SecurityGroup
from db.session import Database, Tx

PROTOCOLS = ("any", "icmp", "tcp", "udp")
_LARGEST_PORT, _LARGEST_ICMP = 65535, 254  # 255 is reserved; to iptables it would be every type


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRule:
    """A checked rule: protocol None is any, ports -1 are any; a source is a cidr or a group of the same project."""

    protocol: str | None
    from_port: int
    to_port: int
    cidr: str | None
    source: str | None


def rule(
    protocol: str,
    from_port: int | None = None,
    to_port: int | None = None,
    *,
    cidr: str | None = None,
    source: str | None = None,
) -> NewRule:
    """Check a rule. Ports (for icmp: type and code) not given are any; neither cidr nor source means from anywhere."""
    valid.one_of("protocol", protocol, PROTOCOLS)
    if cidr is not None and source is not None:
        raise InvalidInputError("rule: give a cidr or a source group, not both")
    low, high = _ports(protocol, from_port, to_port)
    return NewRule(
        protocol=None if protocol == "any" else protocol,
        from_port=low,
        to_port=high,
        cidr=None if source is not None else _cidr(cidr or "0.0.0.0/0"),
        source=source,
    )


def create(db: Database, context: RequestContext, *, name: str, description: str = "") -> SecurityGroup:
    """Add an empty group, which lets nothing in, to the caller's project."""
    values = {
        "name": valid.name("security group name", name),
        "description": valid.text("description", description),
        "user_id": context.user_id,
        "project_id": context.project_id,
    }
    with translated(duplicate=f"project {context.project_id} has a security group {name!r:.60} already"):
        return db.query(security_groups.get, db.run(security_groups.create, **values))


def get_all(db: Database, context: RequestContext) -> list[SecurityGroup]:
    """The project's groups by id; every project's for an administrator."""
    with translated():
        return db.query(security_groups.list_all, project_id=project_filter(context))


def get(db: Database, context: RequestContext, key: str) -> SecurityGroup:
    """A group of the caller's project by name or id; an administrator reaches other projects' by id."""
    with translated():
        return db.query(_find, context, key)


def rules(db: Database, group: SecurityGroup) -> list[Rule]:
    """The rules of a group."""
    with translated():
        return db.query(security_groups.rules_of, [group.id])


def delete(db: Database, context: RequestContext, key: str) -> None:
    """Withdraw a group; InUseError while an instance is in it or a rule names it, and always for `default`."""
    group = get(db, context, key)
    if group.name == "default":
        raise InUseError("security group default cannot be deleted: instances that name no group are in it")
    with translated():
        db.run(security_groups.delete, group.id)


def add_rule(
    db: Database, context: RequestContext, refresh: Refreshing, key: str, new: NewRule, *, most: int = -1
) -> Rule:
    """Let more traffic in, and tell the hosts. `most`: rules that a group may have, -1 for any number."""
    group = get(db, context, key)
    with translated(duplicate=f"security group {group.name} has this rule already"):
        rule_id = db.run(_add_rule, group, new, most)
        added = db.query(security_groups.get_rule, rule_id)
    refresh.rules_changed(context, group.id)
    return added


def delete_rule(db: Database, context: RequestContext, refresh: Refreshing, rule_id: int) -> None:
    """Drop a rule by id, and tell the hosts."""
    with translated():
        gone = db.query(security_groups.get_rule, rule_id)
        if not may_see(context, db.query(security_groups.get, gone.parent_group_id).project_id):
            raise NotFoundError(f"no security group rule {rule_id}")
        db.run(security_groups.delete_rule, rule_id)
    refresh.rules_changed(context, gone.parent_group_id)


def add_instance(db: Database, context: RequestContext, refresh: Refreshing, key: str, instance: Instance) -> None:
    """Put an instance into a group of its project; InUseError when it is in it."""
    with translated(duplicate=f"instance {instance.id} is in security group {key!r:.60} already"):
        group = db.run(_join, context, key, instance)
    _membership_changed(context, refresh, group, instance)


def remove_instance(db: Database, context: RequestContext, refresh: Refreshing, key: str, instance: Instance) -> None:
    """Take an instance out of a group; NotFoundError when it is not in it."""
    group = get(db, context, key)
    with translated():
        if not db.run(security_groups.dissociate, instance.id, group.id):
            raise NotFoundError(f"instance {instance.id} is not in security group {group.name}")
    _membership_changed(context, refresh, group, instance)


def _membership_changed(context: RequestContext, refresh: Refreshing, group: SecurityGroup, instance: Instance) -> None:
    refresh.rules_changed(context, group.id, left=instance.host)
    refresh.members_changed(context, [group.id])


def _find(tx: Tx, context: RequestContext, key: str) -> SecurityGroup:
    if context.is_admin and key.isdecimal() and key.isascii() and len(key) < 10:
        return security_groups.get(tx, int(key))
    return security_groups.find(tx, context.project_id, key)


def _join(tx: Tx, context: RequestContext, key: str, instance: Instance) -> SecurityGroup:
    group = _find(tx, context, key)
    if group.project_id != instance.project_id:
        raise SecurityGroupNotFoundError(f"no security group {key!r:.60} in project {instance.project_id}")
    security_groups.resolve(tx, group.project_id, [group.name])
    security_groups.associate(tx, instance.id, [group.id])
    return group


def _add_rule(tx: Tx, group: SecurityGroup, new: NewRule, most: int) -> int:
    if 0 <= most <= len(security_groups.rules_of(tx, [group.id])):
        raise QuotaError(f"security group {group.name} has {most} rules, which is the limit")
    source = None if new.source is None else security_groups.find(tx, group.project_id, new.source).id
    return security_groups.add_rule(
        tx,
        group.id,
        protocol=new.protocol,
        from_port=new.from_port,
        to_port=new.to_port,
        cidr=new.cidr,
        source_group_id=source,
    )


def _ports(protocol: str, low: int | None, high: int | None) -> tuple[int, int]:
    """Ports in order, or ICMP type and code; -1 where any will do."""
    if protocol == "any":
        if low is not None or high is not None:
            raise InvalidInputError("rule: protocol any has no ports")
        return -1, -1
    if protocol == "icmp":
        kind, code = -1 if low is None else low, -1 if high is None else high
        valid.whole("icmp type", kind, least=-1, most=_LARGEST_ICMP)
        valid.whole("icmp code", code, least=-1, most=_LARGEST_ICMP)
        if kind == -1 and code != -1:
            raise InvalidInputError(f"rule: icmp code {code} needs a type")
        return kind, code
    if low is None:
        low, high = (0, _LARGEST_PORT) if high is None else (high, high)
    high = low if high is None else high
    valid.whole("from_port", low, least=0, most=_LARGEST_PORT)
    valid.whole("to_port", high, least=0, most=_LARGEST_PORT)
    if low > high:
        raise InvalidInputError(f"rule: from_port {low} is larger than to_port {high}")
    return low, high


def _cidr(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as exc:
        raise InvalidInputError(f"cidr {value!r:.60}: {exc!s:.120}") from exc
