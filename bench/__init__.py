"""Measurements: `python -m bench` makes all of them."""

from compute import concurrency

concurrency.choose(concurrency.THREADING)  # before anything imports oslo.messaging
