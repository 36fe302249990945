"""Finding an operator's own filters and drivers by dotted path."""

from __future__ import annotations

import importlib
from typing import Any

from compute.errors import ConfigError


def load(path: str, option: str) -> Any:
    """The callable at `package.module.name`; ConfigError, naming the option, when there is none."""
    module, _dot, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ConfigError(f"{option}: cannot load {path!r}: {exc}") from exc
    if not callable(found):
        raise ConfigError(f"{option}: {path!r} is not callable")
    return found
