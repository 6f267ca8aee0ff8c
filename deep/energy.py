"""The energy balance of a run, T9: does training behave as if convex towards the solution it ends at?

python -m deep.energy runs/width8_to-loss_iid_K05 --data DIR
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deep.checkpoint import Checkpoint, load_checkpoint
from deep.config import Config
from deep.display import Display
from deep.distributed import say_once, under_torchrun
from deep.energy_record import read_balance, windows_of, write_balance
from deep.experiment import load_data, run_experiment
from deep.reproduce import CACHE_HELP, DATA_HELP, find_place, make_machine
from deep.results import files
from deep.run_folder import (
    check_files,
    in_use,
    read_config,
    read_metrics,
    read_summary,
    rewrite_metrics,
)
from deep.schedule import Row
from theory.support import command as cli
from theory.support.energy import TOLERANCE, Windows, from_rows, medians
from theory.support.energy_tables import LEGEND, WIDTH, window_tables
from theory.support.errors import UserError
from theory.support.files import check_outputs
from theory.support.numbers import real, whole
from theory.support.reading import read_text

#: In a run folder: where the run is repeated.
REPETITION = "repetition"

app = cli.make_app()


@app.command()
def energy(
    run: Annotated[
        Path, typer.Argument(help="A run folder, or the small result file of a run that has ended.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Of a run without a record: its images, to repeat it. " + DATA_HELP),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help=CACHE_HELP)] = None,
    result: Annotated[
        Path | None,
        typer.Option(help="Write the run's small result file, with the balance, here."),
    ] = None,
    rows: Annotated[int, typer.Option(help="Windows in the table, at most.")] = 12,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Threads on the CPU; all cores by default.")
    ] = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Minutes between checkpoints of a repetition.")
    ] = 5.0,
    quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
    version: cli.Version = False,
) -> int:
    """Where the distance to the run's last model went: progress, averaging, and noise against both.

    For z the last model, D_0 - D_T = sum C_r + sum [2 eta <g, x - z> - eta^2 ||g||^2] holds on every path.
    A run with --energy has recorded it; any other is repeated from its folder, to the last bit, in a folder
    inside that one, which a killed command continues.

    Exit status: 0 done; 1 the balance does not close to 1e-6 of D_0, or the repetition ended elsewhere;
    2 bad input; 130 interrupted.
    """
    if under_torchrun():
        # A balance adds up one node after the other anyway, and each process would write it.
        raise UserError("deep.energy is started by torchrun, allowed: one process, without it")
    whole("--rows", rows, 1)
    real("--checkpoint-minutes", checkpoint_minutes, least=0)
    find_place(device, threads)
    check_outputs({"--result": result}, {"RUN": run if run.is_file() else None})
    if result is not None and run.resolve() in result.resolve().parents:
        raise UserError(f"--result is {result}, allowed: a place outside the run folder")
    if run.is_dir():
        config, summary = _ended(run)
        recorded = read_balance(run) is not None
        if recorded and data is not None:
            raise UserError(f"{run} has recorded its balance, allowed: no --data")
        if not recorded:
            same = _measure(
                run, config, summary, data, cache, device, threads, checkpoint_minutes, quiet
            )
            if not same:
                print(
                    "FAILED: the repetition ended with another model: another processor, another number "
                    "of threads (engines but simd) or another version of the code; both are in "
                    f"{run}, and the same command repeats it again",
                    file=sys.stderr,
                )
                return cli.FAILED
        balance, metrics, name = read_balance(run), _metrics(run, summary), run.resolve().name
        if result is not None:
            files.write_result(result, files.provenance(config.data_name), run, special=True)
    else:
        if result is not None or data is not None:
            raise UserError(f"{run} is a file, allowed with --data and --result: a run folder")
        config, summary, metrics, balance = _read(run)
        name = run.stem
    if balance is None:
        raise UserError(f"{run} holds no energy balance: give its run folder, or it diverged")
    windows = from_rows(config.step_size, balance["windows"])
    few = windows.at_most(rows)
    console = cli.console()
    for table in window_tables(name, windows, rows, measured(few, metrics)):
        console.print(table)
    last = f"loss {summary['final_train_loss']:.2e}"
    error = windows.closing_error
    for line in (
        LEGEND,
        "c = min_i f_i/f at xbar and P/Q of the rounds are medians of what was measured there.",
        f"z: the model after {summary['rounds']:,} rounds, {last}. The balance closes to {error:.1e} of "
        f"D_0; it must to {TOLERANCE:g}.",
    ):
        console.print(line, width=WIDTH, highlight=False, markup=False)
    if not error <= TOLERANCE:
        print("FAILED: the balance does not close", file=sys.stderr)
        return cli.FAILED
    return cli.DONE


def measured(windows: Windows, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """c and P/Q of every window, the medians of its rows of metrics."""
    iterations = [row["iteration"] for row in metrics]
    return {
        heading: medians(windows, iterations, [row[name] for row in metrics])
        for heading, name in (("c", "least_loss_ratio"), ("P/Q", "movement_ratio"))
    }


def _read(
    path: Path,
) -> tuple[Config, dict[str, Any], list[dict[str, Any]], dict[str, Any] | None]:
    """Configuration, summary, metrics and balance of a result file, tried out as far as they are used."""
    try:
        content = json.loads(read_text(path))
        config, summary = Config(**content["config"]), dict(content["summary"])
        metrics, balance = list(content["metrics"]), content.get("energy")
        if balance is not None:
            _ = f"{summary['rounds']:,} {summary['final_train_loss']:.2e}"
            measured(from_rows(config.step_size, balance["windows"]).at_most(1), metrics)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, AttributeError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no result file of deep.reproduce") from error
    return config, summary, metrics, balance


def _ended(folder: Path) -> tuple[Config, dict[str, Any]]:
    """Configuration and summary of a run that has ended."""
    check_files(folder)
    try:
        config = Config(**read_config(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is no run folder of deep.reproduce") from error
    summary = read_summary(folder)
    if summary is None or summary["status"] == "unfinished":
        raise UserError(f"the run in {folder} has not ended: its balance is towards its last model")
    if summary["status"] == "diverged":
        raise UserError(f"the run in {folder} diverged: there is no solution to measure from")
    return config, summary


def _measure(
    folder: Path,
    config: Config,
    summary: dict[str, Any],
    data: Path | None,
    cache: Path | None,
    device: str,
    threads: int | None,
    checkpoint_minutes: float,
    quiet: bool,
) -> bool:
    """Write the balance of a run; whether its repetition, if it needed one, ended with the same bits."""
    state = _state(folder, summary)
    windows = windows_of(folder, state, config.step_size, config.local_steps)
    if windows is not None:
        write_balance(folder, windows)
        return True
    if data is None:
        raise UserError(f"{folder} holds no record of its balance: --data repeats the run")
    place = folder / REPETITION
    # It is removed in the end, and what a link leads to is not ours to remove.
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise UserError(
            f"{place} is no folder of this command: remove it, the repetition goes there"
        )
    machine = make_machine(device, threads)
    try:
        with Display(quiet or machine.communicator.rank != 0) as display:
            images = load_data(
                data,
                name=config.data_name,
                cache=cache,
                progress=display.loading,
                communicator=machine.communicator,
            )
            if images.chosen(config)[1] != config.data_fingerprint:
                raise UserError(f"--data is {data}, allowed: the images of the run")
            if _ended_elsewhere(place, state):
                shutil.rmtree(place)
            run_experiment(
                config,
                images,
                place,
                machine,
                head=files.provenance(images.training.name),
                checkpoint_minutes=checkpoint_minutes,
                report=display.training(f"repeating {folder.name}"),
                warn=display.warn,
                energy=True,
            )
    finally:
        machine.communicator.close()
    again = _state(place)
    if not _same(again, state):
        return False
    write_balance(folder, windows_of(place, again, config.step_size, config.local_steps))
    shutil.rmtree(place)
    return True


def _ended_elsewhere(place: Path, state: Checkpoint) -> bool:
    """Whether an earlier repetition ended, and not at ``state``: going on from it would end there again."""
    check_files(place)
    found = read_summary(place)
    if found is None or found["status"] == "unfinished" or in_use(place):
        return False
    try:
        again = load_checkpoint(place, read_config(place))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return again is not None and not _same(again, state)


def _same(one: Checkpoint, other: Checkpoint) -> bool:
    return one.round == other.round and one.model.tobytes() == other.model.tobytes()


def _state(folder: Path, summary: dict[str, Any] | None = None) -> Checkpoint:
    """The checkpoint of a run, the one of its end where a ``summary`` says when that was."""
    state = load_checkpoint(folder, read_config(folder))
    if state is None:
        raise UserError(f"{folder} has no checkpoint that can be read")
    if summary is not None and state.round != summary["rounds"]:
        raise UserError(
            f"{folder} has no checkpoint of its last round, {summary['rounds']:,}, but of round "
            f"{state.round:,}: the command that trained it continues it"
        )
    return state


def _metrics(folder: Path, summary: dict[str, Any]) -> list[Row]:
    """The rows of a run that has ended; metrics.jsonl is mended where it lost some."""
    rows = read_metrics(folder)
    state = load_checkpoint(folder, read_config(folder))
    if state is not None and state.round == summary["rounds"]:
        # As text, in which NaN equals NaN.
        if json.dumps(state.metrics) != json.dumps(rows):
            rewrite_metrics(folder, state.metrics)
        return state.metrics
    if not rows or rows[-1]["round"] != summary["rounds"]:
        raise UserError(
            f"{folder / 'metrics.jsonl'} doesn't reach round {summary['rounds']:,}, the run's last, "
            "and no checkpoint of that round can be read"
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the command; every user error is one line on stderr and exit status 2."""
    return cli.run_command(
        app,
        "python -m deep.energy",
        arguments,
        interrupted="interrupted; the same command continues",
        out_of_memory="out of memory",
        say=say_once,
    )


if __name__ == "__main__":
    sys.exit(main())
