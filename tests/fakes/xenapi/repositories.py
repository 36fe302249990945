"""Storage repositories and their connections to hosts, iSCSI targets among them."""

from __future__ import annotations

import uuid
from typing import Any

from tests.fakes.xenapi.database import Record
from tests.fakes.xenapi.errors import NULL, ApiError
from tests.fakes.xenapi.registry import Context, handler
from tests.fakes.xenapi.storage import coalesce, is_plugged, measure, remove, require_plugged

TYPES = ("ext", "iscsi", "iso", "lvm", "lvmoiscsi", "nfs", "udev")
Config = dict[str, str]


def backend_failure(number: int, words: str) -> ApiError:
    """An error of a storage backend."""
    return ApiError(f"SR_BACKEND_FAILURE_{number}", "", words, "")


@handler("SR.introduce")
def introduce(x: Context, wanted: str, name: str, description: str, kind: str, content: str, shared: bool,
              sm_config: Config) -> str:  # fmt: skip
    """A record of a storage that exists."""
    if wanted and x.db.find("SR", uuid=wanted):
        raise ApiError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", "SR", "uuid", wanted)
    if kind.lower() not in TYPES:
        raise ApiError("SR_UNKNOWN_DRIVER", kind.lower())
    facts = {"uuid": wanted, "name_label": name, "name_description": description, "type": kind.lower(),
             "content_type": content, "shared": shared, "sm_config": sm_config, "physical_size": -1,
             "physical_utilisation": -1}  # fmt: skip
    return x.db.create("SR", facts)


@handler("SR.create")
def create(x: Context, host: str, config: Config, size: int, name: str, description: str, kind: str, content: str,
           shared: bool, sm_config: Config) -> str:  # fmt: skip
    """Make a storage and connect it to its hosts."""
    x.db.get("host", host)
    ref: str = introduce(x, "", name, description, kind, content, shared, sm_config)
    x.db.update("SR", ref, physical_size=size or 100 << 30, physical_utilisation=0)
    pbds: list[str] = []
    try:
        for one in x.db.all("host") if shared else [host]:
            pbds.append(x.db.create("PBD", {"host": one, "SR": ref, "device_config": config}))
            plug(x, pbds[-1])
    except ApiError:
        for pbd in pbds:
            x.db.destroy("PBD", pbd)
        x.db.destroy("SR", ref)
        raise
    return ref


@handler("SR.forget")
def forget(x: Context, ref: str) -> None:
    """Drop the records of a storage that no host is connected to."""
    if is_plugged(x, ref):
        raise ApiError("SR_HAS_PBD", ref)
    for pbd in list(x.db.get("SR", ref)["PBDs"]):
        x.db.destroy("PBD", pbd)
    for vdi in list(x.db.get("SR", ref)["VDIs"]):
        x.db.destroy("VDI", vdi)
    x.db.destroy("SR", ref)


@handler("SR.destroy")
def destroy(x: Context, ref: str) -> None:
    """Destroy a storage that no host is connected to and that has no disks."""
    sr = x.db.get("SR", ref)
    if is_plugged(x, ref):
        raise ApiError("SR_HAS_PBD", ref)
    if not sr["PBDs"]:
        raise ApiError("SR_HAS_NO_PBDS", ref)
    if any(x.db.get("VDI", vdi)["managed"] for vdi in sr["VDIs"]):
        raise ApiError("SR_NOT_EMPTY")
    forget(x, ref)


@handler("SR.scan")
def scan(x: Context, ref: str) -> None:
    """Look what is there, and coalesce."""
    require_plugged(x, ref)
    sr = x.db.get("SR", ref)
    if sr["type"] == "iscsi":
        _find_luns(x, ref, x.db.get("PBD", sr["PBDs"][0])["device_config"])
    coalesce(x, ref)
    measure(x, ref)


@handler("SR.update")
def update(x: Context, ref: str) -> None:
    """Count again what is used."""
    require_plugged(x, ref)
    measure(x, ref)


@handler("SR.probe")
def probe(x: Context, host: str, config: Config, kind: str, _sm_config: Config) -> str:
    """What a target offers, as XML."""
    x.db.get("host", host)
    if kind.lower() not in TYPES:
        raise ApiError("SR_UNKNOWN_DRIVER", kind.lower())
    luns = _luns(x, config)
    return "<iscsi-target>" + "".join(
        f"<LUN><LUNid>{lun}</LUNid><size>{size}</size><SCSIid>{scsi_id(config['targetIQN'], lun)}</SCSIid></LUN>"
        for lun, size in sorted(luns.items())
    ) + "</iscsi-target>"  # fmt: skip


@handler("SR.get_supported_types")
def get_supported_types(_x: Context) -> list[str]:
    """The storage drivers."""
    return list(TYPES)


@handler("SR.set_name_label")
def set_name_label(x: Context, ref: str, value: str) -> None:
    """Name it."""
    x.db.update("SR", ref, name_label=value)


@handler("SR.set_name_description")
def set_name_description(x: Context, ref: str, value: str) -> None:
    """Describe it."""
    x.db.update("SR", ref, name_description=value)


@handler("SR.set_shared")
def set_shared(x: Context, ref: str, value: bool) -> None:
    """Say whether it is one for all hosts."""
    if not value and len(x.db.get("SR", ref)["PBDs"]) > 1:
        raise ApiError("SR_HAS_MULTIPLE_PBDS", *x.db.get("SR", ref)["PBDs"])
    x.db.update("SR", ref, shared=value)


