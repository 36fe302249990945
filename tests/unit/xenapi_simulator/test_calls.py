"""The simulator answers calls as xapi does, and refuses those that xapi refuses."""

from __future__ import annotations

import ssl
from contextlib import closing

import pytest
import XenAPI

from tests.fakes.xenapi import Pool
from tests.unit.xenapi_simulator.conftest import Client

NOWHERE = "OpaqueRef:nowhere"


def test_a_wrong_password_makes_no_session(pool: Pool) -> None:
    with pytest.raises(XenAPI.Failure, match="SESSION_AUTHENTICATION_FAILED"):
        Client(pool, password="wrong")
    assert not pool.records("session")


def test_a_slave_names_the_master(pool: Pool) -> None:
    with pytest.raises(XenAPI.Failure) as caught:
        Client(pool, url=pool.slave.url)
    assert caught.value.details == ["HOST_IS_SLAVE", pool.master.address]


def test_another_master_can_be_designated(pool: Pool) -> None:
    pool.make_master("beta")
    with closing(Client(pool, url=pool.host("beta").url)) as client:
        assert client("pool.get_all_records").popitem()[1]["master"] == pool.host("beta").ref


def test_a_session_that_ended_is_refused(pool: Pool, xapi: Client) -> None:
    old = xapi.session.handle
    pool.expire_sessions()
    answer = xapi.session.VM.get_all(old)
    assert answer == {"Status": "Failure", "ErrorDescription": ["SESSION_INVALID", old]}


def test_the_client_logs_in_again_by_itself(pool: Pool, xapi: Client) -> None:
    pool.expire_sessions()
    assert xapi("VM.get_all")
    assert len(pool.calls_of("session.login_with_password")) == 2


def test_logging_out_ends_the_session(pool: Pool, xapi: Client) -> None:
    xapi("session.logout")
    assert not pool.records("session")


def test_a_reader_may_not_change_anything(pool: Pool) -> None:
    pool.add_user("eve", "eve", "read-only")
    with closing(Client(pool, user="eve", password="eve")) as eve:
        assert eve("VM.get_all")
        assert eve.refused("VM.clone", pool.template, "x")[0] == "RBAC_PERMISSION_DENIED"


@pytest.mark.parametrize("method", ["VM.nonsense", "Nonsense.get_all", "VM.get_nonsense", "Async.VM.get_all"])
def test_a_message_that_is_not_in_the_data_model_is_unknown(xapi: Client, method: str) -> None:
    assert xapi.refused(method) == ["MESSAGE_METHOD_UNKNOWN", method]


@pytest.mark.parametrize("args", [(), (NOWHERE,), (NOWHERE, False), (NOWHERE, False, False, False)])
def test_the_number_of_arguments_counts(xapi: Client, args: tuple[object, ...]) -> None:
    assert xapi.refused("VM.start", *args) == ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.start", "3", str(len(args))]


def test_arguments_at_the_end_may_be_optional(xapi: Client) -> None:
    vdi = xapi.vdi()
    assert xapi("VDI.clone", vdi) != xapi("VDI.clone", vdi, {})


@pytest.mark.parametrize(
    ("method", "args", "name"),
    [
        ("VM.set_VCPUs_max", (NOWHERE, 2), "value"),
        ("VM.set_VCPUs_max", (NOWHERE, "two"), "value"),
        ("VM.start", (NOWHERE, "false", False), "start_paused"),
        ("VM.set_domain_type", (NOWHERE, "lxc"), "value"),
        ("VM.set_tags", (NOWHERE, "one"), "value"),
        ("VM.set_other_config", (NOWHERE, {"key": 1}), "value"),
        ("event.from", (["vm"], "", 1), "timeout"),
        ("VDI.create", ({"flavour": "salt"},), "flavour"),
    ],
)
def test_a_value_of_another_type_is_refused(xapi: Client, method: str, args: tuple[object, ...], name: str) -> None:
    assert xapi.refused(method, *args) == ["FIELD_TYPE_ERROR", name]


def test_a_constructor_wants_every_mandatory_field(xapi: Client) -> None:
    expected = 'Server_helpers.Dispatcher_FieldNotFound("user_version")'
    assert xapi.refused("VM.create", {"name_label": "x"}) == ["INTERNAL_ERROR", expected]


def test_a_reference_to_nothing_is_invalid(xapi: Client) -> None:
    assert xapi.refused("VM.get_record", NOWHERE) == ["HANDLE_INVALID", "VM", NOWHERE]
    assert xapi.refused("VM.start", NOWHERE, False, False) == ["HANDLE_INVALID", "VM", NOWHERE]


def test_a_reference_to_another_class_is_invalid(pool: Pool, xapi: Client) -> None:
    assert xapi.refused("VM.get_record", pool.shared_sr) == ["HANDLE_INVALID", "VM", pool.shared_sr]


def test_a_uuid_of_nothing_is_invalid(xapi: Client) -> None:
    assert xapi.refused("VM.get_by_uuid", "1-2-3") == ["UUID_INVALID", "VM", "1-2-3"]


def test_a_key_that_is_there_is_not_added_again(xapi: Client) -> None:
    vm = xapi.vm()
    xapi("VM.add_to_other_config", vm, "key", "one")
    refusal = ["MAP_DUPLICATE_KEY", "VM", "other_config", vm, "key"]
    assert xapi.refused("VM.add_to_other_config", vm, "key", "two") == refusal
    xapi("VM.remove_from_other_config", vm, "key")
    assert "key" not in xapi("VM.get_other_config", vm)


def test_a_field_that_the_server_sets_has_no_setter(xapi: Client) -> None:
    assert xapi.refused("VM.set_power_state", xapi.vm(), "Running")[0] == "MESSAGE_METHOD_UNKNOWN"


def test_numbers_travel_as_strings_and_dates_as_dates(xapi: Client) -> None:
    record = xapi("VM.get_record", xapi.running())
    assert record["VCPUs_max"] == "1"
    assert xapi("VM_metrics.get_start_time", record["metrics"]).value.endswith("Z")


def test_names_find_all_that_bear_them(xapi: Client) -> None:
    made = {xapi.vm("twin"), xapi.vm("twin")}
    assert made == set(xapi("VM.get_by_name_label", "twin"))


def test_a_thousand_vms_are_listed_in_one_call(pool: Pool, xapi: Client) -> None:
    for number in range(1000):
        pool.add_vm(f"vm-{number}")
    pool.calls.clear()
    assert len(xapi("VM.get_all_records")) > 1000
    assert [call.method for call in pool.calls] == ["VM.get_all_records"]


def test_every_call_is_recorded_without_its_session(pool: Pool, xapi: Client) -> None:
    xapi.refused("Async.VM.start", NOWHERE)
    call = pool.calls[-1]
    assert (call.method, call.args, call.session) == ("Async.VM.start", (NOWHERE,), xapi.session.handle)
    assert call.error
    assert pool.calls_of("VM.start") == [call]


def test_an_expired_certificate_is_not_believed(pool: Pool) -> None:
    pool.expire_certificate()
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        Client(pool)
    pool.expire_certificate(False)
    Client(pool).close()


def test_a_pool_that_is_cut_off_does_not_listen_until_it_is_back(pool: Pool, xapi: Client) -> None:
    with pool.cut_off(), pytest.raises(OSError):
        xapi("VM.get_all")
    assert xapi("VM.get_all")
