"""Calls dispatched: to a handler, or to the accessors that every class has for its fields."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tests.fakes.xenapi import devices, machines, migration, power, repositories, services, storage
from tests.fakes.xenapi.errors import ApiError, ConnectionDroppedError, busy, internal_error
from tests.fakes.xenapi.lifecycle import refresh
from tests.fakes.xenapi.model import Message, Type
from tests.fakes.xenapi.registry import HANDLERS, UNLOCKED, Context
from tests.fakes.xenapi.services import finish_task, new_task
from tests.fakes.xenapi.values import Reader, array, failure, response, struct, text, write

if TYPE_CHECKING:
    from tests.fakes.xenapi.faults import Fault
    from tests.fakes.xenapi.pool import Host, Pool

__all__ = ["HANDLERS", "Dispatcher"]
MODULES = (devices, machines, migration, power, repositories, services, storage)  # they register their handlers
LOGIN = "session.login_with_password"
READS = ("get_", "assert_", "compute_")
Work = Callable[[], str]


class Dispatcher:
    """Answers XML-RPC calls for a pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.db = pool.db
        self._reader = Reader(pool.db.model)
        self._threads: list[threading.Thread] = []

    def answer(self, host: Host, method: str, params: Sequence[Any]) -> bytes:
        """The response to a call; ConnectionDroppedError when there is to be none."""
        name = method.removeprefix("Async.")
        session = params[:1] if name != LOGIN else ()
        call = self.pool.note(method, params[len(session) :], host, *session)
        faults = self.pool.faults.take(name)
        if "drop_request" in faults:
            raise ConnectionDroppedError(method)
        try:
            answer = response(self._value(host, method, name, params, faults))
        except ApiError as exc:
            call.error = exc.description
            answer = failure(exc.description)
        if "lose_reply" in faults:
            raise ConnectionDroppedError(method)
        return answer

    def _value(self, host: Host, method: str, name: str, params: Sequence[Any], faults: dict[str, Fault]) -> str:
        if not host.is_master:
            raise ApiError("HOST_IS_SLAVE", self.pool.master.address)
        message = self.db.model.message(name)
        if message is None or (method != name and not message.has_async):
            raise ApiError("MESSAGE_METHOD_UNKNOWN", method)
        x = Context(self.pool, host)
        if name != LOGIN:
            x.session = self._session(params, name, message)
            params = params[1:]
        args = self._arguments(method, message, params)
        if method == name:
            return self._run(x, name, message, args, faults)
        return self._start(x, name, lambda: self._run(x, name, message, args, faults))

    def _session(self, params: Sequence[Any], name: str, message: Message) -> str:
        if not params:
            raise ApiError("MESSAGE_PARAMETER_COUNT_MISMATCH", name, str(len(message.arguments)), "-1")
        session = params[0]
        with self.db.changed:
            if not isinstance(session, str) or not self.db.has("session", session):
                raise ApiError("SESSION_INVALID", str(session))
            user = self.db.get("session", session)["auth_user_name"]
        if self.pool.users[user].role == "read-only" and not _reads(message.name):
            words = "No permission in user session. (Roles with this permission: pool-admin)"
            raise ApiError("RBAC_PERMISSION_DENIED", name.lower(), words)
        return session

    def _arguments(self, method: str, message: Message, params: Sequence[Any]) -> list[Any]:
        most = len(message.arguments)
        if not most - message.optional <= len(params) <= most:
            raise ApiError("MESSAGE_PARAMETER_COUNT_MISMATCH", method, str(most), str(len(params)))
        return [self._reader.read(kind, value, name)
                for (name, kind), value in zip(message.arguments, params, strict=False)]  # fmt: skip

    def _start(self, x: Context, name: str, work: Work) -> str:
        with self.db.changed:
            x.task = new_task(x, f"Async.{name}")
            self.pool.working.add(x.task)
        thread = threading.Thread(target=self._work, args=(x, work), name=f"Async.{name}", daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()
        return text(x.task)

    def join(self) -> None:
        """Wait for the tasks that are at work."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(10)

    def _work(self, x: Context, work: Work) -> None:
        status, result, error = "success", "", None
        try:
            result = work()
        except ApiError as exc:
            status = "cancelled" if exc.code == "TASK_CANCELLED" else "failure"
            error = exc.description
        except ConnectionDroppedError:
            status = "failure"
        except Exception as exc:
            status, error = "failure", internal_error(repr(exc)).description
            raise
        finally:
            with self.db.changed:
                self.pool.working.discard(x.task)
                finish_task(x, x.task, status, "" if result == text("") else result, error)

    def _run(self, x: Context, name: str, message: Message, args: list[Any], faults: dict[str, Fault]) -> str:
        """Do it, as the faults allow; the result as XML."""
        if fault := faults.get("fail"):
            raise ApiError(*fault.facts["description"])
        if fault := faults.get("hold"):
            fault.facts["hold"].stand()
        if "hang" in faults or "never_finish" in faults:
            self._linger(x, name, args, faults["hang"].facts["seconds"] if "hang" in faults else None)
        handler = HANDLERS.get(name)
        if name in UNLOCKED and handler:
            return self._xml(message.result, handler(x, *args))
        with self.db.changed:
            value = handler(x, *args) if handler else None
            result = self._xml(message.result, value) if handler else self._accessor(name, args)
            refresh(self.db)
        if fault := faults.get("hold_done"):
            fault.facts["hold"].stand()
        if fault := faults.get("fail_after"):
            raise ApiError(*fault.facts["description"])
        return result

    def _linger(self, x: Context, name: str, args: list[Any], seconds: float | None) -> None:
        """Be at work on the object: others find it busy, and the task can be cancelled."""
        kind, _, operation = name.partition(".")
        with self.db.changed:
            known = bool(args) and isinstance(args[0], str) and self.db.has(kind, args[0])
            busy_with = known and "current_operations" in self.db.get(kind, args[0]) and kind in {"VM", "VDI", "VBD"}
            if busy_with:
                self._take(x, kind, args[0], operation)
            self.db.changed.wait_for(lambda: self._is_over(x), timeout=seconds)
            if self.pool.stopping:
                raise ConnectionDroppedError(name)
            if busy_with and self.db.has(kind, args[0]):
                self.db.update(kind, args[0], current_operations={})
            if x.task and self.db.has("task", x.task) and self.db.get("task", x.task)["status"] == "cancelling":
                raise ApiError("TASK_CANCELLED", x.task)

    def _take(self, x: Context, kind: str, ref: str, operation: str) -> None:
        if self.db.get(kind, ref)["current_operations"]:
            raise busy(kind, ref, operation)
        self.db.update(kind, ref, current_operations={x.task or "OpaqueRef:sync": operation})
        refresh(self.db)

    def _is_over(self, x: Context) -> bool:
        if self.pool.stopping:
            return True
        return bool(x.task) and (
            not self.db.has("task", x.task) or self.db.get("task", x.task)["status"] == "cancelling"
        )

    def _xml(self, kind: Type, value: Any) -> str:
        if kind.kind == "batch":
            return _batch_xml(value)
        if kind.kind == "set" and kind.inner[0].kind == "record":
            fields = self.db.model.classes[kind.inner[0].name].fields
            return array([struct({name: write(fields[name].type, one[name]) for name in one}) for one in value])
        return write(kind, value)

    def _accessor(self, name: str, args: list[Any]) -> str:
        """The generated messages: of a class's records, or of one field of one of them."""
        kind, _, message = name.partition(".")
        wholes: dict[str, Callable[..., str]] = {
            "get_all": lambda: self._refs(list(self.db.all(kind))),
            "get_all_records": lambda: struct({ref: self.db.xml(kind, ref) for ref in self.db.all(kind)}),
            "get_by_uuid": lambda uuid: text(self.db.by_uuid(kind, uuid)),
            "get_by_name_label": lambda label: self._refs(self.db.find(kind, name_label=label)),
            "get_record": lambda ref: self.db.xml(kind, ref),
        }
        if message in wholes:
            return wholes[message](*args)
        if message in {"create", "destroy"}:
            raise ApiError("NOT_IMPLEMENTED", name)
        return self._of_field(kind, message, *args)

    def _refs(self, refs: list[str]) -> str:
        return array([text(ref) for ref in refs])

    def _of_field(self, kind: str, message: str, ref: str, *args: Any) -> str:
        fields = self.db.model.classes[kind].fields
        record = self.db.get(kind, ref)
        for prefix in ("get_", "set_", "add_to_", "remove_from_", "add_", "remove_"):
            field = message.removeprefix(prefix)
            if message.startswith(prefix) and field in fields:
                break
        if prefix == "get_":
            return write(fields[field].type, record[field])
        self.db.update(kind, ref, **{field: self._changed(kind, ref, prefix, field, *args)})
        return text("")

    def _changed(self, kind: str, ref: str, prefix: str, field: str, *args: Any) -> Any:
        record = self.db.get(kind, ref)
        if prefix == "add_to_" and args[0] in record[field]:
            raise ApiError("MAP_DUPLICATE_KEY", kind, field, ref, args[0])
        changes: dict[str, Callable[[], Any]] = {
            "set_": lambda: args[0],
            "add_to_": lambda: record[field] | {args[0]: args[1]},
            "remove_from_": lambda: {key: value for key, value in record[field].items() if key != args[0]},
            "add_": lambda: list(dict.fromkeys([*record[field], args[0]])),
            "remove_": lambda: [one for one in record[field] if one != args[0]],
        }
        return changes[prefix]()


def _reads(message: str) -> bool:
    return message.startswith(READS) or message in {"logout", "from"}


def _batch_xml(batch: dict[str, Any]) -> str:
    events = [
        struct({"id": text(str(generation)), "timestamp": text("0.0"), "class": text(kind.lower()),
                "operation": text(operation), "ref": text(ref)} | ({"snapshot": snapshot} if snapshot else {}))
        for operation, kind, ref, generation, snapshot in batch["events"]
    ]  # fmt: skip
    counts = {kind: f"<value><int>{count}</int></value>" for kind, count in batch["valid_ref_counts"].items()}
    return struct({"events": array(events), "valid_ref_counts": struct(counts), "token": text(batch["token"])})
