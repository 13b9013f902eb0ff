"""The command line of `tellerd keys`: what is read, and what is refused before a database is asked."""

from __future__ import annotations

import argparse

import pytest

from daemon import keys_command
from daemon.domain.api_keys import Scope


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tellerd")
    keys_command.add_to(parser.add_subparsers(dest="command", required=True))
    return parser.parse_args(["keys", *arguments, "--config", "tellerd.toml"])


def test_scopes_and_days_are_read() -> None:
    """Scopes in any order, blanks around them; without days a key does not expire."""
    create = parsed("create", "--name", "core API", "--scopes", "receive, read", "--expires-days", "90")
    assert (create.command, create.action, create.name) == ("keys", "create", "core API")
    assert (create.scopes, create.expires_days) == ({Scope.READ, Scope.RECEIVE}, 90)
    assert parsed("create", "--name", "x", "--scopes", "admin").expires_days is None
    assert parsed("revoke", "tlr_aaaaaaaa").key_id == "tlr_aaaaaaaa"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "--name", "x"), "--scopes"),
        (("create", "--scopes", "read"), "--name"),
        (("create", "--name", "x", "--scopes", ""), "read,receive,write,admin"),
        (("create", "--name", "x", "--scopes", "read,"), "read,receive,write,admin"),
        (("create", "--name", "x", "--scopes", "READ"), "read,receive,write,admin"),
        *(
            (("create", "--name", "x", "--scopes", "read", "--expires-days", days), "1 to 36500 days")
            for days in ("0", "-1", "1.5", "36501", "99999999999999", "²", "")
        ),
        (("revoke",), "ID"),
        (("destroy",), "create"),
        ((), "action"),
    ],
)
def test_what_cannot_be_is_a_usage_error(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, and what would be right."""
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
