"""A compute API that writes down what it was asked for and answers what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Accepted:
    """As compute.api's."""

    instance_id: int
    action_id: int | None
    rang: bool = True
    password: str | None = None


@dataclass
class FakeRpc:
    """Casts written down as (host, verb, arguments); `works` is what the bus says."""

    casts: list[tuple[str, str, dict[str, int]]] = field(default_factory=list)
    works: bool = True

    def cast(self, _context: Any, host: str, verb: str, **args: int) -> bool:
        """Write it down."""
        self.casts.append((host, verb, args))
        return self.works


@dataclass
class FakeApi:
    """calls: (method, arguments, keywords). faults: what waiting for an action raises, by action id."""

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    faults: dict[int, Exception] = field(default_factory=dict)
    refusal: Exception | None = None
    rang: bool = True
    answers: dict[str, Any] = field(default_factory=dict)
    closed: bool = False
    rpc: FakeRpc = field(default_factory=FakeRpc)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def order(_context: Any, *args: Any, **kwargs: Any) -> Any:
            if self.refusal is not None:
                raise self.refusal
            self.calls.append((name, args, kwargs))
            return self.answers.get(name, Accepted(7, 17, self.rang))

        return order

    def create(self, context: Any, **wanted: Any) -> list[Accepted]:
        """As many orders as wanted."""
        self.calls.append(("create", (context,), wanted))
        return [Accepted(number, 10 + number, self.rang) for number in range(1, wanted["min_count"] + 1)]

    def wait(self, _context: Any, accepted: Accepted, timeout_s: float, on_progress: Any = None) -> dict[str, Any]:
        """Done at once, unless there is a fault for it."""
        self.calls.append(("wait", (accepted.action_id,), {"timeout_s": timeout_s}))
        fault = self.faults.get(accepted.action_id or 0)
        if fault is not None:
            raise fault
        if on_progress is not None:
            on_progress({"action": "stopping", "state": "running", "progress": "50 %"})
        return {"id": accepted.action_id, "state": "done"}

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def asked(self, method: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the only call of `method`."""
        [found] = [(args, kwargs) for name, args, kwargs in self.calls if name == method]
        return found
