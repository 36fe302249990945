"""Which firewall a flag means, and what keeps taps shut."""

from __future__ import annotations

import json

import pytest
from oslo_config import cfg

from tests.builders import a_guest
from tests.fakes.nwfilters import FakeFilters
from virt.errors import DriverConfigError, FirewallError, ProcessError
from virt.firewall import backstop, base
from virt.firewall.conf import OPTS
from virt.firewall.guard import Guarded, TapGuard
from virt.firewall.nwfilter import NWFilterFirewall


def configured(name):
    conf = cfg.ConfigOpts()
    conf([], project="test")
    conf.register_opts(OPTS)
    conf.set_override("firewall_driver", name)
    return conf


@pytest.mark.parametrize("name", ["nwfilter", "nova.virt.libvirt_conn.NWFilterFirewall"])
def test_a_firewall_is_found_by_its_short_name_and_by_that_of_2011(name):
    assert isinstance(base.load(configured(name), FakeFilters()), NWFilterFirewall)


def test_no_firewall_names_no_filter():
    firewall = base.load(configured("noop"))
    spec = firewall.behind_filters(a_guest())
    assert [vif.filter_name for vif in spec.vifs] == [None]
    assert firewall.instance_filter_exists(spec)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("iptable", "neither one of noop, nwfilter, iptables"),
        ("no.such.Firewall", "No module"),
        ("json.loads", "no from_conf"),
    ],
)
def test_a_firewall_that_does_not_exist_is_told(name, reason):
    with pytest.raises(DriverConfigError, match=f"firewall_driver = {name}: .*{reason}"):
        base.load(configured(name))


def test_libvirts_filters_need_libvirt():
    with pytest.raises(DriverConfigError, match=r"firewall_driver = nwfilter: .*not libvirt"):
        base.load(configured("nwfilter"))


class Shell:
    """Answers commands, and keeps them."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, cmd, **options):
        self.asked.append((cmd, options.get("stdin")))
        answer = self.answers.pop(0) if self.answers else ""
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_guarding_is_one_atomic_command():
    shell = Shell()
    TapGuard(shell).ensure(["tapa", "tapb"])
    ((cmd, _),) = shell.asked
    assert 'add element bridge micronova_guard guarded { "tapa", "tapb" }' in cmd[1]


def listing(*hooks, guarded=(), opened=()):
    sets = [{"set": {"table": "micronova_guard", "name": name, "elem": list(found)}}
            for name, found in (("guarded", guarded), ("open", opened))]  # fmt: skip
    rules = [{"rule": {"table": "micronova_guard", "chain": hook}} for hook in hooks]
    return json.dumps({"nftables": sets + rules})


def test_what_is_guarded_open_or_of_old_is_told_apart():
    shell = Shell(listing("forward", "output", "input", guarded=["tapa"], opened=["tapa", 7]))
    expected = Guarded(names=frozenset({"tapa"}), open=frozenset({"tapa"}), stale=frozenset({"7"}))
    assert TapGuard(shell).held() == expected


def test_a_guard_without_all_its_rules_is_none():
    assert TapGuard(Shell(listing("forward", "input"))).held() is None


def test_a_refusal_is_told_in_nfts_words():
    with pytest.raises(FirewallError, match="Operation not permitted"):
        TapGuard(Shell(ProcessError(["nft"], 1, "Operation not permitted"))).open(["tapa"])


def test_the_backstop_is_made_in_one_change_beside_what_is_there():
    shell = Shell(":FORWARD ACCEPT [0:0]\n", "", "", ":FORWARD ACCEPT [0:0]\n:libvirt-out - [0:0]\n", "")
    backstop.Backstop(shell).ensure()
    commands = [cmd[0] for cmd, _ in shell.asked]
    assert commands == ["iptables-save", "iptables", "iptables-restore", "ip6tables-save", "ip6tables-restore"]
    assert "-I FORWARD 1 -j nova-libvirt-taps\n" in shell.asked[-1][1]
    assert ":libvirt-out" not in shell.asked[-1][1]


def test_a_backstop_that_is_in_place_is_left_alone():
    there = "\n".join((*backstop._RULES, backstop._JUMP, ""))
    shell = Shell(there, there)
    backstop.Backstop(shell).ensure()
    assert [cmd[0] for cmd, _ in shell.asked] == ["iptables-save", "ip6tables-save"]
    assert not backstop.is_in_place(there.replace("-j DROP", "-j ACCEPT"))
