"""The life-cycle operations, one family a file."""
