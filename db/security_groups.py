"""Security groups: their rules, which instances are in them, and whom a change of either concerns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa

from db import resizes, rows
from db.errors import DuplicateRowError, RowInUseError, RowNotFoundError
from db.models import fixed_ips, instances, migrations, networks, security_groups
from db.models import security_group_instance_association as association
from db.models import security_group_rules as group_rules
from db.prepared import Prepared
from db.session import Tx, utcnow


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """One group of a project."""

    id: int
    name: str
    description: str | None
    user_id: str
    project_id: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Traffic that a group lets in, from a cidr or from the members of another group (`group_id`).

    protocol None is any; ports -1 are any; for icmp they are type and code.
    """

    id: int
    parent_group_id: int
    protocol: str | None
    from_port: int
    to_port: int
    cidr: str | None
    group_id: int | None


@dataclass(frozen=True, slots=True)
class GroupRules:
    """A group as a host needs it."""

    id: int
    name: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """An address of a member of a group; cidr_v6: the IPv6 prefix of its network, from which it has another."""

    address: str
    mac: str
    cidr_v6: str | None


_G, _R, _A, _I, _F = security_groups.c, group_rules.c, association.c, instances.c, fixed_ips.c
_LIVE = rows.select_live(SecurityGroup, security_groups).order_by(_G.id)
_BY_ID = _LIVE.where(_G.id == sa.bindparam("group_id"))
_NAMED = _LIVE.where(_G.project_id == sa.bindparam("project_id"), _G.name == sa.bindparam("group_name"))
_BY_NAME = Prepared(_NAMED)
_BY_KEY = (
    rows.select_live(SecurityGroup, security_groups)
    .where(
        _G.project_id == sa.bindparam("project_id"),
        sa.or_(_G.name == sa.bindparam("group_name"), _G.id == sa.bindparam("group_id")),
    )
    .order_by(sa.case((_G.name == sa.bindparam("group_name"), 0), else_=1))
    .limit(1)
)
_BY_NAMES = _LIVE.where(
    _G.project_id == sa.bindparam("project_id"), _G.name.in_(sa.bindparam("names", expanding=True))
).with_for_update(read=True)
_HELD_GROUPS = _LIVE.where(_G.id.in_(sa.bindparam("group_ids", expanding=True))).with_for_update(read=True)
_HELD_DEFAULT = Prepared(_NAMED.with_for_update(key_share=True))


def ensure_default(tx: Tx, user_id: str, project_id: str, *, hold: bool = False) -> SecurityGroup:
    """The project's `default` group, made if there is none yet: one statement when there is.

    With `hold`, others that hold it wait until this transaction ends: so a project's quota is counted by one at a
    time.
    """
    statement, wanted = _HELD_DEFAULT if hold else _BY_NAME, {"project_id": project_id, "group_name": "default"}
    group = rows.first(tx, SecurityGroup, statement, wanted)
    if group is not None:
        return group
    values = {"name": "default", "description": "default", "user_id": user_id, "project_id": project_id}
    rows.insert_unless_there(tx, security_groups, values)
    return rows.one(tx, SecurityGroup, statement, "security group", "default", wanted)


def create(tx: Tx, *, name: str, description: str | None, user_id: str, project_id: str) -> int:
    """Add a group and return its id; the name must be free in the project."""
    values = {"name": name, "description": description, "user_id": user_id, "project_id": project_id}
    return rows.insert(tx, security_groups, values)


def get(tx: Tx, group_id: int) -> SecurityGroup:
    """The live group with this id."""
    return rows.one(tx, SecurityGroup, _BY_ID, "security group", group_id, {"group_id": group_id})


def find(tx: Tx, project_id: str, key: str | int) -> SecurityGroup:
    """The project's live group that `key` means: as a name first, then as an id."""
    wanted = {"project_id": project_id, "group_name": str(key), "group_id": rows.row_id(key)}
    return rows.one(tx, SecurityGroup, _BY_KEY, "security group", key, wanted)


def resolve(tx: Tx, project_id: str, names: Collection[str]) -> list[SecurityGroup]:
    """The project's groups of these names, kept from deletion until the transaction ends: one statement.

    RowNotFoundError names the first that is missing.
    """
    found = rows.every(tx, SecurityGroup, _BY_NAMES, {"project_id": project_id, "names": list(names)})
    missing = sorted(set(names) - {group.name for group in found})
    if missing:
        raise RowNotFoundError("security group", missing[0])
    return found


