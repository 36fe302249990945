"""XML elements as dataclasses whose fields know where they go.

    class Disk(Node):
        TAG = "disk"
        source: str = at("source/@file")

A path is made of child tags; it ends in `@attribute`, in a tag (text) or in `.` (the element's own text). `None`,
`False` and an empty tuple leave the field out, `True` makes an empty element (an attribute says "yes"), nodes are put
into the element that their path names (`.`: this one). Fields whose paths begin alike share those elements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, dataclass_transform

from lxml import etree

_REQUIRED = object()
_PATH = "xml path"


def at(path: str, *, default: Any = _REQUIRED) -> Any:
    """Declare that a field is found at `path`."""
    if default is _REQUIRED:
        return field(metadata={_PATH: path})
    return field(default=default, metadata={_PATH: path})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(at, field))
class Node:
    """An element. Subclasses are frozen dataclasses by being subclasses."""

    TAG: ClassVar[str]
    NSMAP: ClassVar[dict[str, str] | None] = None
    _writers: ClassVar[list[tuple[str, Callable[[_Made, Any], None]]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)
        cls._writers = [(f.name, _writer(f.metadata[_PATH])) for f in fields(cls)]  # type: ignore[arg-type]

    def element(self) -> _Element:
        """This node as an lxml element."""
        return self._fill(etree.Element(self.TAG, nsmap=self.NSMAP))

    def put_into(self, parent: _Element) -> None:
        """Append this node to `parent`."""
        self._fill(etree.SubElement(parent, self.TAG, nsmap=self.NSMAP))

    def xml(self) -> str:
        """This node as text."""
        return etree.tostring(self.element(), pretty_print=True, encoding="unicode")

    def _fill(self, element: _Element) -> _Element:
        made: _Made = {(): element}
        for name, write in self._writers:
            value = getattr(self, name)
            if value is not None and value is not False and value != ():
                write(made, value)
        return element

    @classmethod
    def paths(cls) -> dict[str, str]:
        """Every declared field and its path."""
        return {f.name: f.metadata[_PATH] for f in fields(cls)}  # type: ignore[arg-type]

    def nodes(self) -> list[Node]:
        """This node and every node in it."""
        found: list[Node] = [self]
        for name, _ in self._writers:
            value = getattr(self, name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Node):
                    found.extend(item.nodes())
        return found

    def replace(self, **changes: Any) -> Self:
        """A copy with other values."""
        return type(self)(**{f.name: getattr(self, f.name) for f in fields(self)} | changes)  # type: ignore[arg-type]


_Element = etree._Element
_Made = dict[tuple[str, ...], _Element]


def _writer(path: str) -> Callable[[_Made, Any], None]:
    """A function that puts a value at `path`, given the elements made so far by their paths."""
    *tags, last = path.split("/")
    parent = tuple(tags)
    if last == ".":
        return lambda made, value: _put(_reach(made, parent), value)
    if last[0] == "@":
        name = last[1:]
        return lambda made, value: _reach(made, parent).set(name, "yes" if value is True else str(value))
    whole = (*parent, last)
    return lambda made, value: _put(_reach(made, whole), value)


def _put(element: _Element, value: Any) -> None:
    if isinstance(value, tuple):
        for node in value:
            node.put_into(element)
    elif isinstance(value, Node):
        value.put_into(element)
    elif value is not True:
        element.text = str(value)


def _reach(made: _Made, path: tuple[str, ...]) -> _Element:
    found = made.get(path)
    if found is None:
        found = made[path] = etree.SubElement(_reach(made, path[:-1]), path[-1])
    return found
