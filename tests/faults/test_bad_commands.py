"""Commands that cannot be carried out: one line with a remedy, code 2, and nothing on the disk has changed.

They are called in this process, which is quick, each on a workdir that is not there and on one that is; a few are
started as people start them.
"""

import hashlib
import re
import shlex
from pathlib import Path

import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.sweeps import run
from tests import tiny
from tests.faults.work import SETTINGS, copied, finished

pytestmark = pytest.mark.slow

# Each line is what follows `python launch.py --workdir=…`.
COMMANDS = """
--nonsense
--seed=2
--workdirs=x
junk
junk more
-x
--seeds
--set
--sweep
--preset
--experiment=
--experiment=routing_iteration
--experiment=Routing_Iterations
--experiment=routing_iterations,loss_scale
--experiment=../cli
--experiment=cli
--dataset=
--dataset=mnst
--dataset=mnist_5k,mnist
--dataset=mnist_5k/
--dataset=../mnist
--dataset=/etc/passwd
--dataset=mnist_5k:9.9.9
--dataset=mnist_5k --set=data.dataset=mnist_5k
--set=data.dataset=mnst
--set=data.dataset=
--preset=papr
--preset=small --preset=papr
--across=both
--seeds=0
--seeds=-1
--seeds=1.5
--seeds=many
--seeds=
--seeds=1e3
--seeds=2000000000
--seeds=99999999999999999999
--first_seed=-1
--first_seed=x
--first_seed=2147483648
--first_seed=4294967296
--first_seed=99999999999999999999
--first_seed=2147483647 --seeds=2
--set=routing.iterations
--set==3
--set=routing.iterations=
--set=.=3
--set=routing=3
--set=routing.iterations=three
--set=routing.iterations=2.0
--set=routing.iterations=0
--set=routing.iterations=-1
--set=routing.iterations=101
--set=routing.iterations=1,2
--set=routing.iterations=3 --set=routing.iterations=2
--set=routing.iterations=3 --sweep=routing.iterations=1,2
--set=routing.iteration=3
--set=routing.probe=3
--set=routing.temperature=inf
--set=routing.temperature=nan
--set=routing.temperature=-1
--set=routing.gradient=none
--set=routing.softmax_over=children
--set=routing.squash=sabuor
--set=routing.name=dynamik
--set=routing.name=uniform --set=routing.temperature=2
--set=routing.iterations=1 --set=routing.gradient=stop
--set=squash=sabour
--set=preset=paper
--set=seed=3
--set=train.learning_rate=fast
--set=train.learning_rate=-1
--set=train.learning_rate=nan
--set=train.learning_rate=inf
--set=train.learning_rate=1e39
--set=train.learning_rat=1
--set=train.epochs=0
--set=train.epochs=-1
--set=train.epochs=1.5
--set=train.epochs=1e2
--set=train.epochs=300000000
--set=train.epochs=99999999999999999999
--set=train.batch_size=0
--set=train.batch_size=3601
--set=train.optimizer=adm
--set=train.schedule=cosin
--set=train.decay_rate=0.5
--set=train.warmup=1
--set=train.warmup=-0.1
--set=train.frozen=class_capsule
--set=train.frozen=conv1+primary+class_capsules+decoder
--set=train.frozen=+
--set=train.ema_epochs=-1
--set=train.weight_decay=x
--set=data.train_size=-1
--set=data.train_size=3601
--set=data.train_size=31
--set=data.label=digit
--set=data.validation_fraction=1
--set=data.validation_fraction=0.95
--set=data.validation_fraction=-0.1
--set=data.max_shift=-1
--set=data.max_shift=65
--set=data.flip=maybe
--set=data.transform=mirrored
--set=model.name=capsnet_smal
--set=model.name=
--set=model.name=resnet8 --set=routing.iterations=2
--set=model.name=sabour_cnn --set=model.kernel=5
--set=model.kernel=20
--set=model.kernel=29
--set=model.kernel=0
--set=model.channels=0
--set=model.channels=x
--set=model.channels=99999999999999999999
--set=model.capsule_types=0
--set=model.primary_dim=0
--set=model.decoder=8x
--set=model.decoder=x8
--set=model.decoder=0
--set=model.decoder=8,16
--set=model.precision=float8
--set=model.squash=none
--set=loss.name=hinge
--set=loss.form=papers
--set=loss.reconstruction=yes
--set=loss.m_plus=2
--set=loss.m_minus=-1
--set=loss.down_weight=-1
--set=loss.reconstruction=false --set=loss.reconstruction_weight=1
--set=finetune.source=mnst
--set=finetune.lr_multiplier=0.1
--set=finetune.source=mnist_5k --set=finetune.reinitialize=nothing
--set=eval.max_routing_iterations=21
--set=eval.max_routing_iterations=-1
--sweep=eval.max_routing_iterations=1,2
--sweep=routing.iterations
--sweep=routing.iterations=
--sweep=routing.iterations=1,101
--sweep=routing.iterations=1,,2
--sweep=routing.iterations=1 --sweep=routing.iterations=2
--sweep=lr=0.1 --sweep=train.learning_rate=0.2
--sweep=train.learning_rat=1,2
--sweep=train.learning_rate=0.1,fast
--sweep=preset=small,paper
--sweep=routing.name=dynamic,unform
--sweep=model.name=cnn_small,sabour_cnn --set=model.kernel=2
--sweep=model.kernel=9,29
--sweep=train.batch_size=32,4000
--sweep=data.dataset=mnist_5k,mnst
--baseline=lr=1,2
--baseline=routing.iteration=3
--baseline=routing.iterations
--baseline=routing.iterations=3 --baseline=routing.iterations=1
--list --describe=capsnet
--list --seeds=3
--list --set=lr=1
--settings --figures_only
--settings --seeds=2
--settings --set=lr=x
--describe=capsnt
--describe=
--describe=capsnet --set=nonsense
--describe=capsnet --set=model.channels=1,2
--describe=capsnet --set=model.name=resnet8
--describe=capsnet --seeds=2
--describe=capsnet --experiment=loss_scale
--describe=capsnet,capsnt
--figures_only --report
--figures_only --rerun
--figures_only --seeds=2
--figures_only --set=lr=1
--figures_only --sweep=lr=1,2
--figures_only --experiment=nope
--figures_only --experiment=loss_scale
--figures_only --figure_format=jpg
--figures_only --baseline=lr=1,2
--report --experiment=loss_scale
--report --predict=x.png
--predict=
--predict=missing.png
--predict=/
--predict=/dev/null
--predict=pyproject.toml
--invert
--as_is
--predict=missing.png --set=lr=1
--figure_format=bmp
--experiment=ilsvrc_evolution --dataset=nope
--experiment=ilsvrc_evolution --seeds=3
--experiment=ilsvrc_evolution --rerun
--experiment=ilsvrc_evolution --set=model.channels=3
--experiment=throughput --seeds=3
--experiment=conv_baselines --sweep=train.frozen=none,nothing
--experiment=routing_diagnostics --set=model.name=resnet8
--experiment=routing_diagnostics --set=data.validation_fraction=0
--experiment=capsule_dimensions --set=loss.reconstruction=false
--experiment=capsule_dimensions --set=model.name=cnn_small
--predict=tests/faults
--predict=missing.png --model=tests
--export=
--export=/
--export=tests
--export=pyproject.toml
--export=new --model=squeezenet
--export=new --predict=x.png
--start_from=
--start_from=missing
--start_from=tests
--start_from=pyproject.toml
--start_from=a,b
--start_from=tests --predict=x.png
--experiment=throughput --start_from=tests
"""
LINES = [shlex.split(line) for line in COMMANDS.strip().splitlines()]

