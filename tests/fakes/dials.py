"""Every connection this process dials, counted below all libraries: an audit hook of the interpreter.

While a `Dials` is open nothing leaves the machine: what is not loopback is written down and refused, as
by a firewall. Names that are looked up by the system are written down too.
"""

from __future__ import annotations

import sys
from typing import Any, Final, Self


class _Watch:
    """The one hook of the process: a hook cannot be removed, so it asks who watches."""

    def __init__(self) -> None:
        self.by: Dials | None = None
        self.hooked = False

    def begin(self, by: Dials) -> None:
        """Tell this one from now on."""
        self.by = by
        if not self.hooked:
            self.hooked = True
            sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self.by is not None and event in ("socket.connect", "socket.getaddrinfo"):
            self.by.note(event, args)


_WATCH: Final = _Watch()


class Dials:
    """What was dialed since it was opened, as (address, port); `names` are those the system was asked for."""

    def __init__(self) -> None:
        self.dialed: list[tuple[str, int]] = []
        self.names: list[str] = []

    def note(self, event: str, args: tuple[Any, ...]) -> None:
        """Write one down; refuse what is not loopback."""
        if event == "socket.getaddrinfo":
            self.names.append(str(args[0]))
            return
        place = args[1]
        address, port = (str(place[0]), int(place[1])) if isinstance(place, tuple) else (str(place), 0)
        self.dialed.append((address, port))
        if address != "127.0.0.1":
            raise ConnectionRefusedError("nothing leaves this machine")

    def __enter__(self) -> Self:
        _WATCH.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        _WATCH.by = None
