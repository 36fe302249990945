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
from db import instances
from db import security_groups as rows
from tests.fakes.api import FakeApi
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
        (("icmp", 256), {}),
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


def test_a_rule_may_follow_the_members_of_a_group_of_the_project(db, web):
    added = groups.add_rule(db, ANNA, FakeApi(), "web", groups.rule("tcp", 22, source="web"))
    assert (added.group_id, added.cidr) == (web.id, None)
    with pytest.raises(SecurityGroupNotFoundError):
        groups.add_rule(db, ANNA, FakeApi(), "web", groups.rule("tcp", 22, source="elsewhere"))


def test_a_rule_beyond_the_quota_is_refused(db, web):
    groups.add_rule(db, ANNA, FakeApi(), "web", groups.rule("tcp", 22), most=1)
    with pytest.raises(QuotaError, match="1 rules, which is the limit"):
        groups.add_rule(db, ANNA, FakeApi(), "web", groups.rule("tcp", 23), most=1)


def test_hosts_hear_of_rules_and_of_members(db, web):
    api = FakeApi()
    groups.add_instance(db, ANNA, api, "web", an_instance_of(db))
    assert api.calls == [
        ("trigger_security_group_rules_refresh", (web.id,), {}),
        ("trigger_security_group_members_refresh", ([web.id],), {}),
    ]


def test_an_instance_joins_once_and_leaves_once(db, web):
    api, instance = FakeApi(), an_instance_of(db)
    groups.add_instance(db, ANNA, api, "web", instance)
    with pytest.raises(DuplicateError, match="is in security group 'web' already"):
        groups.add_instance(db, ANNA, api, "web", instance)
    groups.remove_instance(db, ANNA, api, "web", instance)
    with pytest.raises(NotFoundError, match="is not in security group web"):
        groups.remove_instance(db, ANNA, api, "web", instance)


def test_an_instance_joins_groups_of_its_own_project_only(db, web):
    stranger = an_instance_of(db, project_id="other")
    with pytest.raises(SecurityGroupNotFoundError, match="in project other"):
        groups.add_instance(db, get_admin_context(), FakeApi(), str(web.id), stranger)


def test_a_group_with_members_is_not_deleted(db, web):
    groups.add_instance(db, ANNA, FakeApi(), "web", an_instance_of(db))
    with pytest.raises(InUseError):
        groups.delete(db, ANNA, "web")


def test_the_default_group_is_never_deleted(db):
    db.run(rows.ensure_default, "anna", "lab")
    with pytest.raises(InUseError, match="default cannot be deleted"):
        groups.delete(db, ANNA, "default")


def test_another_project_neither_sees_nor_changes_a_group(db, web):
    added = groups.add_rule(db, ANNA, FakeApi(), "web", groups.rule("tcp", 22))
    with pytest.raises(SecurityGroupNotFoundError):
        groups.get(db, BOB, str(web.id))
    with pytest.raises(NotFoundError):
        groups.delete_rule(db, BOB, FakeApi(), added.id)
    assert len(groups.rules(db, web)) == 1