@handler("PBD.create")
def create_pbd(x: Context, args: Record) -> str:
    """Say how a host is to connect to a storage."""
    x.db.get("host", args["host"])
    for pbd in x.db.get("SR", args["SR"])["PBDs"]:
        if x.db.get("PBD", pbd)["host"] == args["host"]:
            raise ApiError("PBD_EXISTS", args["SR"], args["host"], pbd)
    if not x.db.get("SR", args["SR"])["shared"] and x.db.get("SR", args["SR"])["PBDs"]:
        raise ApiError("SR_NOT_SHARABLE", args["SR"], args["host"])
    return x.db.create("PBD", args | {"device_config": _hidden(x, args["device_config"])})


@handler("PBD.plug")
def plug(x: Context, ref: str) -> None:
    """Connect; nothing to do when it is."""
    pbd = x.db.get("PBD", ref)
    if pbd["currently_attached"]:
        return
    if x.db.get("SR", pbd["SR"])["type"] in {"iscsi", "lvmoiscsi"}:
        luns = _luns(x, pbd["device_config"])
        x.db.update("SR", pbd["SR"], physical_size=sum(luns.values()), physical_utilisation=sum(luns.values()))
    x.db.update("PBD", ref, currently_attached=True)
    x.db.touch("SR", pbd["SR"])
    if x.db.get("SR", pbd["SR"])["type"] == "iscsi":
        _find_luns(x, pbd["SR"], pbd["device_config"])


@handler("PBD.unplug")
def unplug(x: Context, ref: str) -> None:
    """Disconnect; nothing to do when it is."""
    pbd = x.db.get("PBD", ref)
    for vdi in x.db.get("SR", pbd["SR"])["VDIs"]:
        for vbd in x.db.get("VDI", vdi)["VBDs"]:
            if x.db.get("VBD", vbd)["currently_attached"] and _runs_on(x, vbd, pbd["host"]):
                raise ApiError("VDI_IN_USE", vdi, "unplug")
    x.db.update("PBD", ref, currently_attached=False)


def _runs_on(x: Context, vbd: str, host: str) -> bool:
    return bool(x.db.get("VM", x.db.get("VBD", vbd)["VM"])["resident_on"] == host)


@handler("PBD.destroy")
def destroy_pbd(x: Context, ref: str) -> None:
    """Forget a connection that is cut."""
    if x.db.get("PBD", ref)["currently_attached"]:
        raise ApiError("OPERATION_NOT_ALLOWED", f"PBD '{x.db.get('PBD', ref)['uuid']}' still attached")
    for value in x.db.get("PBD", ref)["device_config"].values():
        x.pool.secrets.pop(value, None)
    x.db.destroy("PBD", ref)


@handler("PBD.set_device_config")
def set_device_config(x: Context, ref: str, value: Config) -> None:
    """Connect in another way from the next plug on."""
    x.db.update("PBD", ref, device_config=value)


def _hidden(x: Context, config: Config) -> Config:
    """A connection as it is told from now on: its passwords are secrets, named by their uuids."""
    told = {}
    for key, value in config.items():
        if key.endswith("password"):
            told[f"{key}_secret"] = str(uuid.uuid4())
            x.pool.secrets[told[f"{key}_secret"]] = value
        else:
            told[key] = value
    return told


def scsi_id(iqn: str, lun: str) -> str:
    """The identity of a LUN."""
    return f"36{uuid.uuid5(uuid.NAMESPACE_URL, f'{iqn}/{lun}').hex[:31]}"


def lun_uuid(iqn: str, lun: str) -> str:
    """The uuid of the disk that a LUN is."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{iqn}/{lun}"))


def _luns(x: Context, config: Config) -> dict[str, int]:
    """The LUNs that a connection of this configuration sees: number and size."""
    if "targetIQN" not in config:
        raise backend_failure(96, "The request is missing or has an incorrect target IQN parameter")
    target: Any = x.pool.targets.get((config.get("target", ""), config["targetIQN"]))
    if target is None or config.get("port", "3260") != target.port:
        raise backend_failure(141, "Unable to connect to ISCSI service on target")
    password = x.pool.secrets.get(config.get("chappassword_secret", ""), config.get("chappassword", ""))
    if target.chap != (config.get("chapuser", ""), password):
        raise backend_failure(68, "ISCSI login failed, verify CHAP credentials")
    luns = {lun: size for lun, size in target.luns.items() if config.get("LUNid", lun) == lun}
    if "SCSIid" in config:
        luns = {lun: size for lun, size in luns.items() if scsi_id(config["targetIQN"], lun) == config["SCSIid"]}
    if not luns:
        raise backend_failure(107, "The SCSIid parameter is missing or incorrect")
    return luns


def _find_luns(x: Context, sr: str, config: Config) -> None:
    """Have a VDI for each LUN, and none for those that went away."""
    seen = _luns(x, config)
    for lun, size in seen.items():
        name = lun_uuid(config["targetIQN"], lun)
        if not x.db.find("VDI", uuid=name, SR=sr):
            if x.db.find("VDI", uuid=name):
                raise backend_failure(46, "The VDI is not available [opterr=in use by another SR]")
            x.disks.create(name, size)
            number = {"LUNid": lun, "SCSIid": scsi_id(config["targetIQN"], lun)}
            facts = {"uuid": name, "location": name, "SR": sr, "virtual_size": size, "managed": True, "parent": NULL}
            x.db.create("VDI", facts | {"type": "user", "sm_config": number, "physical_utilisation": size})
    names = {lun_uuid(config["targetIQN"], lun) for lun in seen}
    for ref in list(x.db.get("SR", sr)["VDIs"]):
        if x.db.get("VDI", ref)["uuid"] not in names:
            remove(x, ref)
