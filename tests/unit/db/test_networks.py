from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from db import networks
from db.errors import (
    AddressPoolEmptyError,
    AddressUnavailableError,
    InvalidNetworkError,
    RowInUseError,
    RowNotFoundError,
)
from db.session import Database, Tx
from tests.unit.db.db_builders import MAC, a_network, an_instance, counted


def free(tx: Tx, network_id: int) -> list[str]:
    return [each.address for each in networks.list_addresses(tx, network_id) if not each.reserved]


def test_a_network_gives_all_but_its_own_addresses_and_the_gateway(tx: Tx) -> None:
    network_id = a_network(tx)
    assert free(tx, network_id) == [f"10.0.0.{last}" for last in range(2, 7)]
    found = networks.get(tx, network_id)
    assert (found.gateway, found.netmask, found.broadcast) == ("10.0.0.1", "255.255.255.248", "10.0.0.7")
    assert (found.dhcp_start, found.bridge) == ("10.0.0.2", "br100")


def test_reserved_addresses_are_never_given(tx: Tx) -> None:
    network_id = a_network(tx, gateway="10.0.0.6", reserved=["10.0.0.3"], bottom=1, top=2)
    assert free(tx, network_id) == ["10.0.0.2", "10.0.0.4"]
    assert networks.get(tx, network_id).dhcp_start == "10.0.0.2"


def test_the_largest_network_has_a_row_for_each_address(tx: Tx) -> None:
    network_id = a_network(tx, cidr="10.0.0.0/16")
    pool = [each.address for each in networks.list_addresses(tx, network_id)]
    assert pool == [str(address) for address in ipaddress.ip_network("10.0.0.0/16")]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"cidr": "10.0.0.0/15"}, r"10\.0\.0\.0/15: a network has a prefix of /16 to /30"),
        ({"cidr": "10.0.0.0/31"}, "prefix of /16 to /30"),
        ({"cidr": "10.0.0.1/24"}, "has host bits set"),
        ({"cidr": "fd00::/64"}, "network address fd00"),
        ({"gateway": "10.0.1.1"}, r"10\.0\.1\.1 is outside 10\.0\.0\.0/29"),
        ({"reserved": ["ten"]}, "address ten"),
        ({"bottom": 6}, "no address left"),
    ],
)
def test_a_network_that_does_not_add_up_is_refused(tx: Tx, wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidNetworkError, match=why):
        a_network(tx, **wrong)


def test_a_network_is_found_by_label_before_id(tx: Tx) -> None:
    first = a_network(tx)
    assert networks.find(tx, first).label == "private"
    second = a_network(tx, label=str(first))
    assert networks.find(tx, first).id == second
    with pytest.raises(RowNotFoundError, match="no network nope"):
        networks.find(tx, "nope")


def test_a_project_gets_its_own_network_before_the_common_one(tx: Tx) -> None:
    common, own = a_network(tx), a_network(tx, label="own", project_id="lab")
    a_network(tx, label="other", project_id="shop")
    assert networks.default_for(tx, "lab").id == own
    assert networks.default_for(tx, "park").id == common
    assert [each.id for each in networks.list_all(tx, project_id="lab")] == [common, own]


def test_a_project_without_any_network_is_told_so(tx: Tx) -> None:
    a_network(tx, project_id="shop")
    with pytest.raises(RowNotFoundError, match="no network for project lab"):
        networks.default_for(tx, "lab")


def test_addresses_are_given_in_order_until_there_are_none(tx: Tx) -> None:
    network_id = a_network(tx)
    given = [networks.claim(tx, network_id, an_instance(tx), MAC).address for _ in range(5)]
    assert given == [f"10.0.0.{last}" for last in range(2, 7)]
    with pytest.raises(AddressPoolEmptyError, match="network private has no free address"):
        networks.claim(tx, network_id, an_instance(tx), MAC)


