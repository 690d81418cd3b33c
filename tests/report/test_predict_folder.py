"""A folder with digits, folders below, what is hidden and what is no picture."""

import csv
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from capsnet_jax.config import Data
from capsnet_jax.data import DataError
from capsnet_jax.interpret.network import restore
from capsnet_jax.report import predict_folder as predicting
from capsnet_jax.report.predict import predict
from capsnet_jax.sweeps.plan import load_data
from tests import tiny

PICTURES = ["0.png", "a/1.png", "a/b/2.png", "a/b/3.png", "z,4.png", "z5.png", "z6.png"]


@pytest.fixture(scope="module")
def net():
    return restore(tiny.study().folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "my pictures"
    images = load_data(Data()).test.images
    for image, name in zip(images, PICTURES, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0]).save(folder / name)
    (folder / "a" / "notes.txt").write_text("no picture")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:60])
    Image.new("L", (28, 28)).save(folder / "blank.png")
    (folder / ".hidden.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "a" / "link").symlink_to(folder)
    return folder


def rows(predictions):
    return list(csv.DictReader(predictions.table.splitlines()))


def test_every_file_has_a_row_and_answers_are_those_of_each_picture(net, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "BATCH", 3)  # the last batch has one picture
    predicting._scores.clear_cache()
    predictions = predicting.predict_folder(folder, net, tmp_path)
    assert predicting._scores._cache_size() == 1  # one program
    table = rows(predictions)
    others = [".hidden.png", "a/link", "a/notes.txt", "blank.png", "broken.png"]
    assert sorted(row["file"] for row in table) == sorted([*PICTURES, *others])
    assert [row["file"] for row in table if row["problem"]] == others
    for row in table:
        if row["problem"]:
            assert set(row.values()) == {row["file"], row["problem"], ""}
            continue
        text = predict(folder / row["file"], net, tmp_path).text
        assert text.startswith(f"{row['file'].rpartition('/')[2]}: {row['class']}\n")
        best = sorted(scores_of_text(text).items(), key=lambda item: -item[1])[:5]
        for place, (label, score) in enumerate(best, 1):
            assert row[f"class_{place}"] == label
            assert float(row[f"score_{place}"]) == pytest.approx(score, abs=6e-4)
        assert (row["unsure"] == "yes") == ("UNSURE, as its score is" in text)
        assert row["confidence"] == row["score_1"]
    first, *_, unsure, problems = predictions.text.splitlines()
    assert first == "my pictures: 7 pictures"
    assert unsure.startswith(
        f"  {sum(row['unsure'] == 'yes' for row in table)} answers are unsure (an answer is unsure if"
    )
    assert problems.startswith("  5 files are no pictures: ")
    assert all(name in problems for name in others)


def scores_of_text(text):
    lines = text.split("of each class:\n")[1].splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines}


def test_the_command_writes_the_table_into_the_workdir(net, folder, tmp_path, capsys):
    workdir = shutil.copytree(tiny.study().folder, tmp_path / "work")
    code, out, error = tiny.call(capsys, f"--predict={folder}", f"--workdir={workdir}")
    predictions = predicting.predict_folder(folder, net, workdir)
    assert (code, error) == (0, "")
    assert out == f"{predictions.text}\n{predictions.path}\n"
    assert predictions.path.parent == workdir
    assert re.fullmatch(r"predictions-my_pictures_[0-9a-f]{4}\.csv", predictions.path.name)
    assert predictions.path.read_text() == predictions.table


def test_folders_of_one_name_have_a_table_each(net, folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / folder.name, symlinks=True)
    paths = [predicting.predict_folder(each, net, tmp_path).path for each in (folder, other, folder)]
    assert paths[0] == paths[2] != paths[1]


def test_more_files_than_can_be_meant_are_refused(net, folder, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"^/ holds too many files: name a folder of pictures, at most 100,000$"):
        predicting.predict_folder("/", net, tmp_path)
    monkeypatch.setattr(predicting, "MOST", 8)
    with pytest.raises(DataError, match="holds too many files"):
        predicting.predict_folder(folder, net, tmp_path)


def test_a_folder_without_pictures_is_a_mistake(net, tmp_path):
    with pytest.raises(DataError, match=r" holds no file; name a folder of pictures$"):
        predicting.predict_folder(tmp_path, net, tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        DataError, match=r"none of its 1 files can be read as a picture \(.*notes\.txt is not a picture"
    ):
        predicting.predict_folder(tmp_path, net, tmp_path)


def test_bytes_that_are_no_text_can_be_names(net, folder, tmp_path):
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    shutil.copy(folder / "0.png", tmp_path / name)
    predictions = predicting.predict_folder(tmp_path, net, tmp_path)
    assert [row["file"] for row in rows(predictions)] == ["caf\\xe9.png"]
    (tmp_path / name).with_suffix(".txt").write_text("no picture, so that its name is in the column `problem` too")
    (tmp_path / "two\nlines.txt").write_text("x")
    predictions = predicting.predict_folder(tmp_path, net, tmp_path)
    path = predictions.save()
    with path.open(encoding="utf-8", newline="") as file:
        found = {row["file"]: row["problem"] for row in csv.DictReader(file)}
    assert list(found) == ["caf\\xe9.png", "caf\\xe9.txt", "two\nlines.txt"]
    assert "caf\\xe9.txt is not a picture" in found["caf\\xe9.txt"]
    assert "two lines.txt; the table" in predictions.text


def test_scores_are_those_of_the_network(net, folder, tmp_path):
    """As the picture is, without cropping: the model's own lengths of the file's bytes."""
    predictions = predicting.predict_folder(folder / "a" / "b", net, tmp_path, as_is=True)
    images = np.stack([np.asarray(Image.open(folder / name))[..., None] for name in ("a/b/2.png", "a/b/3.png")])
    lengths = np.asarray(net.outputs(images)["lengths"])
    assert [float(row["confidence"]) for row in rows(predictions)] == pytest.approx(lengths.max(axis=1), abs=6e-5)
