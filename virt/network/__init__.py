"""Networks of a host: bridges, addresses by DHCP, and the way out."""
