"""The least that sends a `WireRequest`: no judge, no limits. For tests of adapters against their fakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

from gateway.wire import Cut, Wire, WireFailure, WireRequest, WireResponse

if TYPE_CHECKING:
    from gateway.providers.adapter import Adapter


async def send(request: WireRequest, adapter: Adapter, secret: str) -> Wire:
    """Send a request, with the key where it names a credential, and say what came of it."""
    headers = dict(request.headers)
    if request.credential is not None:
        headers.update([adapter.authorize(secret)])
    timeout = aiohttp.ClientTimeout(total=request.seconds)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(request.method, request.url, headers=headers, data=request.body) as answer,
        ):
            names = {name.lower(): value for name, value in answer.headers.items()}
            return await _body(answer, names, request.max_bytes)
    except TimeoutError:
        return WireFailure(Cut.TIMEOUT)
    except aiohttp.ClientConnectorError:
        return WireFailure(Cut.UNREACHABLE)
    except aiohttp.ClientPayloadError:
        return WireFailure(Cut.HALF)
    except (aiohttp.ClientError, ConnectionError):
        return WireFailure(Cut.RESET)


async def _body(answer: aiohttp.ClientResponse, names: dict[str, str], most: int) -> Wire:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > most:
            return WireFailure(Cut.TOO_LARGE)
    return WireResponse(answer.status, names, bytes(body))
