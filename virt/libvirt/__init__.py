"""Guests through libvirt."""
