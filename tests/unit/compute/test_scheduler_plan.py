"""Drivers order hosts, planners fill them, refusals are told: all without a database."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute.errors import ConfigError, HostNotFoundError
from compute.scheduling import drivers
from compute.scheduling.drivers import SchedulingDriver, Settings, load_driver
from compute.scheduling.filters import up_within
from compute.scheduling.plan import NoPlanError, Planner
from compute.scheduling.refusals import explain
from compute.scheduling.request import Request
from db.compute_nodes import Candidate
from tests.unit.compute.scheduler_builders import a_host, a_request, by_name


def plan(hosts: Sequence[Candidate], *requests: Request, driver: str = "filter", **settings: object) -> list[str]:
    made = load_driver(driver, Settings(**settings))  # type: ignore[arg-type]
    return Planner(made, up_within(60)).plan(by_name(*hosts), requests)


def refused(hosts: Sequence[Candidate], request: Request, driver: str = "filter") -> dict[str, str]:
    with pytest.raises(NoPlanError) as caught:
        plan(hosts, request, driver=driver)
    return dict(caught.value.refused)


EMPTY, HALF = a_host("empty"), a_host("half", memory_mb_used=8192, vcpus_used=2)


def test_filter_spreads_by_free_memory() -> None:
    assert plan([HALF, EMPTY], a_request()) == ["empty"]


def test_filter_packs_with_a_negative_multiplier() -> None:
    assert plan([EMPTY, HALF], a_request(), ram_weight_multiplier=-1.0) == ["half"]


@pytest.mark.parametrize(("multiplier", "used"), [("cpu", "vcpus_used"), ("disk", "local_gb_used")])
def test_filter_weighs_other_resources_too(multiplier: str, used: str) -> None:
    weights = {"ram_weight_multiplier": 0.0, f"{multiplier}_weight_multiplier": 1.0}
    assert plan([a_host("busy", **{used: 5}), EMPTY], a_request(), **weights) == ["empty"]


def test_filter_chooses_by_lot_among_a_subset_of_the_best() -> None:
    hosts = [a_host("worst", memory_mb_used=9000), HALF, EMPTY]
    seen = {plan(hosts, a_request(), scheduler_host_subset_size=2)[0] for _ in range(60)}
    assert seen == {"empty", "half"}


def test_filter_settles_ties_by_lot() -> None:
    assert {plan([a_host("one"), a_host("two")], a_request())[0] for _ in range(40)} == {"one", "two"}


@pytest.mark.parametrize("driver", ["chance", "nova.scheduler.chance.ChanceScheduler"])
def test_chance_takes_any_host_that_is_up_and_has_room_whatever_its_zone(driver: str) -> None:
    hosts = [HALF, EMPTY, a_host("down", age_s=99.0), a_host("full", vcpus_used=8), a_host("off", disabled=True)]
    seen = {plan(hosts, a_request(availability_zone="east"), driver=driver)[0] for _ in range(40)}
    assert seen == {"half", "empty"}


@pytest.mark.parametrize("driver", ["zone", "nova.scheduler.zone.ZoneScheduler"])
def test_zone_takes_any_host_of_the_zone(driver: str) -> None:
    hosts = [EMPTY, a_host("e1", availability_zone="east"), a_host("e2", availability_zone="east", vcpus_used=7)]
    seen = {plan(hosts, a_request(availability_zone="east"), driver=driver)[0] for _ in range(40)}
    assert seen == {"e1", "e2"}


@pytest.mark.parametrize("driver", ["simple", "nova.scheduler.simple.SimpleScheduler"])
def test_simple_takes_the_host_with_the_fewest_vcpus_in_use(driver: str) -> None:
    assert plan([HALF, a_host("light", vcpus_used=1, memory_mb_used=16000)], a_request(memory_mb=64)) == ["half"]
    assert plan([HALF, a_host("light", vcpus_used=1)], a_request(), driver=driver) == ["light"]


def test_simple_stops_at_max_cores() -> None:
    wide = a_host(vcpus=64, vcpus_used=15)
    assert refused([wide], a_request(vcpus=2), "simple") == {"host1": "too many cores (15 used, needs 2, max_cores 16)"}
    assert plan([wide], a_request(vcpus=2), driver="simple", max_cores=17) == ["host1"]


class Last(SchedulingDriver):
    """An operator's own driver."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(drivers.filtering(settings).filters)

    def choose(self, fits: Sequence[Candidate], request: Request) -> Candidate:
        return fits[-1]


def test_an_operators_own_driver_is_loaded_by_its_path() -> None:
    assert plan([EMPTY, HALF], a_request(), driver=f"{__name__}.Last") == ["half"]


@pytest.mark.parametrize("name", ["chnace", "no.such.Driver", "builtins.str"])
def test_a_driver_that_does_not_exist_is_a_configuration_error_that_names_it(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"scheduler_driver: .*{name}"):
        load_driver(name, Settings())


def test_a_forced_host_may_be_disabled_and_of_another_zone() -> None:
    off = a_host("off", disabled=True)
    assert plan([EMPTY, off], a_request(force_host="off", availability_zone="east")) == ["off"]


@pytest.mark.parametrize("fact", [{"age_s": None}, {"age_s": 61.0}, {"vcpus_used": 8}, {"memory_mb_used": 16384}])
def test_a_forced_host_must_be_up_and_have_room(fact: dict[str, object]) -> None:
    assert set(refused([EMPTY, a_host("h2", **fact)], a_request(force_host="h2"))) == {"h2"}


