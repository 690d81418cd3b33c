"""Which finished run of a workdir is taken where one has to be chosen: the best on validation."""

import logging
import math
from collections.abc import Iterable
from pathlib import Path

from capsnet_jax.config import Config, ConfigError
from capsnet_jax.overrides import build
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.records import Record

log = logging.getLogger(__name__)


def best_run(workdir: Path, experiment: str | None = None) -> Record:
    """Return the run of least validation error, the first of `ranked`."""
    return ranked(workdir, experiment)[0]


def ranked(workdir: Path, experiment: str | None = None) -> list[Record]:
    """Return the finished runs, of one experiment or of all, the one of least validation error first.

    Those that cannot be built any more are left out, with a warning. Runs without validation images come last, in the
    order in which they were finished; where all are such, a warning says so.

    Raises:
        ConfigError: there is no finished run with its parameters, or none can be built.
    """
    finished = runs_with_params(workdir)
    if experiment is not None:
        names = {record.name for record in records.load(workdir, experiment)[0]}
        finished = {name: record for name, record in finished.items() if name in names}
        if not finished:
            raise ConfigError(
                f"no finished run of {experiment} with its parameters in {workdir}; leave out --experiment"
            )
    found = sorted(_buildable(finished.values()), key=_validation_error)
    if len(found) > 1 and math.isinf(_validation_error(found[0])):
        log.warning(
            "no run has validation images to choose by: %s is taken, the first that was finished", found[0].name
        )
    return found


def runs_with_params(workdir: Path) -> dict[str, Record]:
    """Return the finished runs whose parameters are there, by name.

    Raises:
        ConfigError: there are none.
    """
    finished = {name: record for name, record in records.load_all(workdir).items() if has_params(record)}
    if not finished:
        raise ConfigError(f"no finished run in {workdir}; train one first, or name its --workdir")
    return finished


def has_params(record: Record) -> bool:
    """Whether the run's parameters are there; a table's records may have come without, and what diverged has none."""
    return not record.diverged and params_of(record).exists()


def params_of(record: Record) -> Path:
    """Return the file of a run's parameters."""
    return records.params_path(record.workdir, record.name)


def config_of(record: Record) -> Config:
    """Return the config of a run.

    Raises:
        ConfigError: its model, router or loss is not there any more, or has other settings now.
    """
    try:
        return build(record.settings)
    except ConfigError as error:
        raise ConfigError(f"{record.name} cannot be built: {error}") from error


def _buildable(finished: Iterable[Record]) -> list[Record]:
    """Return the runs that can be built; warn of the others.

    Raises:
        ConfigError: there are only others.
    """
    buildable, reasons = [], []
    for record in finished:
        try:
            config_of(record)
            buildable.append(record)
        except ConfigError as error:
            reasons.append(error)
    if not buildable:
        raise reasons[0]
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        log.warning("left out: %s%s", reasons[0], more)
    return buildable


def _validation_error(record: Record) -> float:
    error = record.result.get("validation_error", math.nan)
    return math.inf if math.isnan(error) else error
