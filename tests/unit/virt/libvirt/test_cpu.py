"""Guests of another host's CPU: refused where something is missing, and never let in by a description that is none."""

from __future__ import annotations

import json

import libvirt
import pytest
from lxml import etree

from virt.errors import HypervisorError
from virt.libvirt import cpu

THEIRS = json.dumps(
    {"arch": "x86_64", "model": "Haswell", "vendor": "Intel", "topology": {"cores": 4}, "features": ["vmx", "avx2"]}
)


class Connection:
    """A libvirt that answers `verdict`, and remembers what it was asked."""

    def __init__(self, verdict):
        self.verdict, self.asked = verdict, None

    def compareCPU(self, xml, _flags):  # noqa: N802 - libvirt's name
        self.asked = etree.fromstring(xml)
        return self.verdict

    def call(self, _lane, work):
        return work(self)


@pytest.mark.parametrize("verdict", [libvirt.VIR_CPU_COMPARE_IDENTICAL, libvirt.VIR_CPU_COMPARE_SUPERSET])
def test_a_cpu_that_has_all_of_it_takes_the_guest(verdict):
    connection = Connection(verdict)
    cpu.compare(connection, "x86_64", THEIRS, emulated=False)
    assert connection.asked.findtext("model") == "Haswell"
    assert [feature.get("name") for feature in connection.asked.findall("feature")] == ["vmx", "avx2"]


def test_a_cpu_that_lacks_something_refuses_the_guest():
    with pytest.raises(HypervisorError, match="Haswell"):
        cpu.compare(Connection(libvirt.VIR_CPU_COMPARE_INCOMPATIBLE), "x86_64", THEIRS, emulated=False)


def test_guests_that_are_emulated_never_see_the_cpu():
    cpu.compare(Connection(libvirt.VIR_CPU_COMPARE_INCOMPATIBLE), "x86_64", THEIRS, emulated=True)


def test_another_architecture_is_refused_in_any_case():
    with pytest.raises(HypervisorError, match="aarch64"):
        cpu.compare(Connection(libvirt.VIR_CPU_COMPARE_SUPERSET), "aarch64", THEIRS, emulated=True)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"features": 3}', "null"])
def test_what_describes_no_cpu_is_refused(text):
    with pytest.raises(HypervisorError, match="describes none"):
        cpu.compare(Connection(libvirt.VIR_CPU_COMPARE_SUPERSET), "x86_64", text, emulated=False)
