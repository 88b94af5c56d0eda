"""`doctor`, `facts`, `jobs`, `attachments`, `explain`, `support-bundle`: with the agent running or stopped."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from agent.base.terminal.config import config_options
from agent.base.terminal.output import Record, Table, emit, form, shown
from agent.base.terminal.sizes import duration, size
from agent.cli.place import place_of, settings_of
from agent.server.settings import DEFAULT_CONFIG

JOBS = ("key", "kind", "state", "done", "age", "error")
ATTACHMENTS = ("attachment_id", "volume_id", "state", "protocol", "mode", "device", "backend")


@click.command()
@click.option("--check", "names", multiple=True, metavar="NAME", help="Only this check; may be given often.")
@config_options(DEFAULT_CONFIG)
@shown
def doctor(names: tuple[str, ...], config: Path | None, sets: tuple[str, ...]) -> int:
    """Check this host; each finding comes with a remedy. The exit code is 1 when something is bad."""
    from agent.diagnostics.table import CHECKS, examine

    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise click.UsageError(f"There is no check {unknown[0]!r}; known: {', '.join(CHECKS)}.")
    found = list(examine(place_of(settings_of(config, sets)), names or CHECKS))
    emit(Table([asdict(finding) for finding in found], ("check", "state", "message", "remedy")), form())
    return int(any(finding.state == "bad" for finding in found))


@click.command()
@shown
def facts() -> Record:
    """Show what this host is, and how others reach it."""
    from agent.host.facts import host_facts

    return Record(asdict(host_facts()), value="boot_id")


@click.command()
@click.option("--ip", default="", metavar="ADDRESS", help="The address to tell; default: the first that others reach.")
@shown
def connector(ip: str) -> Record:
    """Show how this host presents itself to a Block Storage API: what an attachment's `connector` is to say."""
    from agent.host import connector as words
    from agent.host.facts import host_facts

    address = ip or next(iter(host_facts().addresses), "")
    return Record(words.properties(address), value="initiator")


@click.command()
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@config_options(DEFAULT_CONFIG)
@shown
def jobs(everything: bool, config: Path | None, sets: tuple[str, ...]) -> Table:
    """List the jobs of this host from its journal."""
    from agent.diagnostics import journal

    rows = journal.jobs(place_of(settings_of(config, sets)).journal_file, ended=everything)
    return Table([_job(row) for row in rows], JOBS)


def _job(row: dict[str, Any]) -> dict[str, Any]:
    progress, error = row["progress"] or {}, row["error"] or {}
    done = size(progress.get("done", 0)) + (f" of {size(progress['total'])}" if progress.get("total") else "")
    fields = {"done": done if progress else "", "age": duration(time.time() - row["created_at"])}
    return {**row, **fields, "error": error.get("message")} if form() in {"table", "value"} else row


@click.command()
@config_options(DEFAULT_CONFIG)
@shown
def attachments(config: Path | None, sets: tuple[str, ...]) -> Table:
    """List what this host was told to have attached, and what the kernel says of it."""
    from agent.diagnostics import live

    return Table(live.attachments(place_of(settings_of(config, sets))), ATTACHMENTS)


@click.command()
@click.argument("volume_id", metavar="VOLUME")
@config_options(DEFAULT_CONFIG)
@shown
def explain(volume_id: str, config: Path | None, sets: tuple[str, ...]) -> int:
    """Show where the volume with this id is on this host: files, devices, holders, attachments, jobs."""
    from agent.diagnostics import live

    tree = live.explain(place_of(settings_of(config, sets)), volume_id)
    if form() in {"json", "ndjson"}:
        click.echo(json.dumps(tree, indent=2 if form() == "json" else None))
    else:
        click.echo("\n".join(live.lines(tree)))
    return 0


@click.command("support-bundle")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@config_options(DEFAULT_CONFIG)
@shown
def support_bundle(file: Path | None, config: Path | None, sets: tuple[str, ...]) -> Record:
    """Write what support needs to FILE (tar.gz), without secrets; look through it before you send it."""
    from agent.diagnostics import bundle

    settings = settings_of(config, sets)
    path = file or Path(f"brickyard-support-{settings.agent.host}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    names = bundle.write(place_of(settings), settings.model_dump(mode="json"), path)
    return Record({"file": str(path), "bytes": path.stat().st_size, "parts": names}, value="file")
