"""A daemon notices that it no longer hears, and does not take silence of the broker or work to do for that."""

from __future__ import annotations

from compute.messaging.loopback import DEAF_AFTER_S, Loopback


class Bed:
    """A loopback with a clock of its own; `arrives` says what comes of a cast."""

    def __init__(self) -> None:
        self.now, self.heard, self.rang, self.ends = 100.0, 0.0, 0, 0
        self.arrives, self.broker = True, True
        self.loopback = Loopback(self._ring, lambda: self.heard, self._end, lambda: self.now)

    def _ring(self) -> bool:
        self.rang += 1
        if self.arrives and self.broker:
            self.heard = self.now + 0.01
        return self.broker

    def _end(self) -> None:
        self.ends += 1

    def rounds(self, seconds: float, every_s: float = 10.0) -> Bed:
        """Let time pass."""
        until = self.now + seconds
        while self.now < until:
            self.loopback.check()
            self.now += every_s
        return self


def test_a_daemon_that_hears_itself_goes_on() -> None:
    bed = Bed().rounds(600)
    assert (bed.ends, bed.rang) == (0, 60)


def test_a_daemon_that_has_gone_deaf_ends_within_a_minute() -> None:
    bed = Bed().rounds(100)
    bed.arrives = False
    assert bed.rounds(DEAF_AFTER_S - 10).ends == 0
    assert bed.rounds(30).ends >= 1


def test_a_short_deafness_is_forgiven() -> None:
    bed = Bed().rounds(50)
    for _ in range(5):
        bed.arrives = False
        bed.rounds(30)
        bed.arrives = True
        bed.rounds(20)
    assert bed.ends == 0


def test_a_broker_that_is_away_is_no_deafness() -> None:
    bed = Bed().rounds(50)
    bed.broker = False
    bed.rounds(3600)
    bed.broker = True
    assert bed.rounds(100).ends == 0


def test_a_timer_that_comes_late_is_no_deafness() -> None:
    bed = Bed()
    assert bed.rounds(2000, every_s=500).ends == 0
