"""Makes the Python stubs of all .proto files: by the build (as a hatchling hook) and by `make protos`.

The stubs are never committed. A wheel gets them as artifacts; an editable install writes them into the
checkout, beside the adapter that uses them:

    protos/tellerd/v1/wallet.proto  ->  adapters/grpc_api/_pb/tellerd/v1/wallet_pb2{,_grpc}.py{,i}
    protos/lnd/lightning.proto      ->  adapters/lnd/_pb/lightning_pb2{,_grpc}.py{,i}
    protos/blink/dealer.proto       ->  adapters/prices/_pb/dealer_pb2{,_grpc}.py{,i}

protoc writes imports that are relative to its own root (`from tellerd.v1 import wallet_pb2`); they are
rewritten to where the file really goes. The names inside the descriptors stay what they are
(`tellerd/v1/wallet.proto`): server reflection shows those.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTOS = Path(__file__).resolve().parent

TARGETS = {
    "tellerd": ("adapters/grpc_api/_pb", "tellerd"),
    "lnd": ("adapters/lnd/_pb", ""),
    "blink": ("adapters/prices/_pb", ""),
}
"""Folder below protos/ -> (folder that is made anew each time, folder in it that takes the folder's place)."""

PACKAGE_DOCSTRING = '"""Made from protos/ by protos/build_stubs.py; `make protos` makes it anew."""\n'

MYPY_PLUGINS = {
    "protoc-gen-mypy": "from mypy_protobuf.main import main; main()",
    "protoc-gen-mypy_grpc": "from mypy_protobuf.main import grpc; grpc()",
}


class StubsBuildHook(BuildHookInterface[Any]):
    """Makes the stubs before a wheel, editable or not, is put together."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling; git ignores the stubs, so they have to be named as artifacts."""
        build_stubs(Path(self.root))
        build_data["artifacts"] += [f"/{folder}/**" for folder, _ in TARGETS.values()]


def build_stubs(root: Path) -> None:
    """Brings the `_pb` folders below `root` up to date with the .proto files."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        run_protoc(made, plugins=write_plugins(Path(scratch)))
        for source, (target, package) in TARGETS.items():
            stubs = {
                Path(package) / file.relative_to(made / source): rewrite_imports(file.read_text("utf-8"))
                for file in (made / source).rglob("*.py*")
            }
            packages = {parent for stub in stubs for parent in stub.parents}
            stubs |= {folder / "__init__.py": PACKAGE_DOCSTRING for folder in packages}
            replace_folder(root / target, stubs)


def write_plugins(scratch: Path) -> list[str]:
    """protoc starts plugins as programs; these find this interpreter's modules whatever PATH says."""
    arguments = []
    for name, code in MYPY_PLUGINS.items():
        program = scratch / name
        program.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)}\n", "utf-8")
        program.chmod(0o755)
        arguments.append(f"--plugin={name}={program}")
    return arguments


def run_protoc(out: Path, *, plugins: list[str]) -> None:
    """Raises RuntimeError when a .proto file is wrong; protoc has then said where, on stderr."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    outputs = [f"--python_out={out}", f"--grpc_python_out={out}"]
    outputs += [f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet:{out}"]
    includes = [f"--proto_path={PROTOS}", f"--proto_path={files('grpc_tools') / '_proto'}"]
    code = protoc.main(["protoc", *includes, *plugins, *outputs, *sources])
    if code != 0:
        raise RuntimeError(f"protoc failed with exit code {code}")


def rewrite_imports(text: str) -> str:
    """Turns imports relative to protos/ into imports of the packages that the stubs become."""
    for source, (target, package) in TARGETS.items():
        where = ".".join(part for part in (*target.split("/"), package) if part)
        text = re.sub(rf"^from {source}(?=[. ])", f"from {where}", text, flags=re.MULTILINE)
    return text


def replace_folder(folder: Path, content: dict[Path, str]) -> None:
    """Writes what has changed, one file at a time and atomically, and takes away what is no longer made."""
    for name, text in content.items():
        file = folder / name
        if file.exists() and file.read_text("utf-8") == text:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.{os.getpid()}")
        new.write_text(text, "utf-8")
        new.replace(file)
    for file in folder.rglob("*.py*"):
        if file.suffix in {".py", ".pyi"} and file.relative_to(folder) not in content:
            file.unlink()


if __name__ == "__main__":
    build_stubs(PROTOS.parent)
