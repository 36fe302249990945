"""What the host says of itself."""

from __future__ import annotations

import json

from virt.libvirt.resources import memory, read_cpu

CAPABILITIES = """<capabilities><host><cpu><arch>x86_64</arch><model>EPYC</model><vendor>AMD</vendor>
<topology sockets='1' dies='1' cores='2' threads='2'/><feature name='vme'/><feature name='avx'/></cpu></host>
</capabilities>"""


def test_memory_in_use_is_what_could_not_be_freed(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 4096 kB\nMemFree: 1024 kB\nBuffers: 512 kB\nCached: 512 kB\n")
    assert memory(tmp_path / "meminfo") == (4, 2)


def test_the_cpu_is_described_as_a_migration_wants_it():
    arch, info = read_cpu(CAPABILITIES)
    assert arch == "x86_64"
    assert json.loads(info) == {
        "arch": "x86_64", "model": "EPYC", "vendor": "AMD", "features": ["avx", "vme"],
        "topology": {"sockets": 1, "cores": 2, "threads": 2},
    }  # fmt: skip


def test_a_host_without_a_cpu_description_is_none_the_worse():
    assert read_cpu("<capabilities><host/></capabilities>") == ("", "{}")
