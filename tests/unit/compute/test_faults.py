"""What users read of a failure, and what only operators do."""

import json

from compute import faults
from compute.errors import ComputeError, InstanceBusyError
from virt.errors import HypervisorError


def test_our_errors_speak_for_themselves() -> None:
    assert faults.message_of(InstanceBusyError("instance 1\n is busy")) == "instance 1 is busy"


def test_an_accident_is_told_by_class_only() -> None:
    told = faults.message_of(KeyError("/etc/shadow"))
    assert told == "internal error (KeyError); the operator's log has the details"


def test_a_password_is_masked() -> None:
    assert "s3cret" not in faults.message_of(ComputeError("login failed, password='s3cret'"))


def test_an_expected_error_has_no_traceback_and_an_unexpected_one_has() -> None:
    assert faults.traceback_of(ComputeError("x")) is None
    assert "HypervisorError: boom" in str(faults.traceback_of(HypervisorError("boom")))


def test_messages_and_tracebacks_are_bounded() -> None:
    assert len(faults.message_of(ComputeError("x" * 9999))) == faults.MAX_MESSAGE
    assert len(str(faults.traceback_of(HypervisorError("x" * 99999)))) == faults.MAX_TRACEBACK


def test_a_fault_is_json_with_message_code_and_request() -> None:
    fault = json.loads(faults.fault(ComputeError("boom"), "req-1", "boom; and more"))
    assert (fault["message"], fault["code"], fault["request_id"]) == ("boom; and more", "ComputeError", "req-1")
