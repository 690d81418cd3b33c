import csv
import dataclasses
import math
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys

import pytest
from absl import flags

import launch  # noqa: F401 - defines the flags
from capsnet_jax import overrides
from capsnet_jax.config import PRESETS, Eval
from capsnet_jax.data import DATASETS
from capsnet_jax.models import MODELS
from capsnet_jax.routing import ROUTERS
from experiments import EXPERIMENTS
from tests import tiny

HEAVY = {"jax", "flax", "optax", "safetensors", "matplotlib", "tensorflow_datasets", "PIL", "scipy", "tensorboardX"}


def imports(*arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Runs launch.py; also returns the top-level packages that it imported."""
    line = [sys.executable, "-X", "importtime", "launch.py", *arguments]
    done = subprocess.run(line, cwd=tiny.ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done, {row.rsplit("|", 1)[-1].strip().split(".")[0] for row in done.stderr.splitlines() if "|" in row}


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are asked for as glibc wants it")
@pytest.mark.parametrize("already", [None, "glibc.malloc.check=0"])
def test_the_same_process_starts_anew_with_large_pages(already):
    start = "import launch, os, sys; print(os.getpid()); launch.take_large_pages()"
    code = f"{start}; print(os.environ['GLIBC_TUNABLES'], *sys.argv)"
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    environment |= {} if already is None else {"GLIBC_TUNABLES": already}
    line = [sys.executable, "-u", "-c", code, "--seeds=2", "a b"]
    done = subprocess.run(line, cwd=tiny.ROOT, capture_output=True, text=True, timeout=60, check=True, env=environment)
    *numbers, last = done.stdout.splitlines()
    assert len(numbers) == (2 if already is None else 1)
    assert len(set(numbers)) == 1
    assert last == f"{already or 'glibc.malloc.hugetlb=1'} -c --seeds=2 a b"


def test_help():
    done, imported = imports("--help")
    for flag in ("experiment", "dataset", "preset", "seeds", "set", "sweep", "workdir", "figures_only", "predict"):
        assert re.search(rf"^\s+(-\w,)?--(\[no\])?{flag}:", done.stdout, re.MULTILINE), flag
    assert "python launch.py --describe=capsnet " in done.stdout
    assert "absl" in imported
    assert not imported & (HEAVY | {"numpy", "capsnet_jax", "experiments"})


def test_help_is_no_mistake():
    done, _ = imports("--help")
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--list", "--settings"])
def test_a_reader_who_has_seen_enough_is_no_mistake(flag):
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "launch.py", flag]
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            line, cwd=tiny.ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_list_names_everything():
    done, imported = imports("--list")
    assert done.returncode == 0
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert listed == {*EXPERIMENTS, *MODELS, *ROUTERS, *DATASETS}
    for line in done.stdout.splitlines():
        assert not line.startswith("  ") or len(line.split()) > 3, line  # each with some words on it
    assert not imported & {"matplotlib", "tensorflow_datasets", "PIL", "scipy", "tensorboardX"}


def test_one_report_of_several_workdirs(capsys, tmp_path):
    one, other = (tmp_path / name for name in ("one", "other"))
    for folder in (one, other):
        shutil.copytree(tiny.study().folder, folder)
    (one / "report.html").unlink()
    assert tiny.call(capsys, f"--report={one},{other}") == (0, f"{one}/report.html\n", "")
    text = (one / "report.html").read_text(encoding="utf-8")
    assert all(f"routing_iterations in {folder}</h1>" in text for folder in (one, other))
    assert not (one / "README.md").exists()
    code, _, error = tiny.call(capsys, f"--report={one}", f"--workdir={other}")
    assert (code, error) == (2, f"--report={one} names its workdirs; leave out --workdir\n")
    code, _, error = tiny.call(capsys, f"--report={one},")
    assert (code, error) == (2, f"--report={one}, names an empty workdir; leave out a comma\n")
    code, _, error = tiny.call(capsys, f"--report={one},two\nlines")  # a file's name may have several
    assert (code, error) == (2, "no results in two lines; name the --workdir of finished runs\n")
    code, _, error = tiny.call(capsys, f"--report={one},{tmp_path / 'none'}")
    assert (code, error) == (2, f"no results in {tmp_path / 'none'}; name the --workdir of finished runs\n")


def test_every_preset_can_be_asked_for():
    assert list(flags.FLAGS["preset"].parser.enum_values) == list(PRESETS)


def test_settings_are_all_told(capsys):
    code, out, _ = tiny.call(capsys, "--settings")
    assert code == 0
    first = overrides.from_preset("small", {"routing.iterations": 1})
    listed = [line.split("=")[0] for line in out.splitlines() if re.match(r"[a-z_.]+=", line)]
    assert set(listed) == {*overrides.flatten(first), *(f"eval.{field.name}" for field in dataclasses.fields(Eval))}
    assert re.search(r"^train\.learning_rate=0\.003 .*\(a number of at least 0\)$", out, re.MULTILINE)
    assert re.search(r"^train\.schedule=cosine .*\(one of exponential, cosine, halving\)$", out, re.MULTILINE)
    assert re.search(r"^model\.decoder=256x512 .*as 512x1024\)?", out, re.MULTILINE)


def test_settings_in_force_follow_the_flags(capsys):
    _, out, _ = tiny.call(capsys, "--settings", "--preset=paper", "--set=epochs=3", "--dataset=mnist")
    for text in ("train.learning_rate=0.0025", "train.epochs=3", "data.dataset=mnist ", "model.decoder=512x1024"):
        assert re.search(rf"^{re.escape(text)}", out, re.MULTILINE), text
    _, out, _ = tiny.call(capsys, "--settings", "--experiment=conv_baselines", "--set=model.name=cnn_small")
    assert "routing." not in out


def test_describe(capsys):
    code, out, _ = tiny.call(capsys, "--describe=capsnet")
    assert code == 0
    assert "total 8,215,568 parameters" in out


MISTAKES = [
    (["--nonsense"], "Unknown command line flag 'nonsense'"),
    (["junk", "more"], "junk more is not a flag"),
    (["--experiment=routing_iteration"], "did you mean 'routing_iterations'?"),
    (["--dataset=mnst"], "no dataset is named 'mnst'; did you mean mnist"),
    (["--set=data.dataset=mnst"], "no dataset is named 'mnst'; did you mean mnist"),
    (["--set=model.name=capsnet_smal"], "model.name has no 'capsnet_smal'; did you mean 'capsnet_small'?"),
    (["--sweep=routing.name=dynamic,unform"], "routing.name has no 'unform'; did you mean 'uniform'?"),
    (["--describe=capsnt"], "--describe has no 'capsnt'; did you mean 'capsnet'?"),
    (["--preset=papr"], "--preset=papr: value should be one of <small|paper|sabour2017|released>"),
    (["--across=both"], "--across=both: value should be one of <auto|map|vmap>"),
    (["--set=preset=paper"], "use --preset"),
    (["--set=routing.iteration=3"], "unknown setting 'routing.iteration'; did you mean 'routing.iterations'?"),
    (["--set=squash=sabour"], "squash is the name of several settings: model.squash, routing.squash"),
    (["--set=routing.probe=3"], "routing.probe is now called eval.max_routing_iterations"),
    (["--sweep=eval.max_routing_iterations=1,2"], "eval.max_routing_iterations changes no run"),
    (["--sweep=train.learning_rat=1,2"], "did you mean 'train.learning_rate'?"),
    (["--set=routing.iterations=three"], "routing.iterations takes a whole number from 1 to 100, not 'three'"),
    (["--set=routing.iterations=2.0"], "routing.iterations takes a whole number from 1 to 100, not '2.0'"),
    (["--set=routing.iterations=0"], "from 1 to 100, not '0'"),
    (["--sweep=routing.iterations=1,101"], "from 1 to 100, not '101'"),
    (["--set=train.learning_rate=fast"], "train.learning_rate takes a number of at least 0, not 'fast'"),
    (["--set=train.learning_rate=-1"], "of at least 0, not '-1'"),
    (["--set=train.learning_rate=nan"], "of at least 0, not 'nan'"),
    (["--set=routing.gradient=none"], "one of full, stop, not 'none'"),
    (["--set=loss.reconstruction=yes"], "loss.reconstruction takes true or false, not 'yes'"),
    (["--set=model.decoder=8x"], "whole numbers as 512x1024"),
    (["--set=routing.iterations=1,2"], "gives 2 values; compare them with --sweep routing.iterations=1,2"),
    (["--describe=capsnet", "--set=model.channels=1,2"], "--set model.channels=1,2 gives 2 values"),
    (["--figures_only", "--baseline=lr=1,2"], "--baseline train.learning_rate=1,2 gives 2 values; name one"),
    (
        ["--sweep=lr=1,2", "--sweep=train.learning_rate=3"],
        "train.learning_rate is given twice; give all values at once",
    ),
    (["--set=lr=1", "--set=lr=1"], "train.learning_rate is given twice; leave out one"),
    (["--set=lr=1", "--sweep=lr=1,2"], "train.learning_rate is set and swept; leave out one of them"),
    (["--dataset=mnist", "--sweep=data.dataset=mnist_5k,kmnist"], "data.dataset is set and swept"),
    (["--dataset=mnist", "--set=data.dataset=mnist"], "data.dataset is given twice"),
    (["--list"], "--list does not use --workdir; leave it out"),
    (["--figures_only", "--report"], "--report and --figures_only are two tasks"),
    (["--figures_only", "--seeds=2"], "--figures_only does not use --seeds; leave it out"),
    (["--describe=capsnet", "--preset=paper"], "--describe does not use --preset"),
    (["--invert"], "training does not use --invert"),
    (["--experiment=ilsvrc_evolution", "--seeds=2"], "ilsvrc_evolution, which trains nothing, does not use --seeds"),
    (["--experiment="], "--experiment is empty"),
    (["--set=routing.iterations"], "write path=value"),
    (["--sweep=routing.iterations"], "write path=value"),
    (["--sweep=routing.iterations="], "write path=value"),
    (["--seeds=0"], "--seeds=0"),
    (["--seeds=many"], "--seeds=many"),
    (["--first_seed=-1"], "--first_seed=-1"),
    (["--set=train.batch_size=3601"], "train.batch_size=3601 is more than the 3600 training images of mnist_5k"),
    (["--set=data.train_size=3601"], "train_size=3601 is more than the 3600 training examples"),
    (["--set=data.label=digit"], "mnist_5k has one label"),
    (
        ["--set=model.kernel=20"],
        "on mnist_5k: images of 9×9 are too small for a 20×20 kernel",
    ),
    (["--set=model.kernel=29"], "images of 28×28 are too small for a 29×29 kernel"),
    (
        ["--set=model.name=sabour_cnn", "--set=model.kernel=5"],
        "sabour_cnn has no model.kernel; it has",
    ),
    (
        ["--sweep=model.name=cnn_small,sabour_cnn", "--set=model.kernel=2"],
        "cnn_small has no model.kernel",
    ),
    (
        ["--set=routing.name=uniform", "--set=routing.temperature=2"],
        "uniform has no routing.temperature",
    ),
    (
        ["--set=model.name=resnet8", "--set=routing.iterations=2"],
        "resnet8 has no routing.iterations; it does not route",
    ),
    (["--set=routing.iterations=1", "--set=routing.gradient=stop"], "routing.gradient (through all iterations, or"),
    (["--set=train.frozen=class_capsule"], "train.frozen has no 'class_capsule'; did you mean 'class_capsules'?"),
    (["--set=train.frozen=conv1+primary+class_capsules+decoder"], "leaves nothing to train"),
    (["--figures_only"], "no finished run of routing_iterations in"),
    (["--predict=digit.png"], "no finished run in"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_before_anything_is_trained(arguments, message, capsys, tmp_path):
    workdir = [] if any(word.startswith("--describe") for word in arguments) else [f"--workdir={tmp_path / 'work'}"]
    code, out, error = tiny.call(capsys, *workdir, *arguments)
    assert message in error
    assert (code, out, error.count("\n"), error[-1:]) == (2, "", 1, "\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--nonsense"], pytest.param(["--set=model.kernel=20"], marks=pytest.mark.slow)])
def test_a_real_command_says_the_same(arguments, capsys, tmp_path):
    arguments = [f"--workdir={tmp_path}", *arguments]
    done = tiny.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == tiny.call(capsys, *arguments)


def test_a_set_that_is_not_prepared_is_one_line(capsys, tmp_path, monkeypatch):
    def unreachable(*_arguments, **_keywords):
        raise socket.gaierror("this test has no network")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
    monkeypatch.setenv("CAPSNET_JAX_CACHE", str(tmp_path / "cache"))
    code, _, error = tiny.call(capsys, "--dataset=kmnist", f"--workdir={tmp_path / 'work'}")
    assert (code, error.count("\n")) == (2, 1)
    assert f"kmnist is not prepared in {tmp_path / 'sets'}" in error
    assert "tfds build kmnist" in error
    assert not (tmp_path / "work").exists()


def test_pictures_that_are_none(capsys, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    for path in (text, tmp_path / "missing.png", tmp_path):
        code, out, error = tiny.call(capsys, f"--predict={path}", f"--workdir={tiny.study().folder}")
        assert (code, out, error.count("\n")) == (2, "", 1)
        picture = text if path == tmp_path else path  # the only file of the folder
        assert f"{picture} is not a picture that can be read" in error


def test_a_workdir_that_cannot_be_written_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, error = tiny.call(capsys, *tiny.STUDY, f"--workdir={tmp_path / 'file'}")
    assert (code, error.count("\n")) == (3, 1)
    assert f"{tmp_path / 'file'}/experiments.jsonl: Not a directory; name a folder" in error


def table() -> list[dict[str, str]]:
    with (tiny.study().folder / "routing_iterations.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_csv_has_a_row_for_each_setting_and_seed():
    rows = table()
    assert {"dataset", "preset", "seed", "epochs", "routing.iterations", "test_error"} <= set(rows[0])
    assert [row["routing.iterations"] + row["seed"] for row in rows] == ["10", "11", "20", "21"]
    assert {(row["dataset"], row["preset"], row["epochs"]) for row in rows} == {("mnist_5k", "small", "3")}
    results = {(r.settings["routing.iterations"], r.seed): r for r in runs().values()}
    for row in rows:
        result = results[int(row["routing.iterations"]), int(row["seed"])].result
        for name, value in result.items():
            assert float(row[name]) == pytest.approx(value, rel=1e-5), name
        assert 0 < float(row["test_error"]) < 100


def runs():
    return tiny.runs(tiny.study().folder)


def test_the_table_shows_mean_and_interval_over_seeds():
    printed = tiny.study().printed
    for iterations in ("1", "2"):
        for name in ("test_error", "validation_error"):
            values = [float(row[name]) for row in table() if row["routing.iterations"] == iterations]
            half = 12.7062 * statistics.stdev(values) / math.sqrt(2)  # Student's t for two values
            mean = statistics.mean(values)
            low, high = max(mean - half, 0), min(mean + half, 100)  # errors are from 0 to 100 %
            cut = (low, high) != (mean - half, mean + half)
            interval = f"[{low:.2f}, {high:.2f}]" if cut else f"± {half:.2f}"
            wanted = f"{mean:.2f} {interval} (n = 2)"
            [line] = [line for line in printed.splitlines() if re.match(rf"mnist_5k +3 +{iterations} ", line)]
            assert wanted in line


def test_the_run_tells_epochs_time_left_and_what_it_drew():
    folder, printed = tiny.study().folder, tiny.study().printed
    for epoch in (1, 2, 3):
        assert re.search(rf"routing.iterations=2 × 2 runs · epoch {epoch}\.0/3 · .* images/s · .* left", printed)
    named = [line for line in printed.splitlines() if line.startswith(str(folder))]
    assert named[0] == f"{folder}/routing_iterations.csv"
    assert sorted(named[1:-1]) == sorted(map(str, (folder / "figures").iterdir()))
    assert named[-1] == f"{folder}/report.html"
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "routing_iterations-learning_curves.png",
        "routing_iterations-error_against_iterations.png",
        "routing_iterations-changes-mnist_5k.png",
        "routing_iterations-train_test_grid.png",
    }


@pytest.mark.slow
def test_figures_only_redraws_the_same_from_the_records(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny.study().folder, folder)
    drawn = [folder / "routing_iterations.csv", *(folder / "figures").iterdir()]
    before = {path: path.read_bytes() for path in drawn}
    for path in drawn:
        path.unlink()
    printed = tiny.succeed("--figures_only", f"--workdir={folder}")
    assert {path: path.read_bytes() for path in drawn} == before
    assert "images/s ·" not in printed
    assert all(str(path) in printed for path in drawn)
    for path in drawn[1:]:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_no_module_starts_a_device_when_it_is_imported():
    """A device has threads, and a process that is forked then may hang; flags of JAX would come too late, too."""
    modules = ["capsnet_jax.report.pages", "capsnet_jax.report.inspection", "experiments.cli", *EXPERIMENTS.values()]
    imports = "; ".join(f"import {name}" for name in modules)
    code = f"import jax, jax._src.xla_bridge as bridge; {imports}; print(bridge.backends_are_initialized())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tiny.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
