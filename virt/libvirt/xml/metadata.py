"""Our stamp in a domain: whose guest it is. A guest without it is foreign and never touched."""

from __future__ import annotations

from typing import ClassVar

from lxml import etree

from virt.libvirt.xml.node import Node, at

NAMESPACE = "urn:micronova:instance:1"
_NS = f"{{{NAMESPACE}}}"


class Stamp(Node):
    """What we wrote into a guest that we made."""

    TAG = f"{_NS}instance"
    NSMAP: ClassVar[dict[str, str] | None] = {"micronova": NAMESPACE}
    cluster: str = at("@cluster")
    uuid: str = at("@uuid")
    name: str = at("@name")
    project: str = at("@project")
    epoch: int = at("@epoch")

    @classmethod
    def read(cls, text: str | None) -> Stamp | None:
        """The stamp that libvirt hands back as `text`; None when there is none or it is not one of ours."""
        if not text:
            return None
        try:
            got = etree.fromstring(text, etree.XMLParser(resolve_entities=False)).attrib
            return cls(
                cluster=str(got["cluster"]), uuid=str(got["uuid"]), name=str(got["name"]),
                project=str(got["project"]), epoch=int(got["epoch"]),
            )  # fmt: skip
        except (etree.XMLSyntaxError, KeyError, ValueError):
            return None
