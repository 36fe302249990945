"""Filters on guests' packets."""
