"""The compute service: RPC verbs, work orders, scheduling, recovery and the nova-manage CLI."""

__version__ = "0.1.0"
