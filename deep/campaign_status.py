"""How far the runs of a campaign are, as a table."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from deep.campaign_file import Campaign, Entry
from deep.run_folder import in_use, read_metrics, read_summary
from deep.schedule import rounds_to_go
from theory.support.progress import duration

#: Columns that leave the runs' names some width.
_NARROWEST = 72


def status_table(campaign: Campaign, runs_folder: Path, width: int = 80) -> Table:
    """Run, state, rounds, loss, images a second and estimated time left, in the queue's order.

    Times left are those of runs that have begun: to the rounds' limit, or to the target loss if the loss
    goes on falling as of late.
    """
    rows = [(entry.run.label, *_row(entry, runs_folder)) for entry in campaign.entries]
    ended = sum(row[1] not in ("queued", "running", "unfinished") for row in rows)
    table = Table(
        title=f"{ended} of {len(rows)} runs have ended",
        width=max(width, _NARROWEST),
        padding=(0, 1),
    )
    table.add_column("run", overflow="fold", ratio=1, min_width=16)
    table.add_column("state", no_wrap=True)
    for heading in ("rounds", "loss", "images/s", "left"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _row(entry: Entry, runs_folder: Path) -> tuple[str, str, str, str, str]:
    folder, config = runs_folder / entry.run.label, entry.run.config
    metrics, summary = read_metrics(folder), read_summary(folder)
    if not metrics:
        return ("running" if in_use(folder) else "queued", "", "", "", "")
    last = metrics[-1]
    state = summary["status"] if summary else "unfinished"
    rate = summary["images_per_second"] if summary else last["images_per_second"]
    if state == "unfinished" and in_use(folder):
        state = "running"
    left = ""
    if state in ("running", "unfinished"):
        seconds = rounds_to_go(config, metrics) * last["wall_seconds"] / max(last["round"], 1)
        if entry.minutes is not None:
            seconds = min(seconds, 60 * entry.minutes - last["wall_seconds"])
            if seconds <= 0:
                state, seconds = "time limit", 0.0
        left = duration(seconds) if last["round"] and seconds else ""
    names = {"round_limit": "all rounds"}
    return (
        names.get(state, state),
        f"{last['round']:,}",
        f"{last['train_loss']:.1e}",
        f"{rate:,.0f}",
        left,
    )
