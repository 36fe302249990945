from __future__ import annotations

import pytest

from db import networks, security_groups
from db.errors import DuplicateRowError, RowInUseError, RowNotFoundError
from db.session import Database, Tx
from tests.unit.db.db_builders import MAC, a_group, a_network, an_instance, counted

SSH = {"protocol": "tcp", "from_port": 22, "to_port": 22}


def a_member(tx: Tx, group_id: int, **changes: object) -> int:
    instance_id = an_instance(tx, **changes)
    security_groups.associate(tx, instance_id, [group_id])
    return instance_id


@pytest.mark.parametrize("hold", [False, True])
def test_a_project_has_one_default_group_made_when_first_asked_for(database: Database, hold: bool) -> None:
    first = database.run(security_groups.ensure_default, "ann", "lab", hold=hold)
    with database.transaction() as tx, counted(database) as sent:
        assert security_groups.ensure_default(tx, "bob", "lab", hold=hold) == first
    assert len(sent) == 1
    assert (first.name, first.user_id) == ("default", "ann")
    assert database.run(security_groups.ensure_default, "ann", "shop") != first


def test_a_group_is_found_by_name_before_id_within_its_project(tx: Tx) -> None:
    first = a_group(tx)
    second = a_group(tx, name=str(first))
    other = a_group(tx, project_id="shop")
    assert security_groups.find(tx, "lab", "web").id == first
    assert security_groups.find(tx, "lab", first).id == second
    assert security_groups.find(tx, "shop", "web").id == other
    with pytest.raises(RowNotFoundError):
        security_groups.find(tx, "lab", other)
    assert [each.id for each in security_groups.list_all(tx, project_id="lab")] == [first, second]


def test_names_are_resolved_together_or_the_missing_one_is_named(tx: Tx) -> None:
    web, db = a_group(tx), a_group(tx, name="db")
    assert [each.id for each in security_groups.resolve(tx, "lab", ["db", "web"])] == [web, db]
    with pytest.raises(RowNotFoundError, match="no security group mail"):
        security_groups.resolve(tx, "lab", ["web", "mail"])


def test_a_rule_is_added_once(tx: Tx) -> None:
    group_id = a_group(tx)
    rule_id = security_groups.add_rule(tx, group_id, **SSH, cidr="10.0.0.0/8")
    with pytest.raises(DuplicateRowError, match=f"security group {group_id} has this rule already"):
        security_groups.add_rule(tx, group_id, **SSH, cidr="10.0.0.0/8")
    security_groups.add_rule(tx, group_id, **SSH, cidr="11.0.0.0/8")
    security_groups.delete_rule(tx, rule_id)
    assert [each.cidr for each in security_groups.rules_of(tx, [group_id])] == ["11.0.0.0/8"]
    assert security_groups.add_rule(tx, group_id, **SSH, cidr="10.0.0.0/8") > rule_id


def test_a_rule_needs_its_group_and_its_source(tx: Tx) -> None:
    group_id = a_group(tx)
    with pytest.raises(RowNotFoundError, match="no security group 98"):
        security_groups.add_rule(tx, 98, protocol=None, cidr="0.0.0.0/0")
    with pytest.raises(RowNotFoundError, match="no security group 99"):
        security_groups.add_rule(tx, group_id, protocol=None, source_group_id=99)


def test_a_rule_that_is_gone_cannot_be_read_or_deleted(tx: Tx) -> None:
    rule_id = security_groups.add_rule(tx, a_group(tx), protocol="icmp", cidr="0.0.0.0/0")
    assert security_groups.get_rule(tx, rule_id).from_port == -1
    security_groups.delete_rule(tx, rule_id)
    with pytest.raises(RowNotFoundError):
        security_groups.get_rule(tx, rule_id)
    with pytest.raises(RowNotFoundError):
        security_groups.delete_rule(tx, rule_id)


