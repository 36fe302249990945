"""Find out whether KVM runs code at the speed of a processor: `python -m virt.libvirt.kvm_probe`.

A host may offer /dev/kvm, let libvirt start guests of type kvm, and never run one instruction of theirs in useful
time. This loops 200,000 times in one vcpu in real mode, through the kernel's KVM interface alone, and prints the
seconds that took. Run as a child, because a KVM that lies may hang.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import subprocess
import sys
import time

LIMIT_S = 0.05
_TIMEOUT_S = 3.0

_GET_API_VERSION, _CREATE_VM, _GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE04
_CREATE_VCPU, _SET_TSS_ADDR, _RUN = 0xAE41, 0xAE47, 0xAE80
_SET_USER_MEMORY_REGION, _SET_REGS = 0x4020AE46, 0x4090AE82
_GET_SREGS, _SET_SREGS = 0x8138AE83, 0x4138AE84
_API_VERSION, _EXIT_HLT = 12, 5
_MEMORY, _CODE_AT, _TSS_AT = 0x10000, 0x8000, 0x7FFB_D000
# mov ecx, 200000; again: dec ecx; jnz again; hlt
_CODE = b"\x66\xb9" + struct.pack("<I", 200_000) + b"\x66\xff\xc9\x75\xfb\xf4"


def kvm_works(timeout_s: float = _TIMEOUT_S) -> tuple[bool, str]:
    """Whether guests of type kvm will really run here, and why in plain words; never takes much over `timeout_s`."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__], capture_output=True, text=True, timeout=timeout_s, check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"a short loop in a KVM guest did not end within {timeout_s:g} s"
    except OSError as exc:
        return False, f"the KVM probe could not be run: {exc}"
    if done.returncode:
        return False, (done.stderr.strip().splitlines() or ["the KVM probe died"])[-1]
    took = float(done.stdout)
    return took <= LIMIT_S, f"a short loop in a KVM guest took {took * 1000:.1f} ms (limit {LIMIT_S * 1000:.0f} ms)"


def measure() -> float:
    """Seconds that the loop takes. Raises OSError when KVM is not there or the guest does not end as it should."""
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    if fcntl.ioctl(kvm, _GET_API_VERSION) != _API_VERSION:
        raise OSError("/dev/kvm speaks another version of its interface")
    vm = fcntl.ioctl(kvm, _CREATE_VM, 0)
    fcntl.ioctl(vm, _SET_TSS_ADDR, _TSS_AT)
    memory = mmap.mmap(-1, _MEMORY)
    memory[_CODE_AT : _CODE_AT + len(_CODE)] = _CODE
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(vm, _SET_USER_MEMORY_REGION, struct.pack("IIQQQ", 0, 0, 0, _MEMORY, address))
    vcpu = fcntl.ioctl(vm, _CREATE_VCPU, 0)
    run = mmap.mmap(vcpu, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE))
    _point_at_code(vcpu)
    start = time.perf_counter()
    fcntl.ioctl(vcpu, _RUN, 0)
    took = time.perf_counter() - start
    (reason,) = struct.unpack_from("I", run, 8)
    if reason != _EXIT_HLT:
        raise OSError(f"the KVM guest ended with exit reason {reason}, not halted")
    return took


def _point_at_code(vcpu: int) -> None:
    segments = bytearray(0x138)
    fcntl.ioctl(vcpu, _GET_SREGS, segments)
    struct.pack_into("Q", segments, 0, 0)  # cs.base
    struct.pack_into("H", segments, 12, 0)  # cs.selector
    fcntl.ioctl(vcpu, _SET_SREGS, bytes(segments))
    registers = bytearray(0x90)
    struct.pack_into("QQ", registers, 128, _CODE_AT, 2)  # rip, rflags
    fcntl.ioctl(vcpu, _SET_REGS, bytes(registers))


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{measure()}\n")
    except OSError as exc:
        sys.exit(f"KVM cannot be used: {exc}")
