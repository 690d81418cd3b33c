"""Which settings tell runs apart."""

from collections.abc import Sequence

from capsnet_jax.sweeps.records import Record, by_dataset, format_setting


def varying_paths(records: Sequence[Record], always: Sequence[str] = ()) -> list[str]:
    """Return the paths that tell the records' settings apart, data sets aside: `always` and whatever varies.

    A path that some records do not have varies if it takes several values among those that do; or if records that
    differ in nothing else have it and lack it, as those of different versions may.
    """
    paths = list(dict.fromkeys(path for record in records for path in record.settings))
    varying = [path for path in paths if len({format_setting(r, path) for r in records if path in r.settings}) > 1]
    alike: dict[tuple[str | None, ...], list[Record]] = {}
    for record in records:
        key = tuple(format_setting(record, path) if path in record.settings else None for path in varying)
        alike.setdefault(key, []).append(record)
    lacking = {p for members in alike.values() for p in paths if len({p in record.settings for record in members}) > 1}
    return [path for path in dict.fromkeys([*always, *varying, *sorted(lacking)]) if path != "data.dataset"]


def compared_paths(records: Sequence[Record], always: Sequence[str] = ()) -> list[str]:
    """Return `varying_paths` without what varies between data sets alone, as their augmentation may."""
    within = {path for members in by_dataset(records).values() for path in varying_paths(members)}
    present = {path for record in records for path in record.settings}
    return [p for p in varying_paths(records, always) if p in within or (p in always and p in present)]
