"""XML elements as dataclasses whose fields know where they go.

    class Disk(Node):
        TAG = "disk"
        source: str = at("source/@file")

A path is made of child tags; it ends in `@attribute`, in a tag (text) or in `.` (the element's own text). `None`,
`False` and an empty tuple leave the field out, `True` makes an empty element (an attribute says "yes"), nodes are put
into the element that their path names (`.`: this one). Fields whose paths begin alike share those elements.
"""

from __future__ import annotations

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
    _places: ClassVar[tuple[_Place, ...]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)
        cls._places = tuple(_place(name, path) for name, path in cls.paths().items())

    def element(self) -> _Element:
        """This node as an lxml element."""
        element = etree.Element(self.TAG, nsmap=self.NSMAP)
        self._fill(element)
        return element

    def put_into(self, parent: _Element) -> None:
        """Append this node to `parent`."""
        self._fill(etree.SubElement(parent, self.TAG, None, self.NSMAP))

    def xml(self) -> str:
        """This node as text."""
        return etree.tostring(self.element(), pretty_print=True, encoding="unicode")

    def _fill(self, element: _Element) -> None:
        values, made = vars(self), {"": element}
        for name, path, parent, tag, attribute in self._places:
            value = values[name]
            if not value and (value is None or value is False or value == ()):  # 0 and "" are values
                continue
            place = made.get(path)
            if place is None:
                place = made[path] = etree.SubElement(_reach(made, parent), tag)
            if attribute is None:
                _put(place, value)
            else:
                place.set(attribute, "yes" if value is True else str(value))

    @classmethod
    def paths(cls) -> dict[str, str]:
        """Every declared field and its path."""
        return {f.name: f.metadata[_PATH] for f in fields(cls)}  # type: ignore[arg-type]

    def nodes(self) -> list[Node]:
        """This node and every node in it."""
        found: list[Node] = [self]
        for name in self.paths():
            value = getattr(self, name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Node):
                    found.extend(item.nodes())
        return found

    def replace(self, **changes: Any) -> Self:
        """A copy with other values."""
        return type(self)(**{f.name: getattr(self, f.name) for f in fields(self)} | changes)  # type: ignore[arg-type]


_Element = etree._Element
_Place = tuple[str, str, str, str, str | None]
"""A field, the path of its element below the node's, that path's parent and tag, and the attribute (None: content)."""


def _place(name: str, path: str) -> _Place:
    head, _, last = path.rpartition("/")
    attribute = last[1:] if last[0] == "@" else None
    whole = head if attribute or last == "." else path
    parent, _, tag = whole.rpartition("/")
    return name, whole, parent, tag, attribute


def _reach(made: dict[str, _Element], path: str) -> _Element:
    """The element at `path`, made with all on the way to it as far as it is not among those `made`, which grow."""
    found = made.get(path)
    if found is None:
        parent, _, tag = path.rpartition("/")
        found = made[path] = etree.SubElement(_reach(made, parent), tag)
    return found


def _put(element: _Element, value: Any) -> None:
    if isinstance(value, tuple):
        for node in value:
            node.put_into(element)
    elif isinstance(value, Node):
        value.put_into(element)
    elif value is not True:
        element.text = str(value)