# A line of one of these forms tells what to do: "mistake; remedy", or a mistake that names what is right.
REMEDY = re.compile(
    r"[;:] .*\w|did you mean|should be one of|takes |is now called|from -?\d+ to|of at least|one of |write |use --|"
    r"see |leave out|does not use|has no .*; it has|are two tasks"
)


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file and folder with its contents and time of change."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder",
            path.stat().st_mtime_ns,
        )
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a finished workdir in it."""
    place = tmp_path_factory.mktemp("commands")
    copied(finished(), place / "there")
    return place


@pytest.fixture(autouse=True)
def trains_nothing(monkeypatch):
    """A command that is not refused would train for minutes."""

    def train_all(runs, plan, datasets):
        raise ConfigError("it would train now")

    monkeypatch.setattr(run, "train_all", train_all)


@pytest.mark.parametrize("line", LINES, ids=[shlex.join(line) for line in LINES])
def test_a_bad_command_is_one_line_and_changes_nothing(line, place, capsys, monkeypatch):
    monkeypatch.setenv("CAPSNET_JAX_CACHE", str(tiny.shared() / "faults" / "cache"))
    before = snapshot(place)
    for workdir in ("new", "there"):
        code, out, error = tiny.call(capsys, f"--workdir={place / workdir}", *line)
        assert "it would train now" not in error
        assert (code, out) == (2, ""), (code, out, error)
        assert error.endswith("\n")
        assert error.count("\n") == 1, error
        assert len(error) < 1000
        assert REMEDY.search(error), error
        assert snapshot(place) == before


def test_refused_sweeps_add_nothing_to_a_table(place, capsys):
    """The sweep is known, but one of its values cannot be trained."""
    before = snapshot(place)
    for swept in ("--sweep=model.kernel=9,29", "--sweep=data.train_size=64,3601", "--sweep=train.batch_size=32,65"):
        settings = [word for word in SETTINGS if swept.split("=")[1] not in word]
        code, _, error = tiny.call(capsys, *settings, "--seeds=2", swept, f"--workdir={place / 'there'}")
        assert (code, error.count("\n")) == (2, 1), error
        assert snapshot(place) == before


@pytest.mark.parametrize("number", [0, 60, 100])
def test_real_commands_say_the_same(number, place, capsys):
    arguments = [f"--workdir={place / 'there'}", *LINES[number]]
    before = snapshot(place)
    done = tiny.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == tiny.call(capsys, *arguments)
    assert snapshot(place) == before
