"""Whether KVM works is found out by running code in it, and believed only within a time limit."""

from __future__ import annotations

import sys

import pytest

from virt.libvirt import guest_type, kvm_probe


@pytest.fixture(autouse=True)
def _forget():
    guest_type.best_type.cache_clear()
    yield
    guest_type.best_type.cache_clear()


@pytest.fixture
def child(monkeypatch, tmp_path):
    """What the probe's child does, as Python text."""

    def set_to(text):
        (tmp_path / "child").write_text(f"#!{sys.executable}\n{text}")
        (tmp_path / "child").chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "child"))

    return set_to


@pytest.mark.parametrize(
    ("text", "works", "why"),
    [
        ("print(0.001)", True, "1.0 ms"),
        ("print(0.9)", False, "900.0 ms"),
        ("import sys; sys.exit('KVM cannot be used: no')", False, "KVM cannot be used: no"),
        ("import os; os.abort()", False, "died"),
        ("import time; time.sleep(60)", False, "did not end within"),
    ],
)
def test_the_verdict_has_a_reason(child, text, works, why):
    child(text)
    verdict, reason = kvm_probe.kvm_works(timeout_s=2)
    assert (verdict, why in reason) == (works, True), reason


def test_the_real_probe_answers_here():
    works, why = kvm_probe.kvm_works()
    assert isinstance(works, bool)
    assert "KVM" in why


@pytest.mark.parametrize(("works", "kind"), [(True, "kvm"), (False, "qemu")])
def test_the_type_is_found_out_and_said_once(monkeypatch, caplog, works, kind):
    caplog.set_level("INFO")
    monkeypatch.setattr(guest_type, "kvm_works", lambda: (works, "because"))
    assert {guest_type.best_type(), guest_type.best_type()} == {kind}
    assert len([record for record in caplog.records if "because" in record.getMessage()]) == 1
