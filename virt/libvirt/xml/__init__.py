"""Domain XML as declared data: a file per device family, each field knows its path."""
