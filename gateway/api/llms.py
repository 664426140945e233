"""`/llms.txt` (llmstxt.org): what a language model needs to write a program against this API.

Short on purpose: one line a call, with its body's fields in brief. Made of the OpenAPI document, which has
the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from gateway.api.collection import operations
from gateway.errors import CATALOGUE

ABOUT: Final = """\
Submit a job, wait for it, read its pictures:

```
curl {url}/v1/jobs -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
  -H "Idempotency-Key: $(uuidgen)" -d '{{"prompt": "a lighthouse at dusk"}}'
curl "{url}/v1/jobs/JOB_ID?wait=20" -H "Authorization: Bearer $TOKEN"
```

- Every call takes `Authorization: Bearer` with a token (JWT) or a service key, but for signed links.
- A submit answers 202 with a job. `GET` answers 200 always: repeat with `?wait=20` until `ended` is true, \
then read `state` (succeeded, failed, blocked, canceled) and `outputs[].url`. Links of outputs expire: read \
the job again for fresh ones.
- To edit, announce an image at `/v1/uploads`, PUT its bytes to the `url` it answers, and submit \
`{{"operation": "edit", "inputs": [{{"upload": "UPLOAD_ID"}}], "prompt": "…"}}`; or name `{{"url": "https://…"}}`.
- Send an `Idempotency-Key` with every submit: the same key and body are one job, paid for once.
- Bodies are JSON in UTF-8 and snake_case; unknown fields are refused. Times are UTC. Lists are \
`{{"data": [...], "next": CURSOR | null}}`.
- Programs in a browser or in Node import `{url}/client.js` (types: `{url}/client.d.ts`), which does all this.
- The same jobs can be asked for in OpenAI's Images API (base URL `{url}/v1`), and in those of \
gptimage2.plus and gptimage2.ai (base URL `{url}`), where the plan includes it.

Errors are `application/problem+json`: match `code`, show `detail`, repeat only where `retryable` is true, \
after `retry_after` seconds. Codes by status, each explained at `{url}/problems/CODE`:

"""


def llms(document: Mapping[str, Any]) -> str:
    """Return the text of an OpenAPI document."""
    url = document["servers"][0]["url"]
    info = document["info"]
    parts = [f"# {info['title']}\n\n> {info['description']}\n\n", ABOUT.format(url=url), *_codes()]
    for tag in document["tags"]:
        lines = [_line(url, document, *one) for one in operations(document) if tag["name"] in one[2]["tags"]]
        if lines and tag["name"] != "Operations":
            parts += [f"\n## {tag['name']}\n\n", *lines]
    parts.append(
        "\n## More\n\n"
        f"- [OpenAPI]({url}/openapi.json): every call, type and error\n"
        f"- [Documents]({url}/docs): the same, for people\n"
        f"- [Postman]({url}/postman.json): the same, to run\n"
        f"- [Client]({url}/client.js): an ES module without dependencies\n"
        f"- [Types]({url}/client.d.ts): the client's types\n"
    )
    return "".join(parts)


def _codes() -> Iterator[str]:
    """Yield a line for each status an error may have."""
    by_status: dict[int, list[str]] = {}
    for code, row in CATALOGUE.items():
        by_status.setdefault(row.status, []).append(code)
    for status, codes in sorted(by_status.items()):
        yield f"- {status}: {', '.join(codes)}\n"


def _line(url: str, document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> str:
    """Return what there is to say of one call."""
    place = f"{url}/docs#/{quote(operation['tags'][0])}/{operation['operationId']}"
    text = f"- [{method} {path}]({place}): {operation['summary']}."
    query = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    if query and operation["security"]:
        text += f" Query: {', '.join(query)}."
    media = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return f"{text}{_body(media, document['components']['schemas']) if media else ''}\n"


def _body(media: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    schema = schemas[media["schema"]["$ref"].rpartition("/")[2]]
    required = schema.get("required", ())
    fields = (
        f"{name}{'' if name in required else '?'}: {_kind(field, schemas)}"
        for name, field in schema["properties"].items()
    )
    return f" Body: {{{', '.join(fields)}}}."


def _kind(field: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """Return a field's type in brief, as TypeScript would write it."""
    if "$ref" in field:
        named = schemas[field["$ref"].rpartition("/")[2]]
        if "enum" in named:
            return _kind(named, schemas)
        return f"{{{', '.join(f'{name}?' for name in named['properties'])}}}"
    if "anyOf" in field:
        return " | ".join(_kind(one, schemas) for one in field["anyOf"] if one.get("type") != "null")
    if "enum" in field:
        return " | ".join(f'"{word}"' for word in field["enum"])
    if field.get("type") == "array":
        inner = _kind(field["items"], schemas) if isinstance(field.get("items"), dict) else "any"
        return f"({inner})[]" if "|" in inner else f"{inner}[]"
    return str(field.get("type", "any"))
