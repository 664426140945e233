"""How the servers that are the measure of 1 are served: as the house is, and with nothing of the house."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import uvicorn
import uvloop

if TYPE_CHECKING:
    from litestar import Litestar


def serve(app: Litestar, port: int) -> None:
    """Serve until killed."""
    uvloop.install() if sys.version_info < (3, 12) else None
    gc.freeze()
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
