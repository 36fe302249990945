"""State: the tables, the repositories over them, and the one place that commits."""
