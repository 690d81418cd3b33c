import errno
import os

import pytest
from PIL import Image

from capsnet_jax.data import DataError, describe, dimensions, fingerprint, full_name, load, picture, short_name, slug
from tests.data.test_cache import no_home

COLOURS = {"blue ones": (0, 0, 255), "red ones": (255, 0, 0)}


def save(file, colour, size=(8, 8)):
    file.parent.mkdir(parents=True, exist_ok=True)
    mode = "L" if isinstance(colour, int) else "RGB"
    Image.new(mode, size, colour).save(file)
    return file


@pytest.fixture
def folder(tmp_path):
    """Two classes of five pictures each; every picture is of its class's colour, with a grey of its own in a corner."""
    for name, colour in COLOURS.items():
        for index in range(5):
            file = save(tmp_path / "my pictures" / name / f"{index}.png", colour)
            picture = Image.open(file)
            picture.putpixel((0, 0), (50 * index,) * 3)
            picture.save(file)
    return tmp_path / "my pictures"


def test_a_folder_is_a_set_of_its_sub_folders(folder, capsys):
    for _ in range(2):  # decoded, and from the cache
        data = load(f"folder:{folder}", image_size=8, validation_fraction=0.25)
        assert data.label_names == ("blue ones", "red ones")
        assert [len(split.labels) for split in (data.train, data.validation, data.test)] == [6, 2, 2]
        seen = []
        for images, labels in (data.train, data.validation, data.test):
            for image, label in zip(images, labels, strict=True):
                assert image[5, 5].tolist() == list(COLOURS[data.label_names[label]])
                seen.append((int(label), int(image[0, 0, 0])))
        assert sorted(seen) == [(k, 50 * index) for k in (0, 1) for index in range(5)]
    assert f"note: folder:{folder} has no test split: 20% of each class are test" in capsys.readouterr().err
    assert describe(f"folder:{folder}", image_size=12).image_shape == (12, 12, 3)
    assert dimensions(f"folder:{folder}") == ((28, 28, 3), 2)


def test_splits_of_its_own_and_numbered_classes_in_their_order(tmp_path, capsys):
    for split, count in (("train", 3), ("validation", 2), ("test", 1)):
        for name in ("2", "10", "1"):
            for index in range(count):
                save(tmp_path / "digits" / split / name / "deeper" / f"{index}.bmp", 10 * int(name) + index)
    save(tmp_path / "digits" / "extra" / "x.png", 5)
    data = load(f"folder:{tmp_path}/digits", image_size=4)
    assert data.label_names == ("1", "2", "10")
    assert data.image_shape == (4, 4, 1)  # grey stays grey
    for split, count in ((data.train, 3), (data.validation, 2), (data.test, 1)):
        expected = [10 * number + index for number in (1, 2, 10) for index in range(count)]
        assert sorted(split.images[:, 0, 0, 0].tolist()) == sorted(expected)
        assert [int(data.label_names[label]) for label in split.labels] == (split.images[:, 1, 1, 0] // 10).tolist()
    assert "digits: 1 files are left out: extra is hidden or in no class\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names", [("Training", "Testing", "val"), ("TRAIN", "Test", "Validation"), ("train", "testing", "valid")]
)
def test_splits_are_known_by_their_common_names(names, tmp_path, capsys):
    for count, split in enumerate(names, 1):
        for name in ("cats", "dogs"):
            for index in range(count):
                save(tmp_path / "pets" / split / name / f"{index}.png", 10 * count)
    data = load(f"folder:{tmp_path}/pets", image_size=4)
    assert data.label_names == ("cats", "dogs")
    for count, examples in enumerate((data.train, data.test, data.validation), 1):
        assert examples.images[:, 0, 0, 0].tolist() == [10 * count] * 2 * count
    assert "note" not in capsys.readouterr().err
    save(tmp_path / "pets" / ("val" if names[2] == "valid" else "valid") / "cats" / "0.png", 0)
    with pytest.raises(DataError, match=rf"pets: of {names[0]}, .*{names[2]}.*, two name the same part; put what"):
        load(f"folder:{tmp_path}/pets", image_size=4)


def test_without_a_test_part_test_is_a_fifth_of_train_and_validation_stays(tmp_path):
    for split, count in (("train", 5), ("val", 2)):
        for name in ("cats", "dogs"):
            for index in range(count):
                save(tmp_path / "pets" / split / name / f"{index}.png", count)
    data = load(f"folder:{tmp_path}/pets", image_size=4)
    assert [len(split.labels) for split in (data.train, data.validation, data.test)] == [8, 4, 2]
    assert (data.test.images == 5).all()


def test_one_picture_in_colour_makes_all_of_them_rgb(tmp_path):
    for name in "ab":
        for index in range(3):
            save(tmp_path / "greys" / name / f"{index}.png", 100)
    assert load(f"folder:{tmp_path}/greys", image_size=4).image_shape == (4, 4, 1)
    save(tmp_path / "greys" / "b" / "3.png", (100, 100, 101))
    data = load(f"folder:{tmp_path}/greys", image_size=4)
    assert data.image_shape == (4, 4, 3)
    assert (data.train.images[..., 0] == 100).all()


def test_pictures_are_upright_and_cropped_to_their_middle_as_those_to_classify(folder):
    picture = Image.new("RGB", (16, 8), (0, 255, 0))
    picture.paste((255, 255, 255), (4, 0, 12, 4))
    exif = Image.Exif()
    exif[274] = 3  # upside down
    picture.save(folder / "red ones" / "0.png", exif=exif)
    images = load(f"folder:{folder}", image_size=8, validation_fraction=0.0)
    found = [image for image in (*images.train.images, *images.test.images) if image[0, 0].tolist() == [0, 255, 0]]
    assert len(found) == 1
    assert (found[0][4:] == 255).all()


