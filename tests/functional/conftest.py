"""Deployments for functional tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.functional.harness import Deployment, template_database


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database with an image and a network."""
    return template_database(tmp_path_factory.mktemp("functional"))


@pytest.fixture
def deploy(tmp_path: Path, template: Path) -> Iterator[Callable[..., Deployment]]:
    """Make a deployment with these hosts and options."""
    with ExitStack() as stack:

        def make(*hosts: str, **overrides: Any) -> Deployment:
            directory = tmp_path / f"deployment{len(list(tmp_path.iterdir()))}"
            directory.mkdir()
            return stack.enter_context(Deployment(directory, template, **overrides)).start(*hosts)

        yield make


@pytest.fixture
def one_host(deploy: Callable[..., Deployment]) -> Deployment:
    """One fake host, h1."""
    return deploy("h1")
