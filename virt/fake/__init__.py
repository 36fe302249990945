"""An honest in-memory hypervisor: it refuses what a real one refuses and remembers what a real one remembers."""
