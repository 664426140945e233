"""The tables of a SQLite file: made, brought to the form this version writes, or refused.

One process has the file, by its lock, so there is nobody to wait for: a file of the form before is copied
beside itself, whole, and then changed in one transaction. Who goes back to the version before takes the
copy. No library is known here.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gateway.errors import Refusal

if TYPE_CHECKING:
    from gateway.store.format import Forms


class Connection(Protocol):
    """What is used of a connection."""

    def execute(self, sql: str, /) -> Any:
        """Run statements."""
        ...

    def pragma(self, name: str, /) -> Any:
        """Return what a pragma says."""
        ...


def check(connection: Connection, path: Path, forms: Forms) -> int:
    """Return the form of a file, 0 of one that is empty; refuse one that is not ours to use."""
    form = int(connection.pragma("user_version"))
    if form == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").get:
        raise Refusal(f"{path} is not a Safelight store: it is another program's data base.")
    refusal = forms.unfit(form) if form else None
    if refusal is not None:
        raise Refusal(f"{path} has {refusal}")
    return form


def prepare(connection: Connection, path: Path, forms: Forms) -> None:
    """Make the tables of an empty file; bring one of the form before to this version's, after a copy."""
    form = check(connection, path, forms)
    if form == 0:
        _whole(connection, _text("schema.sql"), forms.newest)
    elif form < forms.newest:
        copy = copy_of(path, form)
        copy.unlink(missing_ok=True)  # of a start that died before it changed anything
        connection.execute(f"VACUUM INTO '{str(copy).replace(chr(39), chr(39) * 2)}'")
        _whole(connection, forms.steps.get(forms.newest, ""), forms.newest)
    connection.execute(_text("additions.sql"))


def copy_of(path: Path, form: int) -> Path:
    """Return where the copy of a file lies that was made before it left a form."""
    return path.with_name(f"{path.name}.form-{form}")


def _whole(connection: Connection, sql: str, form: int) -> None:
    """Run statements and note the form they lead to: all or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(f"{sql};PRAGMA user_version = {form};COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _text(name: str) -> str:
    return resources.files("gateway.store").joinpath(name).read_text("utf-8")