def test_what_is_no_picture_is_named_and_counted_at_every_load(folder, capsys):
    (folder / "blue ones" / "notes.txt").write_text("no picture")
    (folder / "blue ones" / "cut.png").write_bytes((folder / "blue ones" / "0.png").read_bytes()[:40])
    (folder / "red ones" / ".hidden.png").write_bytes((folder / "red ones" / "0.png").read_bytes())
    (folder / "red ones" / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "labels.csv").write_text("")
    from capsnet_jax.data.arrays import note

    for _ in range(2):
        note.cache_clear()
        data = load(f"folder:{folder}", image_size=8, validation_fraction=0.0)
        assert len(data.train.labels) + len(data.test.labels) == 10
        said = capsys.readouterr().err
        assert "5 files are left out: blue ones/cut.png is not a picture that can be read (" in said
        assert ", blue ones/notes.txt is not a picture that can be read (of no known format), " in said
        assert said.count(" is hidden or in no class and 2 more\n") == 1


def test_what_the_system_refuses_once_is_not_left_out_for_ever(folder, monkeypatch):
    whole = picture.read

    def refuse(path, *arguments, **options):
        if path.name == "3.png":
            raise picture.SystemFaultError(f"{path} cannot be read ({os.strerror(errno.EMFILE)}); mend that")
        return whole(path, *arguments, **options)

    monkeypatch.setattr(picture, "read", refuse)
    with pytest.raises(DataError, match=rf"^{folder}/blue ones/3.png cannot be read \(Too many open files\); mend"):
        load(f"folder:{folder}", image_size=8)
    monkeypatch.undo()
    data = load(f"folder:{folder}", image_size=8, validation_fraction=0.0)
    assert len(data.train.labels) + len(data.test.labels) == 10


def test_links_are_followed_and_circles_left(folder, tmp_path):
    (tmp_path / "linked").mkdir()
    for name in COLOURS:
        (tmp_path / "linked" / name).symlink_to(folder / name)
    (tmp_path / "twice").symlink_to(tmp_path / "linked")
    (folder / "red ones" / "back").symlink_to(folder / "red ones")
    data = load(f"folder:{tmp_path}/twice", image_size=8, validation_fraction=0.0)
    assert len(data.train.labels) + len(data.test.labels) == 10


def test_a_name_means_the_same_from_everywhere(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    full = f"folder:{folder}"
    for name in (full, "folder:my pictures", "folder:./my pictures/", "folder:~/my pictures"):
        assert full_name(name) == full
        assert fingerprint(name) == fingerprint(full)
    assert full_name("emnist/letters:3.1.0") == "emnist/letters:3.1.0"
    assert short_name(full) == "folder my pictures"
    assert slug(full).startswith("folder_my_pictures_")
    assert slug(full) != slug(f"folder:{folder.parent}/other/my pictures")


def test_the_fingerprint_is_of_names_sizes_and_times(folder):
    before = fingerprint(f"folder:{folder}")
    assert before == fingerprint(f"folder:{folder}")
    file = folder / "red ones" / "0.png"
    os.utime(file, (0, 0))
    after = fingerprint(f"folder:{folder}")
    file.rename(folder / "red ones" / "5.png")
    assert len({before, after, fingerprint(f"folder:{folder}")}) == 3
    assert fingerprint("mnist_5k") == fingerprint("mnist") == fingerprint("no_such_set") == ""


def only_one_class(folder):
    for file in (folder / "red ones").iterdir():
        file.unlink()
    (folder / "red ones").rmdir()


def nothing_in_a_class(folder):
    (folder / "green ones").mkdir()


def nothing_readable_in_a_class(folder):
    (folder / "green ones").mkdir()
    (folder / "green ones" / "a.txt").write_text("green")


def another_class_in_test(folder):
    for name in ("cats", "dogs"):
        save(folder / "train" / name / "0.png", 5)
    for name in ("cats", "cows"):
        save(folder / "test" / name / "0.png", 5)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (only_one_class, "has 1 sub-folders, but there must be one for each class, and two classes; put the pictures"),
        (nothing_in_a_class, "no file is in green ones; put pictures there, or remove the sub-folder"),
        (nothing_readable_in_a_class, r"none of the 1 files of train's class green ones can be read as a picture \(.*"),
        (another_class_in_test, r"train and test differ in their classes \(cows, dogs\); give both the same"),
        (lambda folder: folder.rename(folder.parent / "away"), "there is no such folder; name one with a sub-folder"),
    ],
)
def test_a_folder_that_is_no_set_is_one_line(spoil, says, folder):
    spoil(folder)
    with pytest.raises(DataError, match=rf"^folder:{folder}.*{says}") as error:
        load(f"folder:{folder}")
    assert "\n" not in str(error.value)


def test_a_folder_without_its_path_is_one_line():
    for name in ("folder", "folder:", "npz", "folder/mine"):
        for function in (load, describe, dimensions, fingerprint):
            with pytest.raises(DataError, match=rf"^{name} does not say which: write (folder|npz):PATH"):
                function(name)


def test_without_a_home_nothing_is_cached(folder, monkeypatch, capsys):
    monkeypatch.delenv("CAPSNET_JAX_CACHE")
    monkeypatch.setattr(type(folder), "expanduser", no_home)
    assert load(f"folder:{folder}").classes == 2
    assert "warning: decoded images are not cached" in capsys.readouterr().err
