"""A pool, and the PyPI client logged in to it."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from xmlrpc.client import SafeTransport

import pytest
import XenAPI

from tests.fakes.xenapi import Pool

CHUNKED = {"Transfer-Encoding": "chunked"}
MIB, GIB = 1 << 20, 1 << 30


class OneTry(SafeTransport):
    """The library's own sends a request again when the connection drops."""

    def request(self, host: Any, handler: Any, request_body: Any, verbose: bool = False) -> Any:
        return self.single_request(host, handler, request_body, verbose)


class Client:
    """Calls as the user of `session`; `VM.start` and the like by name."""

    def __init__(self, pool: Pool, url: str = "", user: str = "root", password: str = "secret") -> None:  # noqa: S107
        self.pool = pool
        self.tls = ssl.create_default_context(cafile=str(pool.ca_file))
        self.transport = OneTry(context=self.tls)
        self.session = XenAPI.Session(url or pool.url, transport=self.transport)
        try:
            self.session.login_with_password(user, password, "1.0", "test")
        except Exception:
            self.close()
            raise

    def __call__(self, method: str, *args: Any) -> Any:
        return self.session.xenapi_request(method, args)

    def refused(self, method: str, *args: Any) -> list[str]:
        """The error that a call is answered with."""
        with pytest.raises(XenAPI.Failure) as caught:
            self(method, *args)
        return list(caught.value.details)

    def wait(self, task: str) -> dict[str, Any]:
        """A task's record when it has ended."""
        deadline = time.monotonic() + 20
        while (record := self("task.get_record", task))["status"] in {"pending", "cancelling"}:
            assert time.monotonic() < deadline, record
            time.sleep(0.005)
        return dict(record)

    def vm(self, name: str = "one") -> str:
        """A halted VM without devices."""
        vm = self("VM.clone", self.pool.template, name)
        self("VM.provision", vm)
        return str(vm)

    def running(self, name: str = "one") -> str:
        """A running VM without devices."""
        vm = self.vm(name)
        self("VM.start", vm, False, False)
        return vm

    def vdi(self, sr: str = "", size: int = 4 * MIB, **values: Any) -> str:
        """An empty disk."""
        record = {"SR": sr or self.pool.shared_sr, "virtual_size": str(size), "type": "user", "sharable": False,
                  "read_only": False, "other_config": {}, "name_label": "disk"}  # fmt: skip
        return str(self("VDI.create", record | values))

    def vbd(self, vm: str, vdi: str, **values: Any) -> str:
        """The disk in the VM."""
        record = {"VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": True, "mode": "RW", "type": "Disk",
                  "empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}  # fmt: skip
        return str(self("VBD.create", record | values))

    def vif(self, vm: str, **values: Any) -> str:
        """An interface of the VM."""
        record = {"device": "0", "network": self.pool.network("private"), "VM": vm, "MAC": "02:00:00:00:00:01",
                  "MTU": "1500", "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}  # fmt: skip
        return str(self("VIF.create", record | values))

    @contextmanager
    def http(self, method: str, path: str, body: bytes | None = None, url: str = "", **query: str) -> Iterator[Any]:
        """The answer to a transfer's request, of which the body was sent."""
        parts = urlsplit(url or self.pool.url)
        target = f"{path}?{urlencode({'session_id': self.session.handle} | query)}"
        with closing(
            http.client.HTTPSConnection(str(parts.hostname), parts.port, context=self.tls, timeout=20)
        ) as link:
            link.request(method, target, body=body, headers={} if body is not None else CHUNKED)
            yield link.getresponse()

    def upload(self, vdi: str, body: bytes, **query: str) -> list[str]:
        """What the task of an upload failed with; empty when it did not."""
        task = self("task.create", "upload", "")
        try:
            with self.http("PUT", "/import_raw_vdi", body, vdi=vdi, task_id=task, **query) as answer:
                assert answer.status == 200
                answer.read()
        except OSError:
            assert self.pool.record("task", task)["status"] in {"pending", "failure"}
        return list(self.wait(task)["error_info"])

    def download(self, vdi: str, **query: str) -> tuple[bytes, list[str]]:
        """What came, and what the task failed with."""
        task = self("task.create", "download", "")
        with self.http("GET", "/export_raw_vdi", vdi=vdi, task_id=task, **query) as answer:
            assert answer.status == 200
            data = answer.read()
        return data, list(self.wait(task)["error_info"])

    def close(self) -> None:
        """Close the connection."""
        self.transport.close()


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with Pool(tmp_path) as made:
        yield made


@pytest.fixture
def xapi(pool: Pool) -> Iterator[Client]:
    with closing(Client(pool)) as client:
        yield client
