"""libvirt's network filters as data: rendered to XML, read from XML, compared."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lxml import etree

_NAMESPACE = uuid.UUID("0c7fbd4e-2b4e-5c3b-9a51-1f0d8f4c6a11")
_NAMES_OF_PROTOCOLS = {"0x800": "ipv4", "0x86dd": "ipv6", "0x806": "arp", "0x8035": "rarp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRule:
    """One rule. element and match: the protocol's element and its attributes, sorted; None matches everything."""

    action: str
    direction: str
    priority: int = 500
    element: str | None = None
    match: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRef:
    """Another filter, with the variables it is to see: name and value, a name as often as it has values."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter: its own rules, and those of others."""

    name: str
    chain: str = "root"
    refs: tuple[FilterRef, ...] = ()
    rules: tuple[FilterRule, ...] = ()

    def xml(self, known_uuid: str | None = None) -> str:
        """What libvirt is to define. Its uuid follows from its name, unless libvirt knows it by another one."""
        root = etree.Element("filter", name=self.name, chain=self.chain)
        etree.SubElement(root, "uuid").text = known_uuid or str(uuid.uuid5(_NAMESPACE, self.name))
        for ref in self.refs:
            element = etree.SubElement(root, "filterref", filter=ref.name)
            for name, value in ref.parameters:
                etree.SubElement(element, "parameter", name=name, value=value)
        for rule in self.rules:
            root.append(_rule_element(rule))
        etree.indent(root)
        text: str = etree.tostring(root, encoding="unicode")
        return text + "\n"

    def same_as(self, other: Filter) -> bool:
        """True when libvirt makes the same of both: it orders what is of one priority by itself."""
        return bool(_canonical(self) == _canonical(other))


def rule(
    action: str, direction: str, priority: int = 500, element: str | None = None, /, **match: object
) -> FilterRule:
    """A rule, its attributes in libvirt's spelling; those that are None are left out."""
    given = tuple(sorted((name, str(value)) for name, value in match.items() if value is not None))
    return FilterRule(action=action, direction=direction, priority=priority, element=element, match=given)


def ref(name: str, **parameters: Iterable[object]) -> FilterRef:
    """A reference; every parameter is a list of values."""
    pairs = ((key, str(value)) for key, values in parameters.items() for value in values)
    return FilterRef(name=name, parameters=tuple(pairs))


def parse(xml: str) -> Filter:
    """A filter that libvirt has."""
    root = etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False))
    return Filter(
        name=str(root.get("name")),
        chain=root.get("chain", "root"),
        refs=tuple(_parsed_ref(element) for element in root.findall("filterref")),
        rules=tuple(_parsed_rule(element) for element in root.findall("rule")),
    )


def uuid_of(xml: str) -> str | None:
    """The uuid by which libvirt knows a filter."""
    found: str | None = etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False)).findtext("uuid")
    return found


def _rule_element(given: FilterRule) -> Any:
    element = etree.Element("rule", action=given.action, direction=given.direction, priority=str(given.priority))
    if given.element is not None:
        etree.SubElement(element, given.element, dict(given.match))
    return element


def _parsed_ref(element: Any) -> FilterRef:
    pairs = tuple((one.get("name"), one.get("value")) for one in element.findall("parameter"))
    return FilterRef(name=element.get("filter"), parameters=pairs)


def _parsed_rule(element: Any) -> FilterRule:
    match = next((one for one in element if isinstance(one.tag, str)), None)
    return FilterRule(
        action=element.get("action"),
        direction=element.get("direction"),
        priority=int(element.get("priority", "500")),
        element=None if match is None else match.tag,
        match=() if match is None else tuple(sorted(match.items())),
    )


def _canonical(given: Filter) -> Any:
    refs = sorted(
        (ref.name, tuple(sorted((key, value.lower()) for key, value in ref.parameters))) for ref in given.refs
    )
    rules = sorted((one.priority, one.action, one.direction, one.element or "", _spelled(one)) for one in given.rules)
    return given.name, given.chain, refs, rules


def _spelled(given: FilterRule) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, _spelling(name, value.lower())) for name, value in given.match))


def _spelling(name: str, value: str) -> str:
    if name == "state":
        return ",".join(sorted(value.split(",")))
    return _NAMES_OF_PROTOCOLS.get(value, value) if name == "protocolid" else value
