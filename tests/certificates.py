"""Certificates for tests, made by the program openssl: an authority, and what it signs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_MADE_S = 30
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files."""

    certificate: Path
    key: Path


def self_signed(folder: Path, name: str) -> Certificate:
    """A certificate for localhost and 127.0.0.1 that is its own authority; another one each time."""
    made = Certificate(folder / f"{name}.cert", folder / f"{name}.key")
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    _openssl("req", "-x509", *_KEY, *subject, "-keyout", str(made.key), "-out", str(made.certificate))
    return made


def signed_by(authority: Certificate, folder: Path, name: str) -> Certificate:
    """A certificate that the authority has signed."""
    made, request = Certificate(folder / f"{name}.cert", folder / f"{name}.key"), folder / f"{name}.csr"
    _openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", str(made.key), "-out", str(request))
    by = ["-CA", str(authority.certificate), "-CAkey", str(authority.key), "-set_serial", "1", "-days", "30"]
    _openssl("x509", "-req", "-in", str(request), *by, "-out", str(made.certificate))
    return made


def with_password(key: Path, password: str) -> None:
    """Encrypts a key in its place."""
    encrypted = key.with_suffix(".encrypted")
    _openssl("ec", "-in", str(key), "-aes256", "-passout", f"pass:{password}", "-out", str(encrypted))
    encrypted.replace(key)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=_MADE_S)
