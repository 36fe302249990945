import pytest

from compute import network
from compute.context import RequestContext, get_admin_context
from compute.errors import ConflictError, DuplicateError, InvalidInputError, NetworkNotFoundError, NotAuthorizedError
from tests.fakes.databases import a_database
from virt.network.mode import NetworkMode

ADMIN = get_admin_context()


@pytest.fixture
def db(tmp_path):
    database = a_database(tmp_path)
    yield database
    database.dispose()


@pytest.fixture
def create(db):
    def do(context=ADMIN, **changes):
        return network.create(db, context, **{"label": "n", "cidr": "10.0.0.0/24", "bridge": "br100", **changes})

    return do


def test_a_network_has_a_pool_of_addresses(create, db):
    made = create(dns=["10.0.0.1", "fd00::1"], vlan=100, cidr_v6="fd00:1::/64")
    assert (made.gateway, made.dns, made.vlan) == ("10.0.0.1", "10.0.0.1,fd00::1", 100)
    assert (made.gateway_v6, made.netmask_v6) == ("fd00:1::1", "64")
    assert network.pool(db, made.id) == (0, 253)


@pytest.mark.parametrize(
    "changes",
    [
        {"cidr": "10.0.0.1/24"},
        {"cidr": "10.0.0.0/33"},
        {"cidr": "fd00::/64"},
        {"cidr": "10.0.0.0/8"},
        {"cidr": "10.0.0.0/31"},
        {"cidr": "nonsense"},
        {"gateway": "10.0.1.1"},
        {"gateway": "10.0.0.0"},
        {"gateway": "10.0.0.255"},
        {"gateway": "nonsense"},
        {"bridge": "a-bridge-of-many-characters"},
        {"bridge": "br 0"},
        {"bridge": "../br"},
        {"bridge": "-br"},
        {"bridge": ""},
        {"vlan": 0},
        {"vlan": 4095},
        {"vlan": "x"},
        {"dns": ["nowhere"]},
        {"cidr_v6": "fd00::/48"},
        {"cidr_v6": "fd00::1/64"},
        {"label": ""},
    ],
)
def test_a_network_that_makes_no_sense_is_refused(create, db, changes):
    with pytest.raises(InvalidInputError):
        create(**changes)
    assert network.get_all(db, ADMIN) == []


@pytest.mark.parametrize("cidr", ["10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/16"])
def test_a_network_that_overlaps_another_is_refused(create, cidr):
    create()
    with pytest.raises(ConflictError, match=r"overlaps network n \(10.0.0.0/24\)"):
        create(label="other", cidr=cidr)


def test_a_label_and_a_vlan_are_taken_once(create):
    create(vlan=100)
    with pytest.raises(DuplicateError):
        create(cidr="10.1.0.0/24")
    with pytest.raises(DuplicateError):
        create(label="other", cidr="10.1.0.0/24", vlan=100)


def test_only_an_administrator_changes_networks(create, db):
    anna = RequestContext(user_id="anna", project_id="lab")
    with pytest.raises(NotAuthorizedError, match="anna is none"):
        create(anna)
    create(label="other-lab", cidr="10.1.0.0/24", project_id="other")
    create()
    assert [one.label for one in network.get_all(db, anna)] == ["n"]


def test_a_deleted_network_is_gone(create, db):
    create()
    network.delete(db, ADMIN, "n")
    with pytest.raises(NetworkNotFoundError):
        network.delete(db, ADMIN, "n")


def test_the_vlan_manager_takes_no_network_without_a_vlan(create):
    with pytest.raises(InvalidInputError, match="network 'n': has no VLAN, and network_manager is vlan"):
        create(mode=NetworkMode(manager="vlan"))
    assert create(mode=NetworkMode(manager="vlan"), vlan=100).vlan == 100


def test_two_networks_with_dhcp_cannot_share_a_bridge(create):
    create(mode=NetworkMode(manager="flatdhcp"))
    other = {"label": "other", "cidr": "10.1.0.0/24"}
    with pytest.raises(ConflictError, match="bridge br100 is network n's"):
        create(**other, mode=NetworkMode(manager="flatdhcp"))
    assert create(**other).bridge == "br100"
