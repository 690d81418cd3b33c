import dataclasses
from pathlib import Path
from types import ModuleType

import pytest

from capsnet_jax import overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.report import pages
from capsnet_jax.report.docstrings import question_and_prose
from capsnet_jax.sweeps import records
from tests.report.finished import run

DOC = """Do more iterations help?

Claim: they do
not, by *no* means.

    python launch.py --experiment=study
    python launch.py --experiment=study --dataset=mnist --seeds=5 --set train.epochs=12 \
        --set loss.reconstruction=false --sweep routing.iterations=1,3

    python launch.py --list

Beside them:

    cnn    0.9 M
    mlp    1.0 M
"""


def experiment(doc: str = DOC, **names) -> ModuleType:
    module = ModuleType("study", doc)
    vars(module).update(names)
    return module


@pytest.fixture
def workdir(tmp_path) -> Path:
    """One experiment of four runs, and a figure of it and of another."""
    finished = [run(seed, r + seed / 4, routing__iterations=r) for r in (1, 3) for seed in (0, 1)]
    for one in finished:
        one.environment.update(platform="Linux x86_64")
    records.append(finished, tmp_path)
    asked = [records.Run(overrides.build({"routing.iterations": r}), seed) for r in (1, 3) for seed in (0, 1)]
    records.note_experiment(tmp_path, "study", asked, ["routing.iterations"])
    (tmp_path / "figures").mkdir()
    for name in ("study-changes-kmnist", "study-learning_curves", "study_too-learning_curves"):
        (tmp_path / "figures" / f"{name}.png").write_bytes(b"")
    return tmp_path


def test_a_page_tells_question_claim_commands_tables_and_runs(workdir):
    readme, page = pages.write(workdir, pages.compose(workdir, {"other": experiment(), "study": experiment()}))
    assert (readme, page) == (workdir / "README.md", workdir / "study.md")
    text = page.read_text()
    assert text.startswith("# study\n\n<!-- Made by ")
    assert "\n\n**Do more iterations help?**\n\nClaim: they do\nnot, by *no* means.\n\n```bash\npython launch" in text
    assert "\n| mnist_5k | 10 | 1 | 1.12 [0.00, 2.71] (n = 2) | 2.00 ± 0.00 (n = 2) | " in text
    assert (
        "\n\n**test error less that of routing.iterations=1**\n\n| dataset | routing.iterations | difference %" in text
    )
    assert "\n| mnist_5k | 3 | +2.00 ± 0.00 (n = 2) |  |  |  |\n" in text
    facts = ["4 runs, seeds 0 to 1", "code of revision 0123456 (4 runs)"]
    facts.append("machines: cpu, 2 cores, Linux x86_64, JAX 0.10.2 (4 runs)")
    assert "\n".join(f"- {fact}" for fact in facts) in text
    assert "\n- each run's results: [study.csv](study.csv)\n" in text
    assert (workdir / "study.csv").read_text().count("\nmnist_5k,small,") == 4
    assert "| [study](study.md) | Do more iterations help? | 4 runs |\n" in readme.read_text()
    assert "other" not in readme.read_text()
    assert not (workdir / "other.md").exists()


def test_figures_have_their_captions_and_stand_in_their_order(workdir):
    plain, captioned = experiment(), experiment(CAPTIONS={"learning_curves": "by epoch.", "changes": "by iteration."})
    pages.write(workdir, pages.compose(workdir, {"study": plain}))
    changes, curves = "![Changes (kmnist)](figures/study-changes-kmnist.png)", "](figures/study-learning_curves.png)"
    text = (workdir / "study.md").read_text()
    assert 0 < text.index(f"{changes}\n\n*Changes (kmnist)*") < text.index(curves)
    assert "study_too" not in text
    pages.write(workdir, pages.compose(workdir, {"study": captioned}))
    text = (workdir / "study.md").read_text()
    assert 0 < text.index(curves) < text.index(f"{changes}\n\n*Changes (kmnist): by iteration.*")


def test_the_same_records_give_the_same_bytes(workdir):
    before = {path: path.read_bytes() for path in pages.write(workdir, pages.compose(workdir, {"study": experiment()}))}
    after = {path: path.read_bytes() for path in pages.write(workdir, pages.compose(workdir, {"study": experiment()}))}
    assert before == after
    assert str(workdir) not in "".join(content.decode() for content in after.values())


