"""Which Lightning node an invoice is made on, and whose an invoice is, while some of the nodes are away."""

from __future__ import annotations

import pytest

from daemon.domain.errors import AlreadyExists, NodeRefused, Unavailable
from daemon.domain.identifiers import NodePubkey
from daemon.serving.choice import choose_node, node_of_pubkey
from daemon.serving.invoices import InvoiceRequest, create_invoice
from tests.samples import OTHER_NODE
from tests.unit.serving.bank_in_memory import BOB_PUBKEY, Bank, open_bank

ALICE, BOB = 0, 1


def lose(bank: Bank, number: int, *, known: bool = True) -> None:
    """This node goes away; `known` False: it was not reached since the start."""
    bank.nodes[number].go_away()
    bank.statuses[number].connected = False
    if not known:
        bank.statuses[number].pubkey = None


@pytest.mark.parametrize("node", ["bob", BOB_PUBKEY, BOB_PUBKEY.upper()])
def test_a_repeat_is_answered_while_its_node_is_away(node: str) -> None:
    """The first answer needs no node; other arguments are refused as ever."""
    bank = open_bank()
    request = InvoiceRequest(wallet_id=bank.wallet().wallet_id, amount_sat=5, external_id="order-1", node=node)
    first = create_invoice(bank.api, request)
    lose(bank, BOB)
    assert create_invoice(bank.api, request) == first
    with pytest.raises(AlreadyExists, match="another node"):
        create_invoice(
            bank.api,
            InvoiceRequest(wallet_id=request.wallet_id, amount_sat=5, external_id="order-1", node="alice"),
        )


def test_without_a_wish_the_first_that_is_connected_is_taken() -> None:
    """Without asking it again."""
    bank = open_bank()
    lose(bank, ALICE)
    assert choose_node(bank.api, "") == (bank.nodes[BOB], BOB_PUBKEY)


def test_a_node_that_was_never_reached_hides_no_other() -> None:
    """Just after a start nobody is known: all that answer are asked."""
    bank = open_bank()
    lose(bank, ALICE, known=False)
    bank.statuses[BOB].pubkey = None
    assert node_of_pubkey(bank.api, NodePubkey(BOB_PUBKEY)) is bank.nodes[BOB]


def test_a_node_that_may_be_the_one_is_waited_for() -> None:
    """As long as it is not known who it is; an invoice of none of them has to be refused."""
    bank = open_bank()
    lose(bank, ALICE, known=False)
    with pytest.raises(Unavailable, match="alice"):
        node_of_pubkey(bank.api, OTHER_NODE)
    bank.nodes[ALICE].come_back()
    with pytest.raises(NodeRefused, match="not in the configuration"):
        node_of_pubkey(bank.api, OTHER_NODE)
