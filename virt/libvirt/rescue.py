"""Boot a guest from a rescue image, and back.

The files of a rescue are the mark of one that was begun; whether the guest boots them is read from its definition. So
both ways can be gone again after a crash at any step.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack

from lxml import etree

from virt.driver import Progress
from virt.errors import VirtError
from virt.libvirt import host as lv
from virt.libvirt.build import Builder
from virt.libvirt.domains import Domains
from virt.libvirt.layout import Layout
from virt.power_state import Power
from virt.spec import InstanceSpec

LOG = logging.getLogger(__name__)


def rescue(
    domains: Domains, builder: Builder, spec: InstanceSpec, rescue_spec: InstanceSpec, xml: str, own: str,
    progress: Progress,
) -> None:  # fmt: skip
    """Stop the guest and start it from `xml`, which boots `rescue_spec`'s images; succeed if it runs from them.

    On an error the guest is what it was, from its `own` domain. Raises GuestNotFoundError, ImageError, DiskError.
    """
    was = domains.power(spec)
    if boots_rescue(domains, builder, spec):
        if was.is_on:
            return
    else:
        builder.remove_rescue(spec.name)
    with ExitStack() as undo:
        undo.callback(builder.remove_rescue, spec.name)
        progress("downloading image")
        builder.make_rescue(spec.name, rescue_spec, progress)
        progress("starting the rescue")
        undo.callback(_put_back, domains, spec, own, was)
        domains.restart(spec, xml)
        undo.pop_all()
    LOG.info("guest %s: rescued", spec.name)


def unrescue(domains: Domains, builder: Builder, spec: InstanceSpec, own: str) -> None:
    """Start the guest from its `own` domain and remove the rescue's files; one that is not rescued is left as it is."""
    begun = builder.has_rescue(spec.name)
    if boots_rescue(domains, builder, spec) or (begun and not domains.power(spec).is_on):
        domains.restart(spec, own)
        LOG.info("guest %s: unrescued", spec.name)
    builder.remove_rescue(spec.name)


def boots_rescue(domains: Domains, builder: Builder, spec: InstanceSpec) -> bool:
    """True when the guest, as it runs or would be started, boots the files of a rescue. Raises GuestNotFoundError."""
    layout = builder.layout(spec.name).rescue
    documents = domains.ask(spec, lambda domain: (domain.XMLDesc(0), domain.XMLDesc(lv.XML_INACTIVE)))
    return any(_boots(document, layout) for document in documents)


def _boots(document: str, layout: Layout) -> bool:
    domain = etree.fromstring(document)
    files = {source.get("file") for source in domain.findall("devices/disk/source")}
    return str(layout.root) in files or domain.findtext("os/kernel") == str(layout.kernel)


def _put_back(domains: Domains, spec: InstanceSpec, own: str, was: Power) -> None:
    """Have the guest as it was. Its files stay when this fails: a delete or an unrescue ends it."""
    try:
        if was.is_on:
            domains.restart(spec, own)
        else:
            domains.stop(spec)
            domains.define(spec, own)
    except VirtError as exc:
        LOG.error("guest %s: could not be rescued, nor started from its own disk again: %s", spec.name, exc)
