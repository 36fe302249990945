"""Each filter says what is wrong with what, or None."""

import pytest
from oslo_config import cfg

from compute import scheduler_conf
from compute.errors import ConfigError, InvalidInputError, NotAuthorizedError
from compute.scheduling import filters
from compute.scheduling.request import Request, split_zone
from db.compute_nodes import Candidate
from tests.unit.compute.scheduler_builders import a_host, a_request

REFUSALS = [
    (filters.up_within(60), a_host(age_s=61.2), a_request(), "down (last report 61 s ago)"),
    (filters.up_within(60), a_host(age_s=None), a_request(), "down (stopped, or never started)"),
    (filters.enabled, a_host(disabled=True), a_request(), "disabled"),
    (filters.zone, a_host(), a_request(availability_zone="east"), "in another zone (nova, not east)"),
    (filters.excluded, a_host(), a_request(exclude={"host1": "no kernel"}), "left out (no kernel)"),
    (filters.hypervisor_type, a_host(), a_request(hypervisor_type="xen"), "another hypervisor (QEMU, not xen)"),
    (
        filters.affinity,
        a_host(),
        a_request(group_policy="affinity", group_hosts=frozenset({"host2"})),
        "apart from its server group (on host2)",
    ),
    (
        filters.anti_affinity,
        a_host(),
        a_request(group_policy="anti-affinity", group_hosts=frozenset({"host1"})),
        "holds another member of its server group",
    ),
    (filters.same_host, a_host(), a_request(same_host=frozenset({"host2"})), "not one of the hosts asked for"),
    (filters.different_host, a_host(), a_request(different_host=frozenset({"host1"})), "one of the hosts to avoid"),
    (filters.vcpu, a_host(vcpus_used=7), a_request(vcpus=2), "not enough vCPUs (free 1, needs 2)"),
    (
        filters.ram,
        a_host(memory_mb_used=15872),
        a_request(memory_mb=2048),
        "not enough memory (free 512 MiB, needs 2048 MiB)",
    ),
    (filters.disk, a_host(local_gb_used=120), a_request(local_gb=5), "not enough disk (free 0 GiB, needs 5 GiB)"),
    (
        filters.at_most_cores(16),
        a_host(vcpus_used=15),
        a_request(vcpus=2),
        "too many cores (15 used, needs 2, max_cores 16)",
    ),
]


@pytest.mark.parametrize(("refuse", "host", "request_", "reason"), REFUSALS)
def test_a_filter_says_why(refuse: filters.Filter, host: Candidate, request_: Request, reason: str) -> None:
    assert refuse(host, request_) == reason


@pytest.mark.parametrize("refuse", [filters.up_within(60), filters.at_most_cores(16), *filters.chosen([])])
def test_a_filter_lets_an_idle_host_take_a_plain_request(refuse: filters.Filter) -> None:
    assert refuse(a_host(), a_request()) is None


@pytest.mark.parametrize(
    ("refuse", "host", "request_"),
    [
        (filters.up_within(60), a_host(age_s=60.0), a_request()),
        (filters.up_within(60), a_host(age_s=-3600.0), a_request()),
        (filters.zone, a_host(availability_zone="east"), a_request(availability_zone="east")),
        (filters.hypervisor_type, a_host(), a_request(hypervisor_type="qemu")),
        (filters.affinity, a_host(), a_request(group_policy="affinity")),
        (filters.affinity, a_host(), a_request(group_policy="anti-affinity", group_hosts=frozenset({"host2"}))),
        (filters.anti_affinity, a_host(), a_request(group_policy="affinity", group_hosts=frozenset({"host1"}))),
        (filters.vcpu, a_host(vcpus_used=8, cpu_allocation_ratio=2.0), a_request(vcpus=8)),
        (filters.ram, a_host(memory_mb_used=16384, ram_allocation_ratio=1.5), a_request(memory_mb=8192)),
        (filters.disk, a_host(local_gb_used=95), a_request(local_gb=5)),
    ],
)
def test_a_filter_lets_through_what_just_fits(refuse: filters.Filter, host: Candidate, request_: Request) -> None:
    assert refuse(host, request_) is None


def test_what_an_operator_leaves_out_of_the_filters_still_holds_if_it_must() -> None:
    assert set(filters.chosen(["up", "zone"])) == {filters.zone, *filters.ALWAYS.values()}


def refuse_mondays(host: Candidate, request_: Request) -> str | None:
    """An operator's own filter."""
    return "it is Monday"


def test_an_operators_own_filter_comes_first_when_listed_first() -> None:
    own = filters.chosen([f"{__name__}.refuse_mondays", "ram"])[0]
    assert own(a_host(), a_request()) == "it is Monday"


@pytest.mark.parametrize("name", ["rma", "no.such.filter", "compute.scheduling.filters.nothing", ".ram"])
def test_a_filter_that_does_not_exist_is_a_configuration_error_that_names_it(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"scheduler_filters: .*{name}"):
        filters.chosen([name])


def test_every_filter_of_the_default_configuration_exists() -> None:
    conf = cfg.ConfigOpts()
    conf.register_opts(scheduler_conf.OPTS)
    conf([], default_config_files=[], default_config_dirs=[])
    settings = scheduler_conf.settings(conf)
    assert set(filters.chosen(settings.scheduler_filters)) == {*filters.OPTIONAL.values(), *filters.ALWAYS.values()}


def test_a_server_group_policy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="soft-affinity"):
        a_request(group_policy="soft-affinity")


@pytest.mark.parametrize(
    ("asked", "read"),
    [(None, (None, None)), ("", (None, None)), ("east", ("east", None)), ("east:h1", ("east", "h1")),
     (":h1", (None, "h1"))],
)  # fmt: skip
def test_an_administrator_names_a_zone_or_a_host(asked: str | None, read: tuple[str | None, str | None]) -> None:
    assert split_zone(asked, is_admin=True) == read


def test_nobody_else_names_a_host() -> None:
    assert split_zone("east", is_admin=False) == ("east", None)
    with pytest.raises(NotAuthorizedError, match="east:h1"):
        split_zone("east:h1", is_admin=False)


def test_a_colon_without_a_host_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no host after the colon"):
        split_zone("east:", is_admin=True)