def test_the_groups_of_many_instances_with_their_rules_take_two_statements(database: Database) -> None:
    with database.transaction() as tx, counted(database) as sent:
        web, db = a_group(tx), a_group(tx, name="db")
        first, second = security_groups.add_rule(tx, web, **SSH), security_groups.add_rule(tx, web, protocol="udp")
        one, two, alone = a_member(tx, web), a_member(tx, web), an_instance(tx)
        security_groups.associate(tx, two, [db])
        sent.clear()
        found = security_groups.groups_of(tx, [one, two, alone])
        assert len(sent) == 2
    assert [rule.id for rule in found[one][0].rules] == [first, second]
    assert [group.name for group in found[two]] == ["web", "db"]
    assert found[alone] == ()


def test_an_instance_joins_a_group_once(database: Database) -> None:
    group_id = database.run(a_group)
    instance_id = database.run(a_member, group_id)
    with pytest.raises(DuplicateRowError):
        database.run(security_groups.associate, instance_id, [group_id])


def test_an_instance_leaves_one_group_or_all(tx: Tx) -> None:
    groups = [a_group(tx, name=name) for name in ("a", "b", "c")]
    instance_id = an_instance(tx)
    security_groups.associate(tx, instance_id, groups)
    assert security_groups.dissociate(tx, instance_id, groups[0]) == 1
    assert security_groups.dissociate(tx, instance_id, groups[0]) == 0
    assert security_groups.dissociate(tx, instance_id) == 2


def test_members_are_the_addresses_of_live_instances(tx: Tx) -> None:
    network_id, web, empty = a_network(tx), a_group(tx), a_group(tx, name="empty")
    for changes in ({}, {"deleted": True}, {"host": None}):
        networks.claim(tx, network_id, a_member(tx, web, **changes), MAC)
    found = security_groups.members(tx, [web, empty])
    assert ([one.address for one in found[web]], found[empty]) == (["10.0.0.2", "10.0.0.4"], [])
    assert security_groups.members(tx, []) == {}


def test_the_hosts_of_a_group_are_those_of_its_live_members(tx: Tx) -> None:
    web = a_group(tx)
    for changes in ({"host": "b"}, {"host": "a"}, {"host": "a"}, {"host": None}, {"host": "c", "deleted": True}):
        a_member(tx, web, **changes)
    assert security_groups.hosts_of_group(tx, web) == ["a", "b"]


def test_grantees_are_the_groups_whose_rules_name_a_group(tx: Tx) -> None:
    web, db, cache = a_group(tx), a_group(tx, name="db"), a_group(tx, name="cache")
    security_groups.add_rule(tx, db, protocol="tcp", source_group_id=web)
    dropped = security_groups.add_rule(tx, cache, protocol="tcp", source_group_id=web)
    security_groups.delete_rule(tx, dropped)
    a_member(tx, db, host="a")
    a_member(tx, cache, host="b")
    assert security_groups.grantees(tx, [web]) == [db]
    assert security_groups.hosts_of_grantees(tx, [web]) == ["a"]
    assert security_groups.hosts_of_grantees(tx, []) == []


def test_a_group_goes_once_no_live_instance_is_in_it(tx: Tx) -> None:
    web = a_group(tx)
    instance_id = a_member(tx, web)
    a_member(tx, web, deleted=True)
    with pytest.raises(RowInUseError, match=f"security group {web} is in use by instances"):
        security_groups.delete(tx, web)
    security_groups.dissociate(tx, instance_id)
    security_groups.delete(tx, web)
    with pytest.raises(RowNotFoundError):
        security_groups.delete(tx, web)
    assert a_group(tx) > web


def test_a_group_goes_with_its_rules_once_no_other_group_names_it(tx: Tx) -> None:
    web, db = a_group(tx), a_group(tx, name="db")
    security_groups.add_rule(tx, web, protocol="tcp", source_group_id=web)
    rule_id = security_groups.add_rule(tx, db, protocol="tcp", source_group_id=web)
    with pytest.raises(RowInUseError, match="in use by rules of other groups"):
        security_groups.delete(tx, web)
    security_groups.delete_rule(tx, rule_id)
    security_groups.delete(tx, web)
    assert security_groups.rules_of(tx, [web]) == []
