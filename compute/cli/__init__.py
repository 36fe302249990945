"""nova-manage: one file a noun."""
