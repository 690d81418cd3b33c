"""Workdirs of machines that share no file system become one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from capsnet_jax.config import ConfigError
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.checkpoint import is_damaged
from capsnet_jax.sweeps.files import append_lines, read_lines, write_bytes
from capsnet_jax.sweeps.plan import counted
from capsnet_jax.sweeps.records import Record, params_path, run_folder
from capsnet_jax.sweeps.train import checkpoint_folder


def merge(folders: Sequence[Path], workdir: Path) -> None:
    """Take the finished runs of workdirs into another, with parameters and observations; say what was taken.

    Of a run that several have, the one that was recorded last counts; one without its parameters counts less. What is
    damaged is named and left out. Checkpoints of runs that are not finished stay where they are. The folders are only
    read. A merge that was killed may be repeated: a run's record is written after its files.

    Args:
        folders: workdirs.
        workdir: made where missing.

    Raises:
        ConfigError: a folder holds no records, or is the workdir itself.
    """
    if not folders:
        raise ConfigError("--merge names no workdir; say --merge=DIR,DIR")
    for folder in folders:
        if not (folder / "runs.jsonl").exists():
            raise ConfigError(f"--merge: {folder} holds no runs.jsonl; name workdirs with finished runs")
        if workdir.exists() and folder.resolve() == workdir.resolve():
            raise ConfigError(f"--merge: {folder} is the --workdir itself; leave it out")
    records.set_damaged_records_aside(workdir)
    for folder in folders:
        print(_take(folder, workdir), flush=True)


def _take(folder: Path, workdir: Path) -> str:
    """Take the runs of one folder; return what to tell of it."""
    have, theirs = records.load_all(workdir), records.load_all(folder)
    lines = {line["name"]: line for line in read_lines(folder / "runs.jsonl") if line.get("name") in theirs}
    taken, damaged = 0, []
    for name, record in theirs.items():
        if is_damaged(params_path(folder, name)):
            damaged.append(name)
        elif name not in have or _worth(record) > _worth(have[name]):
            _copy(record.folder, run_folder(workdir, name))
            append_lines(workdir / "runs.jsonl", [lines[name]])
            taken += 1
    for path in sorted(folder.glob("*.jsonl")):
        if path.name not in ("runs.jsonl", "programs.jsonl"):
            known = read_lines(workdir / path.name)
            if new := [line for line in read_lines(path) if line not in known]:
                append_lines(workdir / path.name, new)
    parts = [f"{folder}: {taken} of {len(theirs)} runs taken"]
    parts += [f"{len(theirs) - taken - len(damaged)} were here already"] if taken + len(damaged) < len(theirs) else []
    parts += [f"left out, as their parameters are damaged: {', '.join(damaged)}"] if damaged else []
    unfinished = len(_unfinished(folder, theirs))
    parts += [f"checkpoints of {counted(unfinished, 'unfinished program')} are not taken"] if unfinished else []
    return "; ".join(parts)


def _worth(record: Record) -> tuple[bool, str]:
    """Return what makes a record count more than another of the same run; a copy of it has the same."""
    return record.diverged or params_path(record.workdir, record.name).exists(), record.recorded


def _copy(source: Path, target: Path) -> None:
    """Make a folder's files those of another, each whole at any moment."""
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".partial"}
    for file in sorted(files):
        write_bytes(target / file, (source / file).read_bytes())
    for path in target.rglob("*"):
        if path.is_file() and path.relative_to(target) not in files:
            path.unlink()


def _unfinished(folder: Path, finished: Mapping[str, Record]) -> list[Path]:
    """Return the folders of checkpoints of groups in which some run has no record; one that diverged has one."""
    return [
        checkpoints
        for program in (folder / "programs").glob("*")
        for names in records.registered_groups(folder, program.name)
        if not finished.keys() >= set(names)
        and any((checkpoints := checkpoint_folder(program, names)).glob("*.safetensors"))
    ]
