"""`python -m benchmarks`: everything in one sitting, and RESULTS.md of it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from . import machine, report
from .figures import FIGURES
from .sitting import FULL, QUICK, RESULTS, Sitting


@click.command()
@click.option("--quick", is_flag=True, help="Less of everything, in two minutes; its figures are rough.")
@click.option("--only", multiple=True, type=click.Choice(list(FIGURES)), help="A figure; can be given again.")
@click.option("--peers/--no-peers", default=True, help="Whether other servers are measured too.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for RESULTS.md, results.json and the plots. Without it, a whole full run goes beside the benchmarks "
    "and anything less only to stdout.",
)
def main(quick: bool, only: tuple[str, ...], peers: bool, out: Path | None) -> None:
    """Measure chatd beside the floor and its peers; Linux, a C compiler, and Node for Node's servers."""
    if len(machine.cores()) < 2:
        raise click.ClickException("at least two cores are needed, one for the server and one for the load")
    files = machine.allow_open_files()
    sitting = Sitting(QUICK if quick else FULL, None if peers else ())
    if files < sitting.scale.crowd + 1_000:
        raise click.ClickException(
            f"expected a limit of at least {sitting.scale.crowd + 1_000} open files, got {files}; raise it (ulimit -n)"
        )
    for name, figure in FIGURES.items():
        if not only or name in only:
            sitting.run(name, figure)
    if out is None and not quick and not only and peers:
        out = RESULTS
    print(report.markdown(sitting))
    if out is not None:
        report.write(sitting, out)
    sys.exit(any(row.case == "failed" for row in sitting.rows))


main()