@pytest.mark.parametrize("name", ["README.md", "study.md"])
@pytest.mark.parametrize("findings", ["\n\nThey do not  \r\n| a |\n\n", "in line", "\n<!-- /findings --> too\n"])
def test_findings_survive_to_the_byte(workdir, name, findings):
    pages.write(workdir, pages.compose(workdir, {"study": experiment()}))
    page = workdir / name
    empty = page.read_bytes()
    assert empty.count(b"<!-- findings -->\n<!-- /findings -->") == 1
    assert b"## Findings" not in empty
    written = f"<!-- findings -->{findings}<!-- /findings -->".encode()
    page.write_bytes(b"an old page\n" + written + b"\nmore of it")
    pages.write(workdir, pages.compose(workdir, {"study": experiment()}))
    assert page.read_bytes().count(b"## Findings\n\n" + written + b"\n\n") == 1
    assert b"old page" not in page.read_bytes()
    page.write_bytes(b"<!-- findings -->\n<!-- /findings -->")
    pages.write(workdir, pages.compose(workdir, {"study": experiment()}))
    assert page.read_bytes() == empty


@pytest.mark.parametrize("text", ["by hand", "<!-- findings -->\nno end", "<!-- /findings --><!-- findings -->"])
def test_a_page_without_markers_is_not_replaced(workdir, text):
    (workdir / "README.md").write_text(text)
    with pytest.raises(ConfigError, match=r"README\.md would be replaced"):
        pages.write(workdir, pages.compose(workdir, {"study": experiment()}))
    assert (workdir / "README.md").read_text() == text
    assert not (workdir / "study.md").exists()


def test_findings_in_another_encoding_are_one_line(tmp_path):
    (tmp_path / "study.md").write_bytes(f"{pages.BEGIN}\n± 1\n{pages.END}".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not in UTF-8; save it so"):
        pages.findings(tmp_path / "study.md")


def test_an_experiment_that_measures_shows_its_text(workdir):
    measures = experiment(
        "How fast?", report=lambda _: ("speed  2 | 3", [1, 2]), to_csv=lambda measured: f"{measured}\n"
    )
    nothing = experiment("How slow?", report=lambda folder: ("", []))
    readme, page = pages.write(workdir, pages.compose(workdir, {"speed": measures, "slowness": nothing}))
    assert "## Results\n\n```text\nspeed  2 | 3\n\nspeed.csv\n```\n" in page.read_text()
    assert (workdir / "speed.csv").read_text() == "[1, 2]\n"
    assert "| [speed](speed.md) | How fast? | measured |" in readme.read_text()
    with pytest.raises(ConfigError, match="no results in"):
        pages.write(workdir, pages.compose(workdir, {"slowness": nothing}))


def test_counts_and_a_baseline_are_the_experiments_own(workdir):
    own = {"BASELINE": {"routing.iterations": 3}, "count": lambda r: {"flops": 1e6 * r.settings["routing.iterations"]}}
    pages.write(workdir, pages.compose(workdir, {"study": experiment(**own)}))
    text = (workdir / "study.md").read_text()
    assert "| MFLOP/image |" in text
    assert "**test error less that of routing.iterations=3**" in text
    assert "| mnist_5k | 1 | -2.00" in text


def test_a_command_of_the_experiments_own_is_named(workdir):
    first, second, *_ = records.load_all(workdir).values()
    commands = [f"python launch.py --experiment={name} --seeds=1" for name in ("study_too", "study")]
    records.append([dataclasses.replace(r, command=c) for r, c in zip((first, second), commands, strict=True)], workdir)
    pages.write(workdir, pages.compose(workdir, {"study": experiment()}))
    text = (workdir / "study.md").read_text()
    assert f"for example:\n\n```bash\n{commands[1]}\n```" in text
    assert commands[0] not in text


def test_a_docstring_as_markdown():
    question, prose = question_and_prose(experiment())
    assert question == "Do more iterations help?"
    assert prose.split("\n\n")[1:] == [
        "```bash\n"
        "python launch.py --experiment=study\n"
        "python launch.py --experiment=study --dataset=mnist --seeds=5 --set train.epochs=12 \\\n"
        "    --set loss.reconstruction=false --sweep routing.iterations=1,3",
        "python launch.py --list\n```",
        "Beside them:",
        "```text\ncnn    0.9 M\nmlp    1.0 M\n```",
    ]
    assert question_and_prose(ModuleType("silent")) == ("", "")


def test_seeds_are_told_as_ranges():
    assert pages._ranges([4, 0, 1, 2, 7, 0]) == "0 to 2, 4, 7"
