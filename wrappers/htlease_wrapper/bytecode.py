"""`compile`: a copy of the pyz that also has bytecode, for the Python that made it.

A zip file keeps no bytecode, so a third of a hook's start is compiling. Any other Python finds that
the bytecode is not its own and takes the sources, which stay.
"""

from __future__ import annotations

import os
import py_compile
import tempfile
import zipfile
from pathlib import Path

from htlease.errors import BadConfig


def write_compiled(source: Path, target: Path) -> None:
    """Write the copy, in place of what was there; raises BadConfig."""
    if os.path.realpath(source) == os.path.realpath(target):
        raise BadConfig(f"{target} is the file that is being compiled; name another")
    temporary = target.with_name(f"{target.name}.new")
    try:
        with zipfile.ZipFile(source) as archive, temporary.open("wb") as file:
            file.write(_head(source, archive))
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as copy:
                for entry in archive.infolist():
                    # Read first: writing moves the entry to its place in the copy.
                    content = archive.read(entry)
                    copy.writestr(entry, content)
                    if entry.filename.endswith(".py"):
                        name = zipfile.ZipInfo(f"{entry.filename}c", entry.date_time)
                        copy.writestr(name, _bytecode(content, entry.filename))
        temporary.chmod(0o755)
        temporary.replace(target)
    except (OSError, zipfile.BadZipFile, py_compile.PyCompileError) as error:
        temporary.unlink(missing_ok=True)
        raise BadConfig(f"{source} cannot be compiled to {target}: {error}") from None


def _head(source: Path, archive: zipfile.ZipFile) -> bytes:
    """Return what stands before the archive, which starts it."""
    with source.open("rb") as file:
        return file.read(min(entry.header_offset for entry in archive.infolist()))


def _bytecode(content: bytes, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "module.py")
        path.write_bytes(content)
        compiled = py_compile.compile(
            str(path),
            dfile=name,
            doraise=True,
            # A zip entry's time says nothing; the file is replaced as a whole or not at all.
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        assert compiled is not None
        return Path(compiled).read_bytes()
