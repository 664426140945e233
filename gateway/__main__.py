"""The `safelight` command: what each part is called, takes, and says of itself.

What a command does is in `gateway/cli/`, entered when it is called. Exit codes: 0 done, 1 not done, with
the reason in a sentence, 2 wrong words on the command line or mistakes in settings. A trace means a bug.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli.words import Area, Commands, Days, Span

if TYPE_CHECKING:
    from gateway.settings import Role

ROLES: Final = ("user", "tenant_admin", "platform_admin")
KEY_ROLES: Final = ("user", "tenant_admin")
SCOPES: Final = ("images:read", "images:write", "audit", "webhooks")

DATA: Final = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".safelight"),
    envvar="SAFELIGHT_DATA",
    show_default=True,
    metavar="DIR",
    help="The data folder of `safelight dev`.",
)
CONFIG: Final = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SAFELIGHT_CONFIG",
    metavar="FILE",
    help="The settings file. Without it: safelight.yaml, if there is one here.",
)
STORED: Final = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SAFELIGHT_CONFIG",
    metavar="FILE",
    help="The settings file of a server, in place of a data folder.",
)
URL: Final = click.option("--url", envvar="SAFELIGHT_URL", help="A server elsewhere. Needs a token.")
TOKEN: Final = click.option("--token", envvar="SAFELIGHT_TOKEN", help="The token for it.")
TENANT: Final = click.option("--tenant", required=True, help="The tenant whose keys they are.")
ROLE: Final = click.option(
    "--role",
    type=click.Choice(("all", "api", "worker")),
    default="all",
    show_default=True,
    help="What this process does. SQLite takes all.",
)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples=(
        "safelight dev                            a server on this machine, and how to use it",
        'safelight image "a lighthouse at dusk"   a picture, with or without that server',
        "safelight demo                           rules, money and kill -9 in half a minute",
    ),
)
def command() -> None:
    """A gateway for image generation: your users work through it, provider keys are never exposed."""


@command.command(examples=("safelight dev --port 9000 --data /tmp/try",))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    help="The port; 0 takes a free one.",
)
@DATA
def dev(host: str, port: int, data: Path) -> None:
    """Serve on this machine, with nothing to configure.

    Prints where everything is, a token, and a cURL to paste. Pictures come from the provider whose key is
    in OPENAI_API_KEY, GPTIMAGE2_PLUS_API_KEY or GPTIMAGE2_API_KEY; where none is set, a sandbox draws them
    here and marks such as [[fail]], [[refuse]] or [[slow 5]] in a prompt make it misbehave.
    """
    from gateway.cli.screen import Screen
    from gateway.cli.start import run_dev

    run_dev(host, port, data, os.environ, Screen())


@command.command(
    examples=(
        'safelight image "a lighthouse at dusk" -o out.png --size 1536x1024',
        'safelight image "a red bicycle" --count 4 --url https://images.example.com --token "$TOKEN"',
    )
)
@click.argument("prompt")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Where to save it; .png, .webp or .jpg. Without it: named by the prompt.",
)  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), help="How many pictures.")
@click.option("--size", type=Area(), metavar="WxH", help="Such as 1536x1024. The model has a list.")
@click.option("--quality", type=click.Choice(("low", "medium", "high")), help="What it costs depends on it.")
@click.option("--style", help="Such as editorial-photo, studio-product or cinematic.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), help="The same seed, the same picture, where offered."
)
@URL
@TOKEN
@DATA
def image(
    prompt: str, output: Path | None, url: str | None, token: str | None, data: Path, **options: Any
) -> None:
    """Make a picture and save it.

    Asks the `safelight dev` that runs on the data folder; where none runs, makes it in this process, with
    the same credits and rules. Shows it where the terminal can. Ctrl-C cancels.
    """
    from gateway.cli.image import Order, run_image
    from gateway.cli.screen import Screen

    order = Order(prompt, options, output, url, token, data)
    sys.exit(run_image(order, os.environ, Screen(), sys.stderr.buffer))


@command.command(
    examples=("TOKEN=$(safelight token --tenant acme --subject alice --role tenant_admin --ttl 12h)",)
)
@click.option("--tenant", required=True, help="The tenant the caller belongs to.")
@click.option("--subject", required=True, help="The caller.")
@click.option("--role", "roles", multiple=True, type=click.Choice(ROLES), help="May be given again.")
@click.option("--plan", help="The caller's plan, in place of the tenant's: free, pro, max.")
@click.option("--ttl", type=Span(), default="1h", show_default=True, help="How long it is good.")
@DATA
def token(tenant: str, subject: str, roles: tuple[str, ...], plan: str | None, ttl: int, data: Path) -> None:
    """Print a token that `safelight dev` accepts, and nothing else.

    Signed with the data folder's secret. `safelight serve` accepts no such token: there your own issuer
    signs them.
    """
    import time

    from gateway import dev
    from gateway.cli.sources import secret_in
    from policies import model

    ranks = frozenset({model.Role.USER, *map(model.Role, roles)})
    who = model.Principal(tenant, subject, ranks, plan)
    click.echo(dev.token(secret_in(data), who, time.time_ns() // 1_000_000, ttl))


@command.group()
def key() -> None:
    """Long-lived keys for backends and scripts."""


@key.command(
    examples=(
        "KEY=$(safelight key create --tenant acme --subject ci --prefix gimg --ttl 90d)",
        'safelight key create --tenant acme --subject ci --url https://images.example.com --token "$TOKEN"',
    )
)
@TENANT
@click.option("--subject", required=True, help="Whom it speaks for.")
@click.option("--prefix", default="sk", show_default=True, help="What it begins with. Spelling only.")
@click.option("--label", default="", help="What people know it by.")
@click.option("--role", "roles", multiple=True, type=click.Choice(KEY_ROLES), help="May be given again.")
@click.option("--plan", help="Its plan, in place of the tenant's.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    help="May be given again. Without one: all.",
)
@click.option("--ttl", "days", type=Days(), default="365d", show_default=True, help="How long it is good.")
@URL
@TOKEN
@DATA
@STORED
def create(
    subject: str,
    prefix: str,
    label: str,
    plan: str | None,
    roles: tuple[str, ...],
    scopes: tuple[str, ...],
    days: int,
    **place: Any,
) -> None:
    """Make a service key and print it, and nothing else, this once.

    Asks the server named by --url, or the `safelight dev` that runs on the data folder; where none runs,
    writes to the store of the folder or of --config itself. What else there is to know goes to stderr.
    """
    from gateway.cli import keys
    from gateway.cli.screen import Screen
    from policies import access, model

    asked = access.KeyRequest(
        label=label,
        subject=subject,
        roles=tuple(map(model.Role, roles)),
        plan=plan,
        scopes=tuple(map(access.Action, scopes)) or None,
        prefix=prefix,
        expires_in_days=days,
    )
    with keys.desk_of(keys.Place(**place), os.environ, sys.stderr.buffer) as desk:
        keys.run_create(desk, asked, Screen())


@key.command("list", examples=("safelight key list --tenant acme",))
@TENANT
@URL
@TOKEN
@DATA
@STORED
def list_(**place: Any) -> None:
    """List a tenant's service keys, newest first.

    By id, first and last letters, and whom they speak for: nobody can read a key again.
    """
    from gateway.cli import keys
    from gateway.cli.screen import Screen

    with keys.desk_of(keys.Place(**place), os.environ, sys.stderr.buffer) as desk:
        keys.run_list(desk, Screen())


@key.command(examples=("safelight key revoke key_01KAGT5ZM07X8V3C4D2B9N6E1F --tenant acme",))
@click.argument("name", metavar="ID")
@TENANT
@URL
@TOKEN
@DATA
@STORED
def revoke(name: str, **place: Any) -> None:
    """Revoke a service key, for ever.

    The next request that comes with it is refused. ID is as `safelight key list` shows it.
    """
    from gateway.cli import keys
    from gateway.cli.screen import Screen

    with keys.desk_of(keys.Place(**place), os.environ, sys.stderr.buffer) as desk:
        keys.run_revoke(desk, name, Screen())


@command.command(examples=("safelight serve --config /etc/safelight/safelight.yaml",))
@CONFIG
@ROLE
def serve(config: Path | None, role: Role) -> None:
    """Serve by a settings file.

    Mistakes in settings or policies are listed with their places, and nothing is started. SIGTERM ends it
    once calls under way are done (worker.drain_seconds); a second one at once.
    """
    from gateway.cli.sources import settings_file
    from gateway.cli.start import run_serve

    run_serve(settings_file(config), role, os.environ)


@command.command(examples=("safelight check --config safelight.yaml --no-probe",))
@CONFIG
@ROLE
@click.option("--probe/--no-probe", default=True, help="Look at port, folders and store too, or only read.")
def check(config: Path | None, role: Role, **chosen: bool) -> None:
    """List everything that would keep `serve` from starting.

    Starts nothing. Every mistake is told with file, line and column; the exit code is 2 where there is one.
    """
    from gateway.check import run_check
    from gateway.cli.sources import settings_file
    from gateway.providers import KINDS

    path = settings_file(config)
    sys.exit(run_check(path, os.environ, KINDS, click.echo, role=role, probe=chosen["probe"]))


@command.group()
def blobs() -> None:
    """The place where images are kept."""


@blobs.command(
    "check", examples=("safelight blobs check --config safelight.yaml --origin https://app.example.com",)
)
@CONFIG
@click.option(
    "--origin", "origins", multiple=True, metavar="URL", help="A page's origin. May be given again."
)
def check_blobs(config: Path | None, origins: tuple[str, ...]) -> None:
    """Try the place for images as server and clients will.

    Writes, reads and deletes an object; for object storage also puts and gets one at signed addresses, and
    asks what browsers ask for pages of server.cors_origins and of --origin. The exit code is 2 where
    something is wrong; what to set is told. Credentials and endpoint of a bucket are in the environment
    variables of its cloud, such as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT.
    """
    from gateway.cli.screen import Screen
    from gateway.cli.sources import settings_file
    from gateway.cli.storage import run_blobs_check

    sys.exit(run_blobs_check(settings_file(config), origins, os.environ, Screen()))


@command.group()
def audit() -> None:
    """The trail of every decision."""


@audit.command(examples=("safelight audit verify --config safelight.yaml",))
@DATA
@STORED
def verify(data: Path, config: Path | None) -> None:
    """Verify that no line of the trail was changed, moved or removed.

    Reads beside a running server. The exit code is 1 where the chain is broken.
    """
    from gateway.cli.examine import run_verify
    from gateway.cli.screen import Screen
    from gateway.cli.sources import kept

    sys.exit(run_verify(kept(config, data, os.environ), Screen()))


@command.command(
    examples=(
        "safelight doctor --data .safelight",
        "safelight doctor --config safelight.yaml --release acme --by alice",
    )
)
@DATA
@STORED
@click.option("--release", metavar="TENANT", help="Open a tenant that is closed because the store went back.")
@click.option("--by", default="operator", show_default=True, help="Who opens it, for the trail.")
def doctor(data: Path, config: Path | None, release: str | None, by: str) -> None:
    """Recompute every balance from ledger and jobs.

    Tells any difference to what is stored, and tenants that are closed because the store lost some of
    them, with what was known and what is there. Reads beside a running server and changes nothing but what
    --release says. The exit code is 1 where something is found.
    """
    from gateway.cli.examine import run_doctor, run_release
    from gateway.cli.screen import Screen
    from gateway.cli.sources import kept

    of = kept(config, data, os.environ)
    sys.exit(run_doctor(of, Screen()) if release is None else run_release(of, release, by, Screen()))


@command.command(examples=("safelight migrate --config safelight.yaml --finish",))
@DATA
@STORED
@click.option("--finish", is_flag=True, help="Write the newest form from now on.")
def migrate(data: Path, config: Path | None, **chosen: bool) -> None:
    """Tell in which form the store is written, and finish an upgrade.

    A new version writes as the one before it until then, so that both may run at one Redis and there is a
    way back. Refused, with their names, while processes live that cannot read what would be written: exit
    code 1. A SQLite file is brought forward by the next start, after a copy.
    """
    from gateway.cli.migrate import run_migrate
    from gateway.cli.screen import Screen
    from gateway.cli.sources import kept

    sys.exit(run_migrate(kept(config, data, os.environ), Screen(), finish=chosen["finish"]))


@command.command()
def demo() -> None:
    """See it work in half a minute.

    A picture, a blocked prompt, 64 submits with one charge, kill -9 in mid-job, and the books. Runs
    `safelight dev` of its own on a free port, in a folder that is removed afterwards. No key is needed,
    and none is used.
    """
    from gateway.cli.demo import run_demo
    from gateway.cli.screen import Screen

    sys.exit(run_demo(os.environ, Screen()))


@command.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as version_of

    click.echo(f"safelight {version_of('safelight')}")


def main() -> None:
    """Run the command this process was called with."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without these letters shows others
    command(prog_name="safelight")


if __name__ == "__main__":
    main()
