"""Speed of making a guest's domain XML, from the spec to text.

python -m bench.domain_xml
"""

import time
from ipaddress import IPv4Interface
from pathlib import Path

from virt.libvirt.domain import Platform, domain_for
from virt.libvirt.layout import Layout
from virt.spec import ImageSpec, InstanceSpec, Network, Vif

TARGET_US = 200.0


def measure(documents: int = 200, rounds: int = 50) -> dict[str, float]:
    """Return microseconds per document, the best of some rounds: a guest with three disks and one interface.

    Rounds are short, so that one of them falls between what else the machine does.
    """
    spec, platform = _spec(), Platform(type="qemu", arch="x86_64", cluster="bench")
    layout = Layout.of(Path("/var/lib/micronova/instances"), spec.name)
    best = min(_round(spec, layout, platform, documents) for _ in range(rounds))
    return {"domain_xml_us": best * 1e6, "target_us": TARGET_US}


def _round(spec: InstanceSpec, layout: Layout, platform: Platform, documents: int) -> float:
    started = time.perf_counter()
    for _ in range(documents):
        domain_for(spec, layout, platform).xml()
    return (time.perf_counter() - started) / documents


def _spec() -> InstanceSpec:
    image = ImageSpec(id=1, name="root", location="/images/root", disk_format="qcow2")
    network = Network(id=1, label="private", bridge="br100", cidr="10.0.0.0/24")
    vif = Vif(mac="02:16:3e:00:00:01", network=network, addresses=(IPv4Interface("10.0.0.3/24"),))
    return InstanceSpec(
        id=1, uuid="8a1f2b3c-0000-4000-8000-000000000001", name="instance-00000001", display_name="bench",
        hostname="bench", project_id="project", user_id="user", memory_mb=512, vcpus=1, root_gb=1, ephemeral_gb=1,
        swap_mb=64, image=image, kernel=image, ramdisk=image, vifs=(vif,),
    )  # fmt: skip


if __name__ == "__main__":
    print({name: round(value, 1) for name, value in measure().items()})
