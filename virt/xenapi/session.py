"""One login to a pool, shared by any number of threads. The only module that imports XenAPI.

A connection serves one call at a time, so there are as many as calls at once. A call that may have been carried out is
never sent again, save one that only reads or sets: whoever makes something says how to find it (`make`). A session that
has ended is renewed, and a host that is not the master names the one that is.
"""

from __future__ import annotations

import http.client
import logging
import re
import ssl
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

import XenAPI

from virt.driver import Progress, no_progress
from virt.errors import DriverConfigError, DriverTimeoutError, HypervisorError, HypervisorUnreachableError
from virt.xenapi.errors import CredentialsError, GoneError, LostReplyError, XapiError, refusal
from virt.xenapi.transport import Transport, verified

LOG = logging.getLogger(__name__)

NULL = "OpaqueRef:NULL"
_TRIES = 3
_IDLE_S = 15.0
_FIRST_LOOK_S = 0.02
_CANCEL_S = 30.0
_PROGRESS_S = 2.0
_AWAY_S = 180.0
_LOOKS = 5
_RESENDABLE = re.compile(r"\w+\.(get_\w+|set_\w+|from|assert_\w+|compute_\w+|query_\w+)")
_REFERENCE = re.compile(r"OpaqueRef:[^<\s]+")
_BROKEN = (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError, xmlrpc.client.ResponseError, ExpatError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where a pool is, who we are there, and whose certificates we believe (`ca_file`; empty: this machine's)."""

    url: str
    username: str
    password: str = field(repr=False)
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """A session of the pool and the URL of the master that it was made with."""

    url: str
    handle: str = field(repr=False)


class _Line:
    """One connection to one master."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self.url, self.used_at = url, time.monotonic()
        self.transport = Transport(context)
        self._xapi = XenAPI.Session(url, transport=self.transport, allow_none=False)

    def login(self, account: Account, deadline: float) -> str:
        self.transport.deadline = deadline
        self._xapi.login_with_password(account.username, account.password, "2.21", "micronova")
        return str(self._xapi.handle)

    def ask(self, login: Login, method: str, args: tuple[Any, ...], deadline: float) -> Any:
        self.transport.deadline = deadline
        self._xapi._session, self._xapi.last_login_method = login.handle, None
        return self._xapi.xenapi_request(method, args)

    def logout(self, login: Login, deadline: float) -> None:
        self.transport.deadline = deadline
        self._xapi._session, self._xapi.last_login_method = login.handle, "login_with_password"
        self._xapi.logout()


class _SessionEndedError(Exception):
    """xapi does not know the session (any more); nothing was done."""


class _SlaveError(Exception):
    """The host is not the master; its words name that one. Nothing was done."""


class Session:
    """Calls to a pool. Timeouts in seconds; at most `max_calls` at a time, more wait."""

    def __init__(
        self,
        account: Account,
        *,
        login_timeout_s: float = 10.0,
        call_timeout_s: float = 60.0,
        poll_s: float = 0.5,
        max_calls: int = 16,
    ) -> None:
        self._account = account
        self._login_timeout_s, self._call_timeout_s, self._poll_s = login_timeout_s, call_timeout_s, poll_s
        try:
            self.context = verified(account.ca_file)
        except OSError as exc:
            raise DriverConfigError(f"xenapi_ca_file = {account.ca_file}: {exc.strerror or exc}") from exc
        self._url = account.url
        self._others: tuple[str, ...] = ()
        self._login: Login | None = None
        self._idle: list[_Line] = []
        self._is_closed = False
        self._guard, self._entrance = threading.Lock(), threading.Lock()
        self._places = threading.BoundedSemaphore(max_calls)

    @property
    def url(self) -> str:
        """Where the master is, as far as is known."""
        return self._url

    def login(self, deadline: float | None = None) -> Login:
        """The session, made if there is none. Raises HypervisorUnreachableError, CredentialsError."""
        until = deadline or time.monotonic() + self._login_timeout_s
        if not self._entrance.acquire(timeout=max(0.0, until - time.monotonic())):
            raise HypervisorUnreachableError(f"{self._url}: somebody else was logging in until the deadline")
        failure = None
        try:
            for _ in range(_TRIES + len(self._others)):
                if self._login is None:
                    found = self._try_to_log_in(min(until, time.monotonic() + self._login_timeout_s))
                    failure = failure or found
                if self._login is not None:
                    return self._login
        finally:
            self._entrance.release()
        raise failure or HypervisorUnreachableError(
            f"{self._url}: each host of the pool names another one as its master"
        )

    def know(self, addresses: Iterable[str]) -> None:
        """The addresses of the pool's hosts: one of them knows the master when the old one is no more."""
        self._others = tuple(_at(self._account.url, address) for address in addresses)

    def call(self, method: str, *args: Any, timeout_s: float | None = None, renews: bool = True) -> Any:
        """What xapi answers. Integers are to be given as strings, and are answered so.

        renews: log in again when the session has ended; else that is HypervisorUnreachableError.

        Raises HypervisorUnreachableError when it was not done, LostReplyError when nobody knows, XapiError when xapi
        refused.
        """
        deadline = time.monotonic() + (timeout_s or self._call_timeout_s)
        failures = 0
        for _ in range(_TRIES):
            login = self.login(deadline)
            try:
                return self._ask(login, method, args, deadline)
            except _SessionEndedError:
                self._drop(login)
                if not renews:
                    break
                LOG.debug("%s: the session has ended, another is made", login.url)
            except _SlaveError as exc:
                self._drop(login, master=str(exc))
            except (HypervisorUnreachableError, LostReplyError) as exc:
                failures += 1
                if failures > 1 or time.monotonic() >= deadline or not self._may_ask_again(login, method, exc, renews):
                    raise
        raise HypervisorUnreachableError(f"{self._url}: {method}: the session has ended")

    def _may_ask_again(self, login: Login, method: str, failure: HypervisorError, renews: bool) -> bool:
        """Whether a call without an answer is made once more: it does no harm, or was not sent to who is master now."""
        if isinstance(failure, LostReplyError):
            return _RESENDABLE.fullmatch(method) is not None
        if renews and self._others:
            self._drop(login)
            return True
        return False

    def make(self, find: Callable[[], str | None], method: str, *args: Any, timeout_s: float | None = None) -> str:
        """The reference of something new. When the answer is lost, `find` is asked whether it was made after all."""
        try:
            return str(self.call(method, *args, timeout_s=timeout_s))
        except LostReplyError:
            for number in range(_LOOKS):
                time.sleep(self._poll_s * min(number, 1))
                found = find()
                if found is not None:
                    LOG.info("%s: its answer was lost; what it made was found", method)
                    return found
            raise

    def destroy(self, kind: str, reference: str) -> None:
        """Destroy an object; succeed if it is gone."""
        for last in (False, True):
            try:
                self.call(f"{kind}.destroy", reference)
            except GoneError:
                return
            except LostReplyError:  # once more does no harm: what is gone stays gone
                if last:
                    raise
            else:
                return

    def run(self, method: str, *args: Any, timeout_s: float, progress: Progress = no_progress) -> str:
        """Start a task of xapi and wait for its end; its result. Raises as `call` and `wait` do."""
        task = str(self.call(f"Async.{method}", *args))
        return self.wait(task, method, timeout_s=timeout_s, progress=progress)

    def wait(self, task: str, what: str, *, timeout_s: float, progress: Progress = no_progress) -> str:
        """Wait for a task and forget it; its result, a reference where that is one.

        When it passes its time, or `progress` raises, it is cancelled, and has ended on return if it can be. A pool
        that is away does not end a task: it is waited for, a while. Raises XapiError when the task failed,
        DriverTimeoutError at its deadline, LostReplyError when nobody will tell how it ended.
        """
        try:
            record = self._watch(task, what, time.monotonic() + timeout_s, progress)
        except TimeoutError as exc:
            self.cancel(task, what)
            raise DriverTimeoutError(f"{what}: did not end within {timeout_s:g} s") from exc
        except BaseException:
            self.cancel(task, what)
            raise
        finally:
            with suppress(HypervisorError):  # xapi forgets old tasks by itself
                self.destroy("task", task)
        if record["status"] != "success":
            raise refusal(what, record["error_info"] or ["TASK_CANCELLED"])
        found = _REFERENCE.search(record["result"])
        return found[0] if found else str(record["result"])

    def cancel(self, task: str, what: str) -> None:
        """Cancel a task and wait a while for its end, whatever that is."""
        try:
            self.call("task.cancel", task)
            self._watch(task, what, time.monotonic() + _CANCEL_S, no_progress)
        except (HypervisorError, TimeoutError) as exc:
            LOG.debug("%s: cancelled: %s", what, exc)

    def close(self) -> None:
        """Log out and close every connection; a later call logs in again."""
        with self._entrance:
            login, self._login = self._login, None
        if login is not None:
            line = self._take(login.url)
            with suppress(HypervisorError, _SlaveError), _told_apart(line, "logging out"):
                line.logout(login, time.monotonic() + self._login_timeout_s)
            self._put_back(line)
        with self._guard:
            self._is_closed, idle, self._idle = True, self._idle, []
        for line in idle:
            line.transport.close()

    def _watch(self, task: str, what: str, deadline: float, progress: Progress) -> dict[str, Any]:
        """The record of a task that has ended. Raises TimeoutError at the deadline, LostReplyError as `wait` does."""
        pause, told, heard = _FIRST_LOOK_S, time.monotonic(), time.monotonic()
        while True:
            record, silence = self._look_at(task, what)
            if silence is None:
                heard = time.monotonic()
            elif time.monotonic() - heard > _AWAY_S:
                raise LostReplyError(f"{what}: the pool is away: {silence}") from silence
            if record.get("status") in {"success", "failure", "cancelled"}:
                return record
            if time.monotonic() >= deadline:
                raise TimeoutError
            if record and time.monotonic() - told > _PROGRESS_S:
                told = time.monotonic()
                progress(f"{what}: {float(record['progress']):.0%}")
            time.sleep(min(pause, self._poll_s))
            pause *= 2

    def _look_at(self, task: str, what: str) -> tuple[dict[str, Any], HypervisorError | None]:
        """A task's record; or none, and why the pool does not tell. Raises LostReplyError when the task is gone."""
        try:
            return self.call("task.get_record", task), None
        except (HypervisorUnreachableError, LostReplyError) as exc:
            return {}, exc
        except GoneError as exc:  # xapi forgets tasks when it is started anew
            raise LostReplyError(f"{what}: its task is gone, so nobody knows how it ended") from exc

    def _try_to_log_in(self, deadline: float) -> HypervisorUnreachableError | None:
        """Log in at the master that is known; why it does not answer.

        One that is no longer it names the next, which is tried next time; for one that is no more, another host is.
        """
        line = _Line(self._url, self.context)
        try:
            with _told_apart(line, "logging in"):
                handle = line.login(self._account, deadline)
        except _SlaveError as exc:
            self._url = _at(self._account.url, str(exc))
            line.transport.close()
            return None
        except (LostReplyError, HypervisorUnreachableError) as exc:  # a session too many, perhaps: the pool ends it
            last, self._url = self._url, self._next(self._url)
            failure = HypervisorUnreachableError(str(exc))
            if self._url == last:
                raise failure from exc
            failure.__cause__ = exc
            return failure
        except XapiError as exc:
            line.transport.close()
            if exc.code == "SESSION_AUTHENTICATION_FAILED":
                raise CredentialsError(f"{self._url}: user {self._account.username} is refused: wrong name or password"
                                       ) from exc  # fmt: skip
            raise HypervisorUnreachableError(str(exc)) from exc
        self._login, self._is_closed = Login(self._url, handle), False
        self._put_back(line)
        return None

    def _next(self, url: str) -> str:
        """The host of the pool to ask after this one."""
        urls = list(dict.fromkeys([self._account.url, *self._others]))
        return urls[(urls.index(url) + 1) % len(urls)] if url in urls else urls[0]

    def _drop(self, login: Login, master: str | None = None) -> None:
        with self._entrance:
            if self._login is login:
                self._login = None
                self._url = _at(self._account.url, master) if master else self._url

    def _ask(self, login: Login, method: str, args: tuple[Any, ...], deadline: float) -> Any:
        if not self._places.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise HypervisorUnreachableError(f"{login.url}: {method}: other calls took until the deadline")
        try:
            line = self._take(login.url)
            try:
                with _told_apart(line, method):
                    return line.ask(login, method, args, deadline)
            finally:
                self._put_back(line)
        finally:
            self._places.release()

    def _take(self, url: str) -> _Line:
        """An idle connection that the server has not closed, or a new one."""
        while True:
            with self._guard:
                line = self._idle.pop() if self._idle else None
            if line is None:
                return _Line(url, self.context)
            if line.url == url and time.monotonic() - line.used_at < _IDLE_S and line.transport.is_fresh:
                return line
            line.transport.close()

    def _put_back(self, line: _Line) -> None:
        line.used_at = time.monotonic()
        with self._guard:
            if not self._is_closed:
                self._idle.append(line)
                return
        line.transport.close()


@contextmanager
def _told_apart(line: _Line, method: str) -> Iterator[None]:
    """Turn what the client raises into what happened: refused, not done, or nobody knows. Then the line is closed."""
    try:
        yield
    except XenAPI.Failure as exc:
        code = exc.details[0]
        if code == "HOST_IS_SLAVE":
            raise _SlaveError(exc.details[1]) from exc
        raise refusal(method, exc.details) from exc
    except xmlrpc.client.Fault as exc:
        line.transport.close()
        if exc.faultCode == 401:
            raise _SessionEndedError from exc
        raise XapiError(f"{method}: {exc.faultString}") from exc
    except _BROKEN as exc:
        was_sent = line.transport.was_sent
        line.transport.close()
        reason = getattr(exc, "verify_message", "") or getattr(exc, "strerror", "") or str(exc) or type(exc).__name__
        if was_sent:
            raise LostReplyError(f"{line.url}: {method}: the answer was lost: {reason}") from exc
        raise HypervisorUnreachableError(f"{line.url}: {reason}") from exc
    except BaseException:
        line.transport.close()
        raise


def _at(url: str, address: str) -> str:
    """The same URL at another host."""
    parts = urlsplit(url)
    host = f"[{address}]" if ":" in address else address
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}"
