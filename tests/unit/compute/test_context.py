"""The request context crosses the bus as a dict."""

import pytest

from compute.context import RequestContext, get_admin_context
from compute.errors import InvalidInputError


def test_a_context_comes_back_as_it_went() -> None:
    context = RequestContext(user_id="ann", project_id="blue", remote_address="192.0.2.7")
    assert RequestContext.from_dict(context.to_dict()) == context


def test_what_a_newer_sender_adds_is_ignored_and_what_is_missing_has_its_default() -> None:
    context = RequestContext.from_dict({"user_id": "ann", "colour": "red", "project_id": None})
    assert (context.user_id, context.project_id, context.is_admin) == ("ann", "", False)


@pytest.mark.parametrize("values", [{"is_admin": "yes"}, {"user_id": 7}, {"read_deleted": 1}])
def test_a_wrong_type_is_refused_and_never_taken_for_an_administrator(values: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=f"context: {next(iter(values))} must be"):
        RequestContext.from_dict(values)


def test_only_elevation_makes_an_administrator() -> None:
    context = RequestContext(user_id="ann")
    assert (context.is_admin, context.elevated().is_admin, get_admin_context().is_admin) == (False, True, True)
    assert context.elevated().request_id == context.request_id