def test_a_claim_takes_two_statements_and_a_repeated_one_one(database: Database) -> None:
    network_id, instance_id = database.run(a_network), database.run(an_instance)
    with database.transaction() as tx, counted(database) as sent:
        first = networks.claim(tx, network_id, instance_id, MAC)
        assert len(sent) == 2
        assert networks.claim(tx, network_id, instance_id, "another mac") == first
        assert len(sent) == 3
    assert (first.network.bridge, first.mac) == ("br100", MAC)


def test_an_instance_has_an_address_of_each_network(tx: Tx) -> None:
    one, two, instance_id = a_network(tx), a_network(tx, label="b", cidr="10.1.0.0/29"), an_instance(tx)
    claimed = {networks.claim(tx, each, instance_id, MAC).address for each in (one, two)}
    assert claimed == {"10.0.0.2", "10.1.0.2"}


def test_released_addresses_are_given_again(tx: Tx) -> None:
    network_id, instance_id = a_network(tx), an_instance(tx)
    networks.claim(tx, network_id, instance_id, MAC)
    assert networks.release(tx, instance_id) == 1
    assert networks.release(tx, instance_id) == 0
    assert networks.claim(tx, network_id, an_instance(tx), MAC).address == "10.0.0.2"


def test_a_wanted_address_is_given_and_given_again_to_its_holder(tx: Tx) -> None:
    network_id, instance_id = a_network(tx), an_instance(tx)
    first = networks.claim_exact(tx, network_id, instance_id, MAC, "10.0.0.5")
    assert networks.claim_exact(tx, network_id, instance_id, "another mac", "10.0.0.5") == first
    assert networks.claim(tx, network_id, instance_id, MAC) == first


@pytest.mark.parametrize(
    ("address", "why"), [("10.0.0.2", "held by another instance"), ("10.0.0.1", "reserved"), ("10.9.9.9", "not in its")]
)
def test_an_address_that_cannot_be_had_says_why(tx: Tx, address: str, why: str) -> None:
    network_id = a_network(tx)
    networks.claim(tx, network_id, an_instance(tx), MAC)
    with pytest.raises(AddressUnavailableError, match=f"address {address} of network private is {why}"):
        networks.claim_exact(tx, network_id, an_instance(tx), MAC, address)


def test_a_network_that_is_gone_gives_nothing(tx: Tx) -> None:
    network_id, instance_id = a_network(tx), an_instance(tx)
    networks.delete(tx, network_id)
    with pytest.raises(RowNotFoundError):
        networks.claim(tx, network_id, instance_id, MAC)
    with pytest.raises(RowNotFoundError):
        networks.claim_exact(tx, network_id, instance_id, MAC, "10.0.0.2")


def test_a_network_is_deleted_with_its_pool_once_nothing_uses_it(tx: Tx) -> None:
    network_id, instance_id = a_network(tx), an_instance(tx)
    networks.claim(tx, network_id, instance_id, MAC)
    with pytest.raises(RowInUseError, match="in use by 1 addresses"), tx.begin_nested():
        networks.delete(tx, network_id)
    networks.release(tx, instance_id)
    networks.delete(tx, network_id)
    assert networks.list_addresses(tx, network_id) == []
    assert a_network(tx) > network_id


def test_the_addresses_of_many_instances_take_one_statement(database: Database) -> None:
    with database.transaction() as tx, counted(database) as sent:
        network_id, ids = a_network(tx), [an_instance(tx), an_instance(tx, host="host2"), an_instance(tx)]
        for instance_id in ids:
            networks.claim(tx, network_id, instance_id, MAC)
        sent.clear()
        held = networks.addresses_of(tx, ids[1:])
        assert [(each.instance_id, each.address, each.network.label) for each in held] == [
            (ids[1], "10.0.0.3", "private"),
            (ids[2], "10.0.0.4", "private"),
        ]
        assert [each.instance_id for each in networks.addresses_on(tx, "host1")] == [ids[0], ids[2]]
        assert networks.addresses_of(tx, []) == []
        assert len(sent) == 2
