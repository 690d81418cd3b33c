"""Settings compared with each other, seed by seed: which with which, and the table of differences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from capsnet_jax.models import MODELS
from capsnet_jax.overrides import format_value
from capsnet_jax.report.grouping import DATA, Setting, by_data, group, headings, shown_paths
from capsnet_jax.report.render import Table
from capsnet_jax.statistics import (
    PERCENT,
    PairedDifference,
    cut_label,
    describe_interval,
    holm,
    is_cut,
    mcnemar,
    paired_difference,
)
from capsnet_jax.sweeps.records import Record
from capsnet_jax.sweeps.varying import compared_paths

LIMITS = (-PERCENT[1], PERCENT[1])  # of a difference of errors


class Comparison(NamedTuple):
    """A setting and the one that it is compared with; they differ in `paths` and share `seeds`.

    `told` are the paths that tell which one it is: `paths`, and more where another setting is the same in these.
    """

    setting: Setting
    reference: Setting
    paths: list[str]
    seeds: list[int]
    told: list[str]


def compare(settings: Sequence[Setting], baseline: Mapping[str, Any]) -> list[Comparison]:
    """Find what each setting is compared with, among those on the same data. Those that share no seed are left out.

    Args:
        settings: as `grouping.group` returns them.
        baseline: {path: value} of the setting that all others are compared with; of several such, the one with the
          fewest differences and the most seeds in common. Where it is empty, a setting is compared with one before it
          that differs from it in one path alone: if possible in a name, router with router, net with net; if possible
          not in the data; and with the one that most seeds are shared with, the first of several. A setting without
          such a one is compared with none.
    """
    comparisons = []
    for members in by_data(settings):
        for setting, reference in _with_baseline(members, baseline) if baseline else _in_one_path(members):
            if seeds := _shared_seeds(setting, reference):
                paths = differing_paths(setting, reference)
                told = [*paths, *([] if baseline else _telling_paths(setting, reference, paths, members))]
                comparisons.append(Comparison(setting, reference, paths, seeds, told))
    return comparisons


def _telling_paths(
    setting: Setting, reference: Setting, paths: Sequence[str], settings: Sequence[Setting]
) -> list[str]:
    """Return what tells a reference from others that differ from the setting in the same paths, and by the same."""
    alike = [other for other in settings if other is not setting and differing_paths(setting, other) == paths]
    alike = [other for other in alike if all(other.values[path] == reference.values[path] for path in paths)]
    differing = (
        path for other in alike for path in reference.values if other.values.get(path) != reference.values[path]
    )
    return [path for path in dict.fromkeys(differing) if path != "preset"]


def differing_paths(a: Setting, b: Setting) -> list[str]:
    """Return the paths in which two settings differ.

    A path that one of them lacks does not count, for it comes and goes with another that differs: a router has
    settings that another router does not have. Nor do the sizes of two different nets, nor the loss where each has its
    default loss, nor the preset's name.
    """
    shared = [path for path in a.values if path in b.values and path != "preset"]
    differing = [path for path in shared if a.values[path] != b.values[path]]
    if "model.name" in differing and _has_default_loss(a) and _has_default_loss(b):
        differing = [path for path in differing if path != "loss.name"]
    if "model.name" in differing:
        differing = [path for path in differing if path == "model.name" or not path.startswith("model.")]
    return differing


def difference(comparison: Comparison) -> PairedDifference:
    """Return the test error of a setting less its reference's, paired by seed."""
    errors, reference_errors = (
        [runs[seed].result.get("test_error", math.nan) for seed in comparison.seeds]
        for runs in (comparison.setting.runs, comparison.reference.runs)
    )
    return paired_difference(errors, reference_errors)


def mcnemar_p(comparison: Comparison) -> float:
    """Return the p value of McNemar's exact test on the shared test images; nan where they are not known.

    For every image the wrong answers of the paired runs are added up. An image tells for the setting with fewer of
    them, once, whatever the number of seeds: the same image in several seeds is no independent evidence.
    """
    wrong, reference_wrong = [], []
    for seed in comparison.seeds:
        a, b = comparison.setting.runs[seed].wrong, comparison.reference.runs[seed].wrong
        if a is not None and b is not None:
            wrong.append(a)
            reference_wrong.append(b)
    if not wrong or len({w.size for w in (*wrong, *reference_wrong)}) > 1:
        return math.nan
    a, b = np.sum(wrong, axis=0), np.sum(reference_wrong, axis=0)
    return mcnemar(a > b, b > a).p_value


