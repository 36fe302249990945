"""No password is in what people read; the library that looks for them is not asked about texts that have none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from oslo_utils import strutils

from compute import masking

WORDS = strutils._SANITIZE_KEYS


def test_the_library_still_has_its_words_where_this_test_finds_them() -> None:
    assert {"password", "admin_pass", "auth_token", "chapsecret"} <= set(WORDS)


@pytest.mark.parametrize("cased", [str.lower, str.upper, str.capitalize])
def test_what_the_library_has_a_word_for_is_masked(cased: Callable[[str], str]) -> None:
    kept = [word for word in WORDS if "hush" in masking.masked(f"refused: {cased(word)} = hush")]
    assert kept == []


def test_a_text_without_a_password_stays_as_it_is() -> None:
    line = "instance 7: spawning started on host='alpha'"
    assert masking.masked(line) == line


def test_a_text_that_only_looks_like_one_with_a_password_stays_as_it_is() -> None:
    line = "instance 7: passed on, keyboard 'en-us'"
    assert masking.SUSPICIOUS.search(line)
    assert masking.masked(line) == line
