"""Pages: sizes within bounds, tokens that only we make."""

from __future__ import annotations

import base64

import pytest

from daemon.domain.errors import BadInput
from daemon.serving import paging


@pytest.mark.parametrize(("given_size", "size"), [(0, 100), (1, 1), (1000, 1000)])
def test_page_sizes_within_bounds(given_size: int, size: int) -> None:
    """0 means the default."""
    assert paging.page_size(given_size) == size


@pytest.mark.parametrize("size", [-1, 1001, 2**31 - 1])
def test_page_sizes_out_of_bounds(size: int) -> None:
    """Named with the remedy."""
    with pytest.raises(BadInput, match=f"page_size: {size} cannot be accepted; give 1 to 1000, or 0 for 100"):
        paging.page_size(size)


@pytest.mark.parametrize("position", ["1", "a:b", "1763716800123:ab", "Liabilities:w\0BTC"])
def test_a_token_brings_its_position_back(position: str) -> None:
    """Whatever stands in it."""
    token = paging.make_token("wallets", position)
    assert position not in token
    assert paging.read_token("wallets", token) == position


def test_no_position_is_no_token() -> None:
    """First and last page."""
    assert paging.make_token("wallets", None) == ""
    assert paging.read_token("wallets", "") is None
    assert paging.read_number_token("entries", "") is None


@pytest.mark.parametrize(
    "token",
    [
        "?",
        "é",
        "abc",
        "=",
        "x" * 513,
        base64.urlsafe_b64encode(b"\xff\xff\xff").decode(),
        paging.make_token("invoices", "1"),
        paging.make_token("wallets", ""),
    ],
)
def test_a_token_that_is_not_of_this_list_is_refused(token: str) -> None:
    """Garbage, another list's, an empty one."""
    with pytest.raises(BadInput, match=r"page_token: .* give next_page_token of the page before"):
        paging.read_token("wallets", token)


@pytest.mark.parametrize("position", ["x", "-1", "1.5", "٣", "9" * 19])
def test_a_number_token_holds_a_number(position: str) -> None:
    """One that MongoDB can compare with."""
    with pytest.raises(BadInput):
        paging.read_number_token("entries", paging.make_token("entries", position))
    assert paging.read_number_token("entries", paging.make_token("entries", "17")) == 17
