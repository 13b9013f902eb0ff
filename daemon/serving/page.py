"""The page for people: from values to HTML, with nothing in it that a browser would have to load.

Every value goes through `_text`, for names, errors and memos were written by others. Times are UTC.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any, Final, Literal

from daemon.domain import accounts, outbox
from daemon.domain.books import Gap
from daemon.domain.chain import Deposit
from daemon.domain.cursors import LndCursor
from daemon.domain.money import Currency
from daemon.domain.ports import StoredEvent
from daemon.domain.reconciliation import FullCheck, ItemKind
from daemon.domain.status import ChainStatus, NodeStatus
from daemon.serving.gate import Role
from daemon.serving.heartbeat import MAX_AGE_S
from daemon.serving.overview import BooksView, Overview, ReconciliationView
from daemon.serving.status import open_gaps

REFRESH_S: Final = 10

BLOCKS_BEHIND: Final = 2
"""More than this is worth a look: new blocks are in the books within seconds."""

STYLE: Final = """
:root{color-scheme:light dark;--paper:#fff;--card:#f5f6f8;--ink:#1c2430;--faint:#5b6675;--line:#dde1e7;
--good:#146c37;--warn:#8a5300;--bad:#b3161b}
@media (prefers-color-scheme:dark){:root{--paper:#12161c;--card:#1b2129;--ink:#e7ebf0;--faint:#9aa6b5;--line:#303945;
--good:#5fd08c;--warn:#f0b34c;--bad:#ff8078}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:72rem;background:var(--paper);color:var(--ink);
font:16px/1.45 system-ui,"DejaVu Sans",sans-serif;overflow-wrap:anywhere}
header{display:flex;flex-wrap:wrap;gap:.25rem 1rem;align-items:baseline;margin-bottom:1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:0 0 .5rem}
.faint,footer,th,dt{color:var(--faint)}small,footer,.faint{font-size:.85rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:1rem}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem;margin:1rem 0;
min-width:0}
.cards section{margin:0}
ul.problems{list-style:none;margin:0 0 1rem;padding:0}
ul.problems li{border-left:.4rem solid;padding:.4rem .8rem;margin:.3rem 0;background:var(--card)}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
.good,.bad,.warn{font-weight:600}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.1rem .8rem;margin:0}dd{margin:0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{font-weight:400;text-align:left;font-size:.85rem}
td,th{padding:.25rem .6rem .25rem 0;vertical-align:top;border-bottom:1px solid var(--line)}
.sum td{border-bottom:0;font-weight:600}
.number{text-align:right;white-space:nowrap}.number:last-child{padding-right:0}.number+*{padding-left:1.5rem}
td small{display:block;color:var(--faint)}
.id{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.8rem}
@media (max-width:44rem){body{padding:.7rem}thead{display:none}
tr{display:grid;grid-template-columns:minmax(0,1fr) auto;padding:.3rem 0;border-bottom:1px solid var(--line)}
td,.number+*{border:0;padding:.05rem 0}.number{padding-left:.8rem}td.wide{grid-column:1/-1}}
"""

SECURITY_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; img-src data:; style-src "
    f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)
"""Content-Security-Policy: a browser loads nothing, runs nothing, and takes this style only. `data:` is for the empty
icon, without which browsers would ask for one."""

_UNITS: Final = {Currency.BTC.value: "sat", Currency.USD.value: "cents"}
_MEANINGS: Final = {
    accounts.LIGHTNING: "in our Lightning nodes",
    accounts.ON_CHAIN: "on addresses of ours",
    accounts.SUSPENSE: "nobody knows whose yet",
    accounts.ROUNDING: "msat remainders that made a sat",
    accounts.DUST: "deposits too small to credit",
    accounts.OPENING: "held before tellerd began",
    accounts.GAP: "to be explained by a person",
}

_REASONS: Final = {
    ItemKind.IN_FLIGHT: "under way",
    ItemKind.CLOSING: "closing channels",
    ItemKind.SENT: "sent elsewhere",
    ItemKind.RECEIVED: "received elsewhere",
    ItemKind.OTHERS: "others' coins",
    ItemKind.GAP: "gaps",
}

STALE_S: Final = 900
"""An older comparison is worth a look: one is made every minute, and a busy node is steady within a few."""

Level = Literal["bad", "warn", "good"]


@dataclass(frozen=True, slots=True)
class Remark:
    """One line of the verdict at the top."""

    level: Level
    text: str


def render(view: Overview) -> str:
    """The whole page."""
    remarks = list(remarks_on(view))
    heading = f"<h1>tellerd</h1><span>{_text(view.network)}</span>{_verdict(remarks)}"
    parts = [
        f'<header>{heading}<span class="faint">{_time(view.now)}</span></header>',
        _problems(remarks),
        '<div class="cards">',
        *(_node(node, cursor, view.role) for node, cursor in zip(view.nodes, view.cursors, strict=True)),
        *([] if view.chain is None else [_chain(view.chain, view.role)]),
        *([] if view.reconciliation is None else _reconciliation(view.reconciliation)),
        _process(view),
        "</div>",
    ]
    if view.books is not None:
        parts += [*_gaps(view.books), _events(view.books), _accounts(view.books)]
        parts += _deposits(view.books, view.chain is not None)
    parts.append(_footer(view))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_title(remarks)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH_S}"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def remarks_on(view: Overview) -> Iterator[Remark]:
    """What is not as it should be, the worst of each part first; nothing where all is well."""
    if view.loop_age_s > MAX_AGE_S:
        yield Remark("bad", f"The main loop has not turned for {view.loop_age_s:.0f} s: start tellerd anew.")
    if view.books_problem:
        yield Remark("bad", f"The books cannot be read: {view.books_problem}")
    if view.books is not None:
        yield from _remarks_on_books(view.books, is_fresh=not view.books_problem)
    if view.refusal is not None:
        yield Remark("warn", f"This daemon does not serve: {view.refusal}.")
    if view.role is not Role.LEADER:  # a standby follows no node
        return
    for node, cursor in zip(view.nodes, view.cursors, strict=True):
        if not node.connected:
            yield Remark("bad", f"{node.name} is not followed: {node.last_error or node.state}")
        if cursor is not None and (gaps := open_gaps(cursor)):
            yield Remark("warn", f"{node.name}: {gaps:,} settle indexes are not explained yet; a listing closes them.")
    if view.chain is not None:
        yield from _remarks_on_chain(view.chain)
    if view.reconciliation is not None:
        yield from _remarks_on_reconciliation(view.reconciliation, view.now)


def _remarks_on_books(books: BooksView, *, is_fresh: bool) -> Iterator[Remark]:
    for currency, total in sorted(books.accounts.totals.items()):
        if total:
            yield Remark(
                "bad",
                f"THE BOOKS DO NOT ADD UP: {_amount(total, currency)} instead of 0. "
                "Run `tellerd verify`, and do not edit the books.",
            )
    if not is_fresh:
        yield Remark("warn", f"What is shown of them is of {_time(books.read_at)}.")
    if books.suspense_sat:
        yield Remark("warn", f"{_amount(books.suspense_sat, 'BTC')} in suspense: no wallet expected them.")
    if books.open_gaps:
        yield Remark("warn", f"{books.open_gaps:,} gaps are open: things that do not add up wait for a person.")


def _remarks_on_chain(chain: ChainStatus) -> Iterator[Remark]:
    behind = chain.blocks_behind
    if chain.halted:
        yield Remark("bad", f"The chain is halted until a person has looked: {chain.last_error or chain.state}")
    elif not chain.connected:
        yield Remark("bad", f"{chain.name} is not followed: {chain.last_error or chain.state}")
    elif behind is not None and behind > BLOCKS_BEHIND:
        yield Remark("warn", f"The books are {behind:,} blocks behind {chain.name}.")
    if chain.hints == "silent":
        yield Remark("warn", f"No ZMQ message of {chain.name} arrives: deposits are seen by polling.")


def _remarks_on_reconciliation(found: ReconciliationView, now: datetime) -> Iterator[Remark]:
    steady = found.steady
    for side in () if steady is None else steady.sides:
        if side.unknown_msat:
            more = "more" if side.unknown_msat > 0 else "less"
            amount = f"{abs(side.unknown_msat):,} msat"
            yield Remark("bad", f"The nodes hold {amount} {more} than {side.account} says, and nothing explains it.")
    if found.problem:
        yield Remark("warn", f"Books and nodes are not compared: {found.problem}")
    elif steady is not None and now.timestamp() - steady.at_ms / 1000 > STALE_S:
        yield Remark("warn", f"Books and nodes were last compared at {_time_of_ms(steady.at_ms)}.")


def _title(remarks: list[Remark]) -> str:
    return "tellerd" if not remarks else f"({len(remarks)}) tellerd"


def _verdict(remarks: list[Remark]) -> str:
    if not remarks:
        return '<strong class="good">all is well</strong>'
    level = "bad" if any(remark.level == "bad" for remark in remarks) else "warn"
    return f'<strong class="{level}">{"something is wrong" if level == "bad" else "worth a look"}</strong>'


def _problems(remarks: list[Remark]) -> str:
    lines = (f'<li class="{remark.level}">{_text(remark.text)}</li>' for remark in remarks)
    return f'<ul class="problems">{"".join(lines)}</ul>' if remarks else ""


def _node(node: NodeStatus, cursor: LndCursor | None, role: Role) -> str:
    rows = _connection(connected=node.connected, state=node.state, since=node.connected_since, role=role)
    if cursor is not None:
        gaps = open_gaps(cursor)
        rows["settle index"] = f"{cursor.settle_index:,}"
        rows["open gaps"] = f'<span class="{"warn" if gaps else ""}">{gaps:,}</span>'
    if node.last_event_at is not None:
        rows["last event"] = _time(node.last_event_at)
    if node.pubkey is not None:
        rows["public key"] = f'<span class="id">{_text(node.pubkey)}</span>'
    if node.last_error:
        rows["last error"] = _text(node.last_error)
    return _card(f"Lightning: {node.name}", rows)


def _chain(chain: ChainStatus, role: Role) -> str:
    rows = _connection(connected=chain.connected, state=chain.state, since=chain.connected_since, role=role)
    cursor, tip, behind = chain.cursor, chain.tip, chain.blocks_behind
    if cursor is not None:
        rows["in the books"] = f"block {cursor.height:,}"
    if tip is not None:
        rows["node's tip"] = f"block {tip.height:,}"
    if behind is not None:
        rows["behind"] = f'<span class="{"warn" if behind > BLOCKS_BEHIND else ""}">{behind:,} blocks</span>'
    if chain.catch_up_blocks_per_s:
        rows["catching up"] = f"{chain.catch_up_blocks_per_s:,} blocks/s"
    rows["ZMQ"] = f'<span class="{"warn" if chain.hints == "silent" else ""}">{_text(chain.hints)}</span>'
    if chain.last_error:
        rows["last error"] = _text(chain.last_error)
    return _card(f"Chain: {chain.name}", rows)


def _connection(*, connected: bool, state: str, since: datetime | None, role: Role) -> dict[str, str]:
    if role is not Role.LEADER:
        return {"state": f'<span class="faint">not followed here: this daemon is {_text(role.value)}</span>'}
    rows = {"state": f'<span class="{"good" if connected else "bad"}">{_text(state)}</span>'}
    if connected and since is not None:
        rows["connected since"] = _time(since)
    return rows


def _process(view: Overview) -> str:
    rows = {"role": f'<span class="{"good" if view.refusal is None else "warn"}">{_text(view.role.value)}</span>'}
    if view.refusal is not None:
        rows["serves"] = f"no: {_text(view.refusal)}"
    if view.books is not None:
        lease, head, store = view.books.lease, view.books.head, view.books.store
        if lease is None:
            rows["lease"] = "nobody holds it"
        else:
            rows["leader"] = f"{_text(lease.holder)}, fence {lease.fence}"
            rows["lease until"] = _time(lease.expires_at)
        rows["feed"] = f"event {head.sequence:,}"
        rows["journals"] = f"{head.chain_length:,}"
        rows["database"] = f"MongoDB {_text(store.version)}, {_text(store.replica_set)}"
    if view.reconciliation is not None and view.reconciliation.full_check is not None:
        rows["full check"] = _full_check(view.reconciliation.full_check)
    rows["up"] = f"{_duration(view.now - view.started_at)}, since {_time(view.started_at)}"
    rows["version"] = _text(view.version)
    return _card("This daemon", rows)


def _reconciliation(found: ReconciliationView) -> Iterator[str]:
    if found.steady is None:
        waiting = '<span class="faint">not compared yet in a moment in which nothing moved</span>'
        yield _card("Books against nodes", {"compared": waiting})
        return
    for side in found.steady.sides:
        rows = {"nodes hold": f"{side.nodes_msat:,} msat", "books say": f"{side.books_msat:,} msat"}
        rows |= {_text(_REASONS[kind]): _signed_msat(amount) for kind, amount in side.explained_msat().items()}
        level = "bad" if side.unknown_msat else "good"
        rows["unknown"] = f'<span class="{level}">{_signed_msat(side.unknown_msat)}</span>'
        rows["compared"] = _time_of_ms(found.steady.at_ms)
        yield _card(f"Books against nodes: {side.account}", rows)


def _full_check(check: FullCheck) -> str:
    compared = f"{check.invoices:,} invoices" + (f", {check.deposits:,} deposits" if check.deposits else "")
    left = f"; not all: {'; '.join(check.unfinished)}" if check.unfinished else ""
    return _text(f"{_time_of_ms(check.ended_at_ms)}: {compared}{left}")


def _gaps(books: BooksView) -> Iterator[str]:
    if not books.gaps:
        return
    rows = "".join(_gap(gap) for gap in books.gaps)
    more = f'<p class="faint">The newest of {books.open_gaps:,}.</p>' if books.open_gaps > len(books.gaps) else ""
    yield _section("Open gaps", _table(("what", "-amount", "seen", "reference"), rows) + more)


def _gap(gap: Gap) -> str:
    return (
        f'<tr><td>{_text(gap.kind)} <span class="faint">{_text(gap.node)}</span><small>{_text(gap.detail)}</small></td>'
        f'<td class="number">{_signed_msat(gap.amount_msat)}</td>'
        f'<td class="wide">{_time_of_ms(gap.seen_at_ms)}</td>'
        f'<td class="wide id">{_text(gap.reference or gap.key)}</td></tr>'
    )


def _events(books: BooksView) -> str:
    if not books.events:
        return _section("Last events", '<p class="faint">Nothing has happened yet.</p>')
    rows = "".join(
        f'<tr><td>{_text(event.type)} <span class="faint">{event.sequence:,}</span></td>'
        f'<td class="number">{_moved(event)}</td>'
        f'<td class="wide">{_time_of_ms(event.occurred_at_ms)}</td>'
        f'<td class="wide id">{_text(", ".join(event.wallet_ids[:2]))}</td></tr>'
        for event in books.events
    )
    return _section("Last events", _table(("event", "-amount", "at", "wallet"), rows))


def _accounts(books: BooksView) -> str:
    page = books.accounts
    rows = "".join(
        f"<tr><td>{_text(row.account).replace(':', ':<wbr>')}{_meaning(row.account)}</td>"
        f'<td class="number">{_text(_amount(row.balance, row.currency))}</td></tr>'
        for row in page.rows
    )
    rows += "".join(
        f'<tr class="sum"><td>Total of all accounts, {_text(currency)}</td>'
        f'<td class="number {"bad" if total else ""}">{_text(_amount(total, currency))}</td></tr>'
        for currency, total in sorted(page.totals.items())
    )
    if any(page.totals.values()):
        verdict = '<p class="bad">THE BOOKS DO NOT ADD UP TO 0: run `tellerd verify`.</p>'
    else:
        verdict = '<p><span class="good">They add up to 0.</span> <span class="faint">Credits minus debits: '
        verdict += "what the bank holds is below zero, what it owes above.</span></p>"
    verdict += f"<p>In suspense: {_text(_amount(books.suspense_sat, 'BTC'))}</p>"
    if page.next_token is not None:
        verdict += f'<p class="faint">The first {len(page.rows)} accounts; the totals are of all of them.</p>'
    return _section("Accounts", _table(("account", "-balance"), rows) + verdict)


def _deposits(books: BooksView, on_chain: bool) -> Iterator[str]:
    if not on_chain:
        return
    rows = "".join(
        f"<tr><td>{_text(deposit.state.value)}{_why(deposit)}</td>"
        f'<td class="number">{_text(_amount(deposit.amount_sat, "BTC"))}</td>'
        f'<td class="wide">{_time_of_ms(deposit.detected_at_ms)}</td>'
        f'<td class="wide id">{_text(deposit.outpoint)}</td></tr>'
        for deposit in books.deposits
    )
    count = f"{books.pending_count:,} with {_amount(books.pending_sat, 'BTC')} not settled yet."
    table = _table(("state", "-amount", "detected", "output"), rows) if rows else ""
    yield _section("Pending deposits", f"<p>{_text(count if books.pending_count else 'None.')}</p>{table}")


def _footer(view: Overview) -> str:
    read = "" if view.books is None else f"Books as of {_time(view.books.read_at)}. "
    return f"<footer>{read}The page renews itself every {REFRESH_S} s.</footer>"


def _moved(event: StoredEvent) -> str:
    return _text(", ".join(amounts_of(event)))


def amounts_of(event: StoredEvent) -> Iterator[str]:
    """What an event says of money, in words; nothing where it says nothing."""
    payload: Mapping[str, Any] = event.payload
    match event.type:
        case outbox.JOURNAL_ADOPTED:
            moved: dict[str, int] = {}
            for leg in payload.get("legs", ()):
                moved[leg["currency"]] = moved.get(leg["currency"], 0) + leg["credit"]
            yield from (_amount(amount, currency) for currency, amount in sorted(moved.items()))
        case outbox.BOOKS_OPENED:
            yield f"{payload['amount_msat']:,} msat"
        case outbox.WALLET_OVERDRAWN:
            in_dollars = "balance_cents" in payload
            balance = payload["balance_cents" if in_dollars else "balance_sat"]
            yield f"balance {_amount(balance, 'USD' if in_dollars else 'BTC')}"
        case outbox.HTLC_LOST:
            yield f"{-payload['amount_msat']:,} msat"
        case outbox.DEPOSIT_REVERSED | outbox.CHANNEL_FEE_BOOKED:
            yield _amount(-payload["amount_sat"], "BTC")
            if "credited_cents" in payload:
                yield _amount(-payload["credited_cents"], "USD")
        case _:
            if "amount_sat" in payload:
                yield _amount(payload["amount_sat"], "BTC")
            for name in ("amount_cents", "credited_cents"):
                if name in payload:
                    yield _amount(payload[name], "USD")


def _meaning(account: str) -> str:
    meaning = _MEANINGS.get(account)
    return "" if meaning is None else f"<small>{_text(meaning)}</small>"


def _why(deposit: Deposit) -> str:
    if deposit.held_reason:
        return f'<small class="warn">held: {_text(deposit.held_reason)}</small>'
    return f"<small>{deposit.confirmations_required} confirmations asked for</small>"


def _card(title: str, rows: Mapping[str, str]) -> str:
    """`rows` are HTML already."""
    lines = "".join(f"<dt>{_text(name)}</dt><dd>{value}</dd>" for name, value in rows.items())
    return _section(title, f"<dl>{lines}</dl>")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{body}</section>"


def _table(columns: tuple[str, ...], rows: str) -> str:
    """A column whose name begins with - holds numbers."""
    heads = "".join(
        f'<th class="number">{_text(name[1:])}</th>' if name.startswith("-") else f"<th>{_text(name)}</th>"
        for name in columns
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _text(value: str) -> str:
    return escape(value, quote=True)


def _amount(amount: int, currency: str) -> str:
    return f"{amount:,} {_UNITS.get(currency, currency)}"


def _signed_msat(amount_msat: int) -> str:
    return f"{amount_msat:+,} msat" if amount_msat else "0 msat"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _time_of_ms(at_ms: int) -> str:
    return _time(datetime.fromtimestamp(at_ms / 1000, tz=UTC))


def _duration(elapsed: timedelta) -> str:
    minutes, hours, days = elapsed.seconds // 60 % 60, elapsed.seconds // 3600, elapsed.days
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {elapsed.seconds % 60} s"
