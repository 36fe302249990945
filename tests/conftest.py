"""Every test process runs on native threads; tests of the eventlet executor start processes of their own."""

from compute import concurrency

concurrency.choose(concurrency.THREADING)
