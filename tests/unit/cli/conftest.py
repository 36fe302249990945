import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compute.cli.main import main
from compute.cli.session import Session
from db.session import Database
from tests.fakes.api import FakeApi
from tests.fakes.databases import a_database


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Manage = Callable[..., Outcome]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = a_database(tmp_path)
    yield database
    database.dispose()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "micronova.conf"
    path.write_text(
        f"[DEFAULT]\nstate_path = {tmp_path}\nsql_connection = sqlite:///{tmp_path}/nova.sqlite\n"
        f"transport_url = sqlite:///{tmp_path}/bus.sqlite\n"
    )
    return path


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(Session, "api", fake)
    return fake


@pytest.fixture
def manage(db: Database, api: FakeApi, config: Path, capsys: pytest.CaptureFixture[str]) -> Manage:
    """Run one command line in this process, on a database of its own and a fake API."""

    def run(*argv: str) -> Outcome:
        capsys.readouterr()
        code = main(["--config-file", str(config), *argv])
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run
