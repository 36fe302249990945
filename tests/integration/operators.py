"""Someone who operates a host: nova-manage at a shell."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.integration.servers import REPOSITORY


class Operator:
    """Someone at a shell with nova-manage and a configuration file."""

    def __init__(self, config: Path) -> None:
        self._config = config

    def __call__(self, *words: str) -> str:
        """Run nova-manage, which must succeed, and return what it prints."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run nova-manage whatever it answers."""
        command = [str(REPOSITORY / "bin/nova-manage"), "--config-file", str(self._config), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    def ask(self, *words: str) -> Any:
        """Run it with --json and return the document."""
        return json.loads(self(*words, "--json"))