def list_all(tx: Tx, *, project_id: str | None = None) -> list[SecurityGroup]:
    """Live groups by id, of one project when given."""
    return rows.every(tx, SecurityGroup, _LIVE if project_id is None else _LIVE.where(_G.project_id == project_id))


def delete(tx: Tx, group_id: int) -> None:
    """Withdraw a group and its rules; RowInUseError while an instance is in it or another group's rule names it."""
    # The lock first: an association under way holds the row too, and must be seen by the checks.
    rows.one(tx, SecurityGroup, _BY_ID.with_for_update(), "security group", group_id, {"group_id": group_id})
    members_of = (
        sa.select(sa.literal("instances"))
        .select_from(_members_join())
        .where(_A.security_group_id == group_id, _I.deleted == sa.false())
    )
    named_by = sa.select(sa.literal("rules of other groups")).where(
        _R.group_id == group_id, _R.parent_group_id != group_id, _R.deleted == sa.false()
    )
    user = tx.execute(sa.union_all(members_of, named_by).limit(1)).scalar()
    if user is not None:
        raise RowInUseError("security group", group_id, user)
    gone = sa.update(group_rules).where(_R.parent_group_id == group_id, _R.deleted == sa.false())
    tx.execute(gone.values(deleted=True, deleted_at=utcnow()))
    rows.soft_delete(tx, security_groups, group_id)


_RULES = rows.select_live(Rule, group_rules).order_by(_R.id)
_RULES_OF = _RULES.where(_R.parent_group_id.in_(sa.bindparam("group_ids", expanding=True)))


def add_rule(
    tx: Tx,
    group_id: int,
    *,
    protocol: str | None,
    from_port: int = -1,
    to_port: int = -1,
    cidr: str | None = None,
    source_group_id: int | None = None,
) -> int:
    """Add a rule and return its id; DuplicateRowError when the group has the same already.

    RowNotFoundError when the group, or the source group, is not there.
    """
    involved = {group_id} if source_group_id is None else {group_id, source_group_id}
    living = {group.id for group in rows.every(tx, SecurityGroup, _HELD_GROUPS, {"group_ids": sorted(involved)})}
    if involved - living:
        raise RowNotFoundError("security group", min(involved - living))
    rule = Rule(0, group_id, protocol, from_port, to_port, cidr, source_group_id)
    if any(replace(other, id=0) == rule for other in rules_of(tx, [group_id])):
        raise DuplicateRowError(f"security group {group_id} has this rule already")
    values = asdict(rule)
    del values["id"]
    return rows.insert(tx, group_rules, values)


def get_rule(tx: Tx, rule_id: int) -> Rule:
    """The live rule with this id."""
    return rows.one(tx, Rule, _RULES.where(_R.id == rule_id), "security group rule", rule_id)


def delete_rule(tx: Tx, rule_id: int) -> None:
    """Drop a rule."""
    if not rows.soft_delete(tx, group_rules, rule_id):
        raise RowNotFoundError("security group rule", rule_id)


def rules_of(tx: Tx, group_ids: Collection[int]) -> list[Rule]:
    """The live rules of these groups by id: one statement."""
    return rows.every(tx, Rule, _RULES_OF, {"group_ids": list(group_ids)}) if group_ids else []


_LEAVE = sa.delete(association).where(_A.instance_id == sa.bindparam("member"))


def associate(tx: Tx, instance_id: int, group_ids: Sequence[int]) -> None:
    """Put an instance into groups that it is not in, of which the caller knows that they live: one statement.

    DuplicateRowError, at the end of the transaction, when it is in one of them.
    """
    rows.insert_many(tx, association, [{"instance_id": instance_id, "security_group_id": each} for each in group_ids])


def dissociate(tx: Tx, instance_id: int, group_id: int | None = None) -> int:
    """Take an instance out of a group, or out of all; returns out of how many."""
    statement = _LEAVE if group_id is None else _LEAVE.where(_A.security_group_id == group_id)
    return tx.execute(statement, {"member": instance_id}).rowcount


_GROUPS_OF = (
    sa.select(_A.instance_id, _G.id, _G.name)
    .join_from(association, security_groups, _G.id == _A.security_group_id)
    .where(_A.instance_id.in_(sa.bindparam("instance_ids", expanding=True)), _G.deleted == sa.false())
    .order_by(_A.instance_id, _G.id)
)


