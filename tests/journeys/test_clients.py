"""The OpenAPI document and what others make of it: a Postman run, a linter, and clients in three languages.

All of it reads what a real `safelight dev` serves, with the tools that tests/clients pins and tests/parts.sh
installs. Each client is generated, compiled and run: submit, wait, and the picture's size and bytes.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from openapi_schema_validator import OAS31Validator

from gateway.api.collection import ENDLESS, SCHEMA, operations
from tests.fakes.command import Running, environ, running
from tests.house import ROOT

pytestmark = pytest.mark.xdist_group("clients")

OURS: Final = ROOT / "tests/clients"
TOOLS: Final = ROOT / ".tools/clients"
NODE: Final = TOOLS / "node_modules/.bin"
PYTHON: Final = TOOLS / "python/bin"
PATIENCE: Final = 150.0
STRICT: Final = ("--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes")
MODERN: Final = ("--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable")


class Served(NamedTuple):
    """A server, its document, and the folder where tools find both."""

    server: Running
    document: dict[str, Any]
    folder: Path

    def read(self, target: str, **headers: str) -> bytes:
        """Return a body."""
        request = urllib.request.Request(self.server.url + target, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return bytes(answer.read())

    def run(self, *words: str | Path, cwd: Path | None = None, **more: str) -> str:
        """Run a program to its end, which is good, and return what it said."""
        done = subprocess.run(
            words,
            cwd=cwd or self.folder,
            env=environ(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def drew(self, said: str) -> None:
        """Check what a client said: its job, the picture it read, and the refusal it was meant to meet."""
        job, size, count, refusal = said.split()
        bearer = {"Authorization": f"Bearer {self.server.token}"}
        (output,) = json.loads(self.read(f"/v1/jobs/{job}", **bearer))["outputs"]
        assert (size, int(count)) == ("1536x1024", output["bytes"])
        assert refusal == "invalid_request"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A `safelight dev` on a free port."""
    folder = tmp_path_factory.mktemp("clients")
    with running("dev", "--port", "0", cwd=tmp_path_factory.mktemp("dev")) as server:
        found = Served(server, {}, folder)
        for name in ("openapi.json", "postman.json"):
            (folder / name).write_bytes(found.read(f"/{name}"))
        yield found._replace(document=json.loads((folder / "openapi.json").read_text()))


@pytest.fixture(scope="module")
def executions(served: Served) -> list[dict[str, Any]]:
    """Every request of a run of the collection from top to bottom, with its answer."""
    key = ("--env-var", f"apiKey={served.server.token}")
    report = ("--reporters", "cli,json", "--reporter-json-export", "run.json")
    said = served.run(NODE / "newman", "run", "postman.json", *key, *report, "--timeout-request", "60000")
    assert "✓" in said
    found: list[dict[str, Any]] = json.loads((served.folder / "run.json").read_text())["run"]["executions"]
    return found


