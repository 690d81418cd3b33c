"""Which runs need not be trained again: those whose record was made by the same code and the same settings."""

import dataclasses
from collections.abc import Mapping, Sequence

from capsnet_jax.overrides import flatten
from capsnet_jax.sweeps.code import code_of, differing_files
from capsnet_jax.sweeps.plan import Plan
from capsnet_jax.sweeps.records import Record, Run


def is_finished(run: Run, record: Record | None) -> bool:
    """Whether a run need not be trained: it has a record, and nothing that decides its result has changed since."""
    return record is not None and not changes_since(run, record)


def changes_since(run: Run, record: Record) -> list[str]:
    """Return the files whose code has changed since a run was recorded, and the settings whose default has.

    A run's name leaves out settings at their defaults, so a new default comes under the old name. Settings that are
    newer than the record do not count: at their default they change nothing. Settings of the record that are unknown
    now do.
    """
    settings = flatten(run.config)
    other = [path for path, value in settings.items() if record.settings.get(path, value) != value]
    other += sorted(record.settings.keys() - settings.keys())
    return differing_files(record.code, code_of(run.config)) + other


def tell_finished(runs: Sequence[Run], pending: Sequence[Run], before: Mapping[str, Record], plan: Plan) -> None:
    """Say which runs are finished already, of which revision, and which are trained anew and why."""
    to_train = set(pending)
    done = [before[run.name] for run in runs if run not in to_train]
    if done:
        revisions = ", ".join(dict.fromkeys(record.revision for record in done))
        print(
            f"{len(done)} of {len(runs)} runs are finished already (code of revision {revisions}); --rerun trains anew"
        )
    again = [(run, before[run.name]) for run in pending if run.name in before and not plan.rerun]
    stale = [(old, changed) for run, old in again if (changed := changes_since(run, old))]
    if len(stale) < len(again):
        print(f"the parameters of {len(again) - len(stale)} finished runs are damaged: they are trained anew")
    if stale:
        causes = {name for _, changed in stale for name in changed}
        revisions = ", ".join(dict.fromkeys(old.revision for old, _ in stale))
        print(
            f"{len(stale)} finished runs are of other code (revision {revisions}) and are trained anew:"
            f" {', '.join(sorted(causes)[:5])}{' …' if len(causes) > 5 else ''} changed since"
        )
    asked = dataclasses.asdict(plan.observed)
    if unobserved := [r for r in done if any(v and r.observed.get(n, 0) < v for n, v in asked.items())]:
        names = ", ".join(f"eval.{name}={value}" for name, value in asked.items() if value)
        print(f"{len(unobserved)} finished runs were trained without {names}; --rerun trains them anew with it")
