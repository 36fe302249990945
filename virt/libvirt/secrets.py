"""Passwords of volumes, as libvirt's secret objects: in no domain's XML, on no command line, never on disk."""

from __future__ import annotations

from virt.libvirt import host as lv
from virt.libvirt.volume_disks import secret_usage, secret_uuid
from virt.libvirt.xml.secret import Secret
from virt.spec import InstanceSpec, VolumeAttachment
from virt.volumes import VolumeSource


class Secrets:
    """The secrets of one libvirt that guests of ours open volumes with.

    libvirt forgets them when it is restarted, so they are put again before a guest is started.
    """

    def __init__(self, host: lv.Host) -> None:
        self._host = host

    def put(self, spec: InstanceSpec, volume: VolumeAttachment, source: VolumeSource) -> None:
        """Have the secret that a guest opens this volume with; nothing when the volume needs none."""
        auth = source.auth
        if auth is None:
            return
        kind, usage = secret_usage(source), _usage(spec, volume)
        document = Secret(
            uuid=secret_uuid(spec, volume),
            usage=kind,
            target=usage if kind == "iscsi" else None,
            name=usage if kind == "ceph" else None,
        ).xml()

        def work(connection: lv.Connection) -> None:
            connection.secretDefineXML(document).setValue(auth.secret.encode())

        self._host.call(_lane(spec), work)

    def drop(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        """Forget the secret of one volume; succeed if there is none."""
        if volume.connection.get("auth"):
            self._drop(spec, _usage(spec, volume))

    def drop_all(self, spec: InstanceSpec) -> None:
        """Forget every secret of a guest; succeed if there is none."""
        self._drop(spec, _usage(spec))

    def _drop(self, spec: InstanceSpec, beginning: str) -> None:
        def work(connection: lv.Connection) -> None:
            for secret in lv.secrets_of(connection):
                if f"{secret.usageID()}-".startswith(f"{beginning}-"):
                    lv.undefine_secret(secret)

        self._host.call(_lane(spec), work)


def _usage(spec: InstanceSpec, volume: VolumeAttachment | None = None) -> str:
    """What libvirt files a secret under."""
    guest = f"micronova-{spec.uuid}"
    return guest if volume is None else f"{guest}-{volume.volume_id}"


def _lane(spec: InstanceSpec) -> str:
    return f"{spec.name} (secrets)"