def operation_of(document: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Return the operation a request was for: the one whose path fits with the fewest names to fill in."""
    target = "/" + "/".join(request["url"]["path"])
    fits = [
        (path.count("{"), operation)
        for path, method, operation in operations(document)
        if method == request["method"]
        # A blob's key has slashes in it.
        and re.fullmatch(re.sub(r"\{(\w+)\}", lambda m: ".+" if m[1] == "key" else "[^/]+", path), target)
    ]
    return min(fits, key=lambda fit: fit[0])[1]


@pytest.mark.fact("P4")
def test_collection_runs_from_its_top(served: Served, executions: list[dict[str, Any]]) -> None:
    """The Postman collection is a 2.1 with `apiKey`, and a run with that alone set passes and tries all."""
    found = json.loads((served.folder / "postman.json").read_text())
    values = {each["key"]: each["value"] for each in found["variable"]}
    assert found["info"]["schema"] == SCHEMA
    assert (values["baseUrl"], values["apiKey"]) == (served.server.url, "")
    assert all(each["assertions"] for each in executions)
    failed = [one for each in executions for one in each["assertions"] if "error" in one]
    assert failed == []
    tried = {operation_of(served.document, each["request"])["operationId"] for each in executions}
    named = {operation["operationId"] for _, _, operation in operations(served.document)}
    assert named - tried == {ENDLESS}


def test_answers_fit_the_document(served: Served, executions: list[dict[str, Any]]) -> None:
    """Whatever the run was answered is as documented: status, type and form, with no field left out."""
    closed = json.loads(json.dumps(served.document))
    for schema in closed["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    for each in executions:
        answer = each["response"]
        responses = operation_of(served.document, each["request"])["responses"]
        content = responses[str(answer["code"])].get("content", {})
        fields = {field["key"].lower(): field["value"] for field in answer["header"]}
        kind = fields.get("content-type", "").partition(";")[0]
        body = bytes(answer.get("stream", {}).get("data", []))
        assert (kind in content) if body else not content, (each["item"]["name"], kind)
        if kind.endswith("json"):
            schema = content[kind]["schema"] | {"components": closed["components"]}
            assert [*OAS31Validator(schema).iter_errors(json.loads(body))] == [], each["item"]["name"]


def test_document_passes_a_linter(served: Served) -> None:
    """Redocly finds nothing against its recommended rules but what is written down with its reason."""
    for name in ("redocly.yaml", ".redocly.lint-ignore.yaml"):
        shutil.copy(OURS / name, served.folder)
    said = served.run(
        NODE / "redocly",
        *("lint", "openapi.json", "--format", "json"),
        REDOCLY_TELEMETRY="off",
        REDOCLY_SUPPRESS_UPDATE_NOTICE="true",
    )
    report = json.loads(said[said.index('{\n  "totals"') : said.rindex("}") + 1])
    assert report["totals"] == {"errors": 0, "warnings": 0, "ignored": 3}


def test_typescript_client_draws(served: Served) -> None:
    """A program over openapi-typescript's types passes the strict compiler, and runs in Node."""
    folder = served.folder / "typescript"
    folder.mkdir()
    (folder / "node_modules").symlink_to(TOOLS / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    shutil.copy(OURS / "program.ts", folder)
    # Its own choice is that a field with a default is required, in requests too.
    may = ("--default-non-nullable", "false")
    served.run(NODE / "openapi-typescript", "openapi.json", "-o", "typescript/api.d.ts", *may)
    served.run(NODE / "tsc", *STRICT, *MODERN, "program.ts", cwd=folder)
    served.drew(served.run("node", "program.js", served.server.url, served.server.token, cwd=folder))


def test_python_client_draws(served: Served) -> None:
    """openapi-python-client makes a package without a warning, and a program over it runs."""
    package = served.folder / "python/safelight_client"
    package.parent.mkdir()
    made = ("generate", "--path", "openapi.json", "--output-path", package, "--meta", "none")
    config = ("--config", OURS / "generator.yaml", "--fail-on-warning")
    served.run(PYTHON / "openapi-python-client", *made, *config)
    shutil.copy(OURS / "program.py", package.parent)
    program = ("program.py", served.server.url, served.server.token)
    served.drew(served.run(PYTHON / "python", *program, cwd=package.parent))


def test_go_client_draws(served: Served) -> None:
    """oapi-codegen makes a package that Go's compiler takes, and a program over it runs."""
    folder = served.folder / "go"
    shutil.copytree(OURS / "go", folder)
    (folder / "safelight").mkdir()
    # Without pruning: it would leave away what only webhooks refer to, and make those all the same.
    kind = ("-generate", "types,client,skip-prune", "-package", "safelight")
    served.run(TOOLS / "oapi-codegen", *kind, "-o", folder / "safelight/client.go", "openapi.json")
    served.run("go", "build", "-o", "program", ".", cwd=folder, GOFLAGS="")
    served.drew(served.run(folder / "program", served.server.url, served.server.token))
