"""Payment requests: read as their standard and another library's encoder write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain.payment_requests import PaymentRequest, decode_payment_request, encode_unsigned

HASH = "0001020304050607080900010203040506070809000102030405060708090102"
COFFEE = (
    "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpuaztrnwngzn3k"
    "dzw5hydlzf03qdgm2hdq27cqv3agm2awhz5se903vruatfhq77w3ls4evs3ch9zw97j25emudupq63nyw24cg27h2rspfj9srp"
)
"""BOLT #11, Examples: "1 cup coffee" within one minute."""

# Made with PyPI bolt11 2.2.0, an encoder that is not ours.
TEA = (
    "lnbcrt1234567890n1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3z"
    "yg3zyg3zyg3zyg3zyg3zygsdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqyz5vq0m8e29vt8n3x4t8mjsepf0k5wdcjq4lhr78fej59y2x9fsv"
    "9ht7h5nr43rcpcg2h2n5rwl4xnjfx08k760dvfdey2q280wdp0zk4asgp3hcvck"
)
HASHED = (
    "lnbc20m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg"
    "3zyg3zyg3zygshp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqszv0zsqfpsy49rsw8ltgujdju0cmf2xvpyxxg96f9qlcx"
    "clqg0jv9vxz5ys8mt0ymc4d4586entel2alhl4nyfl85dv9sxlltrglcuegqqhcl5t"
)
ANY_AMOUNT = (
    "lntb1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zy"
    "g3zyg3zygsdqqxqzpuukrhmrgdd8mst3z4wwktczf8ug0frh98axnhzhmv3n2h36hjfg8xmx8hpd3hnzt8qnq4evzzgjtk5k5sljph7034ecx2f7"
    "0sgqg8slqqnry8su"
)


@pytest.mark.parametrize(
    ("text", "amount_msat", "memo", "description_hash", "expiry_s"),
    [
        (COFFEE, 250_000_000, "1 cup coffee", "", 60),
        (TEA, 123_456_789_000, "ナンセンス 1杯", "", 86_400),
        (
            HASHED,
            2_000_000_000,
            "",
            "3925b6f67e2c340036ed12093dd44e0368df1b6ea26c53dbe4811f58fd5db8c1",
            3600,
        ),
        (ANY_AMOUNT, 0, "", "", 60),
    ],
    ids=["coffee", "tea", "hashed", "any amount"],
)
def test_known_payment_requests_are_read(
    text: str, amount_msat: int, memo: str, description_hash: str, expiry_s: int
) -> None:
    """All fields that tellerd shows; upper case is the same request."""
    read = decode_payment_request(text)
    assert read == PaymentRequest(
        payment_hash=HASH,
        amount_msat=amount_msat,
        memo=memo,
        description_hash=bytes.fromhex(description_hash),
        created_at_s=1496314658,
        expiry_s=expiry_s,
    )
    assert read.expires_at_s == 1496314658 + expiry_s
    assert decode_payment_request(text.upper()) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lnbc1",
        "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
        COFFEE[:-1] + "q",
        COFFEE.replace("2500u", "2500m"),
        COFFEE[:20] + COFFEE[20:].upper(),
        COFFEE + "é",
        "lnbcrt1memory" + HASH,
        "ln" * 5000,
    ],
    ids=["empty", "short", "address", "one char", "amount", "mixed case", "not ascii", "no bech32", "long"],
)
def test_anything_else_is_refused(text: str) -> None:
    """A changed character is found by the checksum."""
    with pytest.raises(ValueError, match="payment request"):
        decode_payment_request(text)


@given(
    amount_msat=st.integers(0, 10**17),
    memo=st.text(max_size=100),
    expiry_s=st.integers(1, 2**31),
    created_at_s=st.integers(0, 2**35 - 1),
    payment_hash=st.binary(min_size=32, max_size=32),
    description_hash=st.one_of(st.just(b""), st.binary(min_size=32, max_size=32)),
)
def test_what_is_written_is_read_back(
    amount_msat: int, memo: str, expiry_s: int, created_at_s: int, payment_hash: bytes, description_hash: bytes
) -> None:
    """The writer that nodes in memory use agrees with the reader, to the msat."""
    request = PaymentRequest(
        payment_hash=payment_hash.hex(),
        amount_msat=amount_msat,
        memo="" if description_hash else memo,
        description_hash=description_hash,
        created_at_s=created_at_s,
        expiry_s=expiry_s,
    )
    assert decode_payment_request(encode_unsigned(request)) == request