def paired(records: Sequence[Record], swept: Sequence[str], baseline: Mapping[str, Any]) -> Table:
    """Make a row for each setting that is compared with another, with the difference of test errors.

    Args:
        records: finished runs.
        swept: paths that are shown even if they do not vary.
        baseline: as of `compare`.
    """
    comparisons = compare(group(records, swept), baseline)
    wanted = " ".join(f"{path}={format_value(value)}" for path, value in baseline.items())
    if not comparisons:
        none = f"Nothing is compared with {wanted}: on no data is there another setting that shares a seed with it."
        return Table("", [], [], [none] if baseline else [])
    compared = {"data.dataset", *compared_paths(records, swept)}
    paths = [path for path in shown_paths(records, swept) if path in compared]
    compared_alone = [path for path in paths if path not in DATA]
    references = list(dict.fromkeys(_describe(c.reference, compared_alone) for c in comparisons))
    differences = [difference(comparison) for comparison in comparisons]
    adjusted = holm([each.p_value for each in differences])
    rows = []
    for comparison, paired_by_seed, p_holm in zip(comparisons, differences, adjusted, strict=True):
        reference = [_describe(comparison.reference, comparison.told)] if len(references) > 1 else []
        p_values = [_p_text(p) for p in (paired_by_seed.p_value, p_holm, mcnemar_p(comparison))]
        rows.append([*comparison.setting.cells(paths), *reference, _difference_text(paired_by_seed), *p_values])
    header = [*headings(paths), *(["compared with"] if len(references) > 1 else [])]
    header += ["difference %", "p (paired t)", "p (Holm)", "p (McNemar)"]
    anywhere = [path for path in compared_alone if any(path in c.paths for c in comparisons)]
    other = _describe(comparisons[0].reference, anywhere) if len(references) == 1 else "the setting compared with"
    tests = sum(not math.isnan(p) for p in adjusted)
    notes = [
        f"Paired by seed, mean ± 95 % interval. Holm: p of the t test, corrected for the {tests} tests of this table."
        if tests
        else "Paired by seed. One seed gives no interval and no t test, nor do differences that are all equal.",
        "McNemar: exact test of these nets on the test images, uncorrected. An image counts once, for the setting "
        "that errs on it in fewer of the paired runs. Empty: not known.",
    ]
    if any(is_cut(each.mean, each.half_width, LIMITS) for each in differences):
        notes.append(f"[low, high]: {cut_label(LIMITS)}")
    return Table(f"test error less that of {other or wanted}", header, rows, notes)


def _in_one_path(settings: Sequence[Setting]) -> Iterator[tuple[Setting, Setting]]:
    for i, setting in enumerate(settings):
        nearest = [other for other in settings[:i] if len(differing_paths(setting, other)) == 1]
        if nearest:
            yield setting, min(nearest, key=partial(_drawbacks, setting))


def _drawbacks(setting: Setting, other: Setting) -> tuple[bool, bool, int]:
    """Return what is worse about comparing a setting with another that differs from it in one path, in order."""
    [path] = differing_paths(setting, other)
    return not path.endswith(".name"), path.startswith("data."), -len(_shared_seeds(setting, other))


def _with_baseline(settings: Sequence[Setting], baseline: Mapping[str, Any]) -> Iterator[tuple[Setting, Setting]]:
    has = [all(_has(setting, path, value) for path, value in baseline.items()) for setting in settings]
    references = [setting for setting, matches in zip(settings, has, strict=True) if matches]
    for setting, matches in zip(settings, has, strict=True):
        if references and not matches:
            yield setting, min(references, key=partial(_distance, setting))


def _distance(setting: Setting, reference: Setting) -> tuple[int, int]:
    """Return what is worse about a reference: how many paths differ, and few shared seeds."""
    return len(differing_paths(setting, reference)), -len(_shared_seeds(setting, reference))


def _shared_seeds(a: Setting, b: Setting) -> list[int]:
    return [seed for seed in a.runs if seed in b.runs]


def _has(setting: Setting, path: str, wanted: Any) -> bool:
    """Whether a setting has a value, which may be given as people type it."""
    if path not in setting.everything:
        return False
    value = setting.everything[path]
    if format_value(value) == format_value(wanted):
        return True
    try:
        return float(value) == float(wanted)
    except (TypeError, ValueError):
        return False


def _has_default_loss(setting: Setting) -> bool:
    """Whether a net is trained by the loss that is its own by default."""
    model = MODELS.get(setting.everything.get("model.name", ""))
    return model is not None and model.loss == setting.everything.get("loss.name")


def _describe(setting: Setting, paths: Sequence[str]) -> str:
    return " ".join(f"{path}={setting.values[path]}" for path in paths if path in setting.values)


def _difference_text(difference: PairedDifference) -> str:
    if not difference.n:
        return "no finite value (n = 0)"
    interval = describe_interval(difference.mean, difference.half_width, limits=LIMITS)
    return f"{difference.mean:+z.2f}{interval} (n = {difference.n})"


def _p_text(p: float) -> str:
    return "" if math.isnan(p) else f"{p:.2g}"
