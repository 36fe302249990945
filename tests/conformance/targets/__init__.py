"""One module a driver, each with TARGETS."""
