"""Litestar as it is used here: a router of handlers, the same one whatever else is installed beside it.

By itself Litestar loads plugins for libraries it finds in the environment. Nothing here uses one, and to
import pydantic alone takes a fifth of a start.
"""

from __future__ import annotations

from typing import Any

from litestar import Litestar


class Router(Litestar):
    """Litestar with the plugins it is given, and no others."""

    @staticmethod
    def _get_default_plugins(plugins: list[Any]) -> list[Any]:
        return plugins
