"""Hypervisor drivers and the host-side building blocks they share."""