def groups_of(tx: Tx, instance_ids: Collection[int]) -> dict[int, tuple[GroupRules, ...]]:
    """The groups of each of these instances, with their rules: two statements."""
    if not instance_ids:
        return {}
    memberships = tx.execute(_GROUPS_OF, {"instance_ids": list(instance_ids)}).all()
    names = {group_id: name for _, group_id, name in memberships}
    rules: dict[int, list[Rule]] = {group_id: [] for group_id in names}
    for rule in rules_of(tx, names):
        rules[rule.parent_group_id].append(rule)
    groups = {group_id: GroupRules(group_id, name, tuple(rules[group_id])) for group_id, name in names.items()}
    found: dict[int, tuple[GroupRules, ...]] = dict.fromkeys(instance_ids, ())
    for instance_id, group_id, _ in memberships:
        found[instance_id] += (groups[group_id],)
    return found


def _members_join() -> sa.Join:
    return association.join(instances, _I.id == _A.instance_id)


_MEMBERS = (
    sa.select(_A.security_group_id, _F.address, _F.mac_address, networks.c.cidr_v6)
    .select_from(
        _members_join().join(fixed_ips, _F.instance_id == _I.id).join(networks, networks.c.id == _F.network_id)
    )
    .where(_A.security_group_id.in_(sa.bindparam("group_ids", expanding=True)), _I.deleted == sa.false())
    .order_by(_A.security_group_id, _F.id)
)
_HOSTS = (
    sa.select(_I.host)
    .distinct()
    .select_from(_members_join())
    .where(_I.deleted == sa.false(), _I.host.is_not(None))
    .order_by(_I.host)
)
_HOSTS_OF = _HOSTS.where(_A.security_group_id.in_(sa.bindparam("group_ids", expanding=True)))
_GRANTEES = (
    sa.select(_R.parent_group_id)
    .distinct()
    .where(_R.group_id.in_(sa.bindparam("group_ids", expanding=True)), _R.deleted == sa.false())
)
_HOSTS_OF_GRANTEES = _HOSTS.where(_A.security_group_id.in_(_GRANTEES))


def members(tx: Tx, group_ids: Collection[int]) -> dict[int, list[Member]]:
    """The addresses of the live members of each of these groups: one statement."""
    found: dict[int, list[Member]] = {group_id: [] for group_id in group_ids}
    if group_ids:
        for group_id, *facts in tx.execute(_MEMBERS, {"group_ids": list(group_ids)}):
            found[group_id].append(Member(*facts))
    return found


_HERE = sa.or_(
    _I.host == sa.bindparam("here"),
    _I.id.in_(
        sa.select(migrations.c.instance_id).where(
            migrations.c.dest_compute == sa.bindparam("here"), migrations.c.status.in_(resizes.OPEN)
        )
    ),
)
_FILTERED = (
    sa.select(_I.id, _A.security_group_id)
    .select_from(instances.outerjoin(association, _A.instance_id == _I.id))
    .where(_I.deleted == sa.false(), _HERE)
    .order_by(_I.id)
)


def filtered_on(tx: Tx, host: str) -> dict[int, set[int]]:
    """Every live instance whose filters belong on a host, those on their way to it too, with its groups' ids.

    One statement.
    """
    found: dict[int, set[int]] = {}
    for instance_id, group_id in tx.execute(_FILTERED, {"here": host}):
        found.setdefault(instance_id, set()).update(() if group_id is None else (group_id,))
    return found


def hosts_of_group(tx: Tx, group_id: int) -> list[str]:
    """The hosts with live instances in a group: whom a change of its rules concerns. One statement."""
    return _names(tx, _HOSTS_OF, [group_id])


def grantees(tx: Tx, group_ids: Collection[int]) -> list[int]:
    """The groups with a rule that lets members of one of these in. One statement."""
    return [found[0] for found in tx.execute(_GRANTEES.order_by(_R.parent_group_id), {"group_ids": list(group_ids)})]


def hosts_of_grantees(tx: Tx, group_ids: Collection[int]) -> list[str]:
    """The hosts whom a change of these groups' members concerns: those with instances in grantees. One statement."""
    return _names(tx, _HOSTS_OF_GRANTEES, group_ids) if group_ids else []


def _names(tx: Tx, statement: sa.Select[Any], group_ids: Collection[int]) -> list[str]:
    return [found[0] for found in tx.execute(statement, {"group_ids": list(group_ids)})]