def test_a_forced_host_keeps_anti_affinity() -> None:
    apart = a_request(force_host="empty", group_policy="anti-affinity", group_hosts=frozenset({"empty"}))
    assert refused([EMPTY], apart) == {"empty": "holds another member of its server group"}


def test_a_forced_host_must_exist() -> None:
    with pytest.raises(HostNotFoundError, match="no compute host nowhere"):
        plan([EMPTY], a_request(force_host="nowhere"))


def test_members_of_one_anti_affinity_group_part_within_a_plan() -> None:
    apart = a_request(server_group_id=1, group_policy="anti-affinity")
    assert sorted(plan([EMPTY, HALF], apart, apart)) == ["empty", "half"]
    with pytest.raises(NoPlanError):
        plan([EMPTY, HALF], apart, apart, apart)


def test_members_of_two_groups_do_not_mind_each_other() -> None:
    one, two = (a_request(server_group_id=group, group_policy="anti-affinity") for group in (1, 2))
    assert plan([EMPTY], one, two) == ["empty", "empty"]


def test_an_affinity_group_goes_where_all_of_it_fits() -> None:
    roomy = a_host("roomy", memory_mb_used=9000, vcpus=64)
    together = a_request(vcpus=3, server_group_id=1, group_policy="affinity")
    assert plan([EMPTY, roomy], together, together, together) == ["roomy"] * 3


hosts_strategy = st.lists(
    st.builds(
        a_host,
        vcpus=st.integers(0, 8),
        memory_mb=st.integers(0, 8192),
        local_gb=st.integers(0, 100),
        vcpus_used=st.integers(0, 8),
        cpu_allocation_ratio=st.sampled_from([0.5, 1.0, 1.1, 16.0]),
        ram_allocation_ratio=st.sampled_from([0.9, 1.0, 1.5]),
    ),
    max_size=6,
).map(lambda hosts: [a_host(f"h{at}", **_facts(host)) for at, host in enumerate(hosts)])
requests_strategy = st.lists(
    st.builds(a_request, vcpus=st.integers(1, 4), memory_mb=st.integers(1, 4096), local_gb=st.integers(0, 50)),
    max_size=12,
)


def _facts(host: Candidate) -> dict[str, object]:
    names = ["vcpus", "memory_mb", "local_gb", "vcpus_used", "cpu_allocation_ratio", "ram_allocation_ratio"]
    return {name: getattr(host.node, name) for name in names}


def has_room(host: Candidate, vcpus: int, memory_mb: int, local_gb: int) -> bool:
    node = host.node
    return (
        node.vcpus_used + vcpus <= node.vcpus * node.cpu_allocation_ratio
        and node.memory_mb_used + memory_mb <= node.memory_mb * node.ram_allocation_ratio
        and node.local_gb_used + local_gb <= node.local_gb * node.disk_allocation_ratio
    )


@given(hosts_strategy, requests_strategy, st.sampled_from(["filter", "chance", "zone", "simple"]))
def test_a_plan_never_exceeds_the_room_of_any_host(
    hosts: list[Candidate], requests: list[Request], driver: str
) -> None:
    try:
        planned = plan(hosts, *requests, driver=driver)
    except NoPlanError:
        return
    for host in hosts:
        mine = [request for request, where in zip(requests, planned, strict=True) if where == host.node.host]
        sizes = [sum(getattr(request, size) for request in mine) for size in ("vcpus", "memory_mb", "local_gb")]
        assert not mine or has_room(host, *sizes)


@given(hosts_strategy, st.builds(a_request, vcpus=st.integers(1, 9), memory_mb=st.integers(1, 9000)))
def test_one_request_is_refused_only_if_every_host_is_full(hosts: list[Candidate], request: Request) -> None:
    roomy = {h.node.host for h in hosts if has_room(h, request.vcpus, request.memory_mb, request.local_gb)}
    if roomy:
        assert plan(hosts, request)[0] in roomy
    else:
        assert set(refused(hosts, request)) == {host.node.host for host in hosts}


def test_a_few_refusals_are_told_host_by_host() -> None:
    told = explain("1 vCPUs", {"host1": "not enough memory (free 512 MiB, needs 2048 MiB)", "host2": "disabled"})
    assert told == (
        "no valid host for 1 vCPUs: host1: not enough memory (free 512 MiB, needs 2048 MiB); host2: disabled"
    )


def test_many_refusals_are_told_by_kind_with_an_example_most_frequent_first() -> None:
    why = {f"h{at}": f"not enough memory (free {at} MiB)" for at in range(297)}
    told = explain("1 vCPUs", {"off": "disabled", "gone": "down (last report 99 s ago)", **why, "gone2": "disabled"})
    assert told == (
        "no valid host for 1 vCPUs: 300 hosts: 297 not enough memory, as h0: not enough memory (free 0 MiB); "
        "off: disabled; gone2: disabled; gone: down (last report 99 s ago)"
    )


def test_refusals_stay_short_even_if_every_host_has_a_reason_of_its_own() -> None:
    told = explain("1 vCPUs", {f"h{at}": f"reason {at}" for at in range(500)})
    assert told.endswith("490 more for other reasons")
    assert len(told) < 500


def test_no_hosts_at_all_is_told_too() -> None:
    assert explain("1 vCPUs", {}) == "no valid host for 1 vCPUs: no compute host is registered"


def test_equal_hosts_share_a_batch_evenly() -> None:
    hosts = [a_host(f"h{at}") for at in range(4)]
    assert set(Counter(plan(hosts, *[a_request()] * 20)).values()) == {5}
