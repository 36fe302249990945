import pytest

from compute import security_groups as groups
from compute.context import RequestContext, get_admin_context
from compute.errors import (
    DuplicateError,
    InUseError,
    InvalidInputError,
    NotFoundError,
    QuotaError,
    SecurityGroupNotFoundError,
)
from compute.refreshing import Refreshing
from db import instances
from db import security_groups as rows
from tests.fakes.api import FakeRpc
from tests.fakes.databases import a_database, an_instance

ANNA = RequestContext(user_id="anna", project_id="lab")
BOB = RequestContext(user_id="bob", project_id="other")


@pytest.fixture
def db(tmp_path):
    database = a_database(tmp_path)
    yield database
    database.dispose()


@pytest.fixture
def web(db):
    return groups.create(db, ANNA, name="web")


@pytest.fixture
def rpc():
    return FakeRpc()


@pytest.fixture
def refresh(db, rpc):
    return Refreshing(db, rpc)


def an_instance_of(db, **changes):
    return db.query(instances.get, an_instance(db, **changes))


@pytest.mark.parametrize(
    ("words", "checked"),
    [
        (("tcp", 80, 443), ("tcp", 80, 443)),
        (("tcp", 22), ("tcp", 22, 22)),
        (("udp",), ("udp", 0, 65535)),
        (("icmp",), ("icmp", -1, -1)),
        (("icmp", 8), ("icmp", 8, -1)),
        (("icmp", 3, 4), ("icmp", 3, 4)),
        (("any",), (None, -1, -1)),
    ],
)
def test_a_rule_says_what_may_come_in(words, checked):
    rule = groups.rule(*words)
    assert (rule.protocol, rule.from_port, rule.to_port) == checked
    assert rule.cidr == "0.0.0.0/0"


@pytest.mark.parametrize(
    ("words", "source"),
    [
        (("sctp",), {}),
        (("TCP",), {}),
        (("tcp", 443, 80), {}),
        (("tcp", -1, 80), {}),
        (("tcp", 0, 65536), {}),
        (("icmp", 255), {}),
        (("icmp", -2), {}),
        (("icmp", -1, 3), {}),
        (("any", 80), {}),
        (("tcp", 80), {"cidr": "10.0.0.1/24"}),
        (("tcp", 80), {"cidr": "nonsense"}),
        (("tcp", 80), {"cidr": "10.0.0.0/8 -j ACCEPT"}),
        (("tcp", 80), {"cidr": "10.0.0.0/8", "source": "web"}),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(words, source):
    with pytest.raises(InvalidInputError):
        groups.rule(*words, **source)


def test_a_rule_may_follow_the_members_of_a_group_of_the_project(db, web, refresh):
    added = groups.add_rule(db, ANNA, refresh, "web", groups.rule("tcp", 22, source="web"))
    assert (added.group_id, added.cidr) == (web.id, None)
    with pytest.raises(SecurityGroupNotFoundError):
        groups.add_rule(db, ANNA, refresh, "web", groups.rule("tcp", 22, source="elsewhere"))


def test_a_rule_beyond_the_quota_is_refused(db, web, refresh):
    groups.add_rule(db, ANNA, refresh, "web", groups.rule("tcp", 22), most=1)
    with pytest.raises(QuotaError, match="1 rules, which is the limit"):
        groups.add_rule(db, ANNA, refresh, "web", groups.rule("tcp", 23), most=1)


def test_the_hosts_of_members_hear_of_new_rules(db, web, refresh, rpc):
    groups.add_instance(db, ANNA, refresh, "web", an_instance_of(db, host="host1"))
    groups.add_instance(db, ANNA, refresh, "web", an_instance_of(db, host="host2"))
    rpc.casts.clear()
    groups.add_rule(db, ANNA, refresh, "web", groups.rule("tcp", 22))
    told = {"security_group_id": web.id}
    assert rpc.casts == [(host, "refresh_security_group_rules", told) for host in ("host1", "host2")]


def test_hosts_whose_rules_follow_a_group_hear_of_its_members(db, web, refresh, rpc):
    clients = groups.create(db, ANNA, name="clients")
    groups.add_rule(db, ANNA, refresh, "web", groups.rule("tcp", 22, source="clients"))
    groups.add_instance(db, ANNA, refresh, "web", an_instance_of(db, host="host1"))
    rpc.casts.clear()
    groups.add_instance(db, ANNA, refresh, "clients", an_instance_of(db, host="host2"))
    assert rpc.casts[-1] == ("host1", "refresh_security_group_members", {"security_group_id": clients.id})


def test_the_host_of_an_instance_that_left_hears_of_it(db, web, refresh, rpc):
    instance = an_instance_of(db, host="host1")
    groups.add_instance(db, ANNA, refresh, "web", instance)
    rpc.casts.clear()
    groups.remove_instance(db, ANNA, refresh, "web", instance)
    assert rpc.casts == [("host1", "refresh_security_group_rules", {"security_group_id": web.id})]


def test_hosts_that_could_not_be_told_are_remembered(db, web, refresh, rpc):
    rpc.works = False
    groups.add_instance(db, ANNA, refresh, "web", an_instance_of(db, host="host1"))
    assert refresh.untold == {"host1"}


def test_an_instance_joins_once_and_leaves_once(db, web, refresh):
    instance = an_instance_of(db)
    groups.add_instance(db, ANNA, refresh, "web", instance)
    with pytest.raises(DuplicateError, match="is in security group 'web' already"):
        groups.add_instance(db, ANNA, refresh, "web", instance)
    groups.remove_instance(db, ANNA, refresh, "web", instance)
    with pytest.raises(NotFoundError, match="is not in security group web"):
        groups.remove_instance(db, ANNA, refresh, "web", instance)


def test_an_instance_joins_groups_of_its_own_project_only(db, web, refresh):
    stranger = an_instance_of(db, project_id="other")
    with pytest.raises(SecurityGroupNotFoundError, match="in project other"):
        groups.add_instance(db, get_admin_context(), refresh, str(web.id), stranger)


def test_a_group_with_members_is_not_deleted(db, web, refresh):
    groups.add_instance(db, ANNA, refresh, "web", an_instance_of(db))
    with pytest.raises(InUseError):
        groups.delete(db, ANNA, "web")


def test_the_default_group_is_never_deleted(db):
    db.run(rows.ensure_default, "anna", "lab")
    with pytest.raises(InUseError, match="default cannot be deleted"):
        groups.delete(db, ANNA, "default")


def test_another_project_neither_sees_nor_changes_a_group(db, web, refresh):
    added = groups.add_rule(db, ANNA, refresh, "web", groups.rule("tcp", 22))
    with pytest.raises(SecurityGroupNotFoundError):
        groups.get(db, BOB, str(web.id))
    with pytest.raises(NotFoundError):
        groups.delete_rule(db, BOB, refresh, added.id)
    assert len(groups.rules(db, web)) == 1
