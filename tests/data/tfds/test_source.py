"""Sets of many kinds, all tiny: real builders fed with fake originals, and builders made for one mistake."""

import errno
import gzip
import io
import json
import os
import shutil
import sys
import tarfile
import time
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from capsnet_jax.data import DataError, describe, dimensions, load
from capsnet_jax.data.tfds import decode
from tests.data import fakes
from tests.data.test_cache import no_home


def pictures(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


LABELS = MappingProxyType({"label": tfds.features.ClassLabel(num_classes=2)})
PICTURES = MappingProxyType({"image": tfds.features.Image(shape=(None, None, 3))})
DEEP_PICTURES = MappingProxyType({"image": tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16)})


class Tiny(tfds.core.GeneratorBasedBuilder):
    """Two splits of images and labels; the ones below differ in what is wrong with them."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES = PICTURES | LABELS
    SPLITS = ("train", "test")
    SIZES = (4, 4)

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict(self.FEATURES)))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in self.SPLITS}

    def _generate_examples(self):
        for index in range(10):
            size = self.SIZES[index % 2]
            yield index, {"image": pictures(1, (size, size, 3), index)[0], "label": index % 2}


class TinyTwoSizes(Tiny):
    SIZES = (4, 5)


class TinyWithoutTrain(Tiny):
    SPLITS = ("test",)


class TinyScalarLabel(Tiny):
    FEATURES = Tiny.FEATURES | {"label": tfds.features.Scalar(np.int64)}


class TinyTwoLabels(Tiny):
    FEATURES = Tiny.FEATURES | {"other": tfds.features.ClassLabel(num_classes=3)}


class TinyWithoutImage(Tiny):
    FEATURES = LABELS


class TinyDeep(Tiny):
    FEATURES = DEEP_PICTURES | LABELS


def test_images_of_colour_keep_their_pixels_and_labels(tmp_path):
    data = load("tiny", data_dir=tmp_path, validation_fraction=0.0)
    assert data.image_shape == (4, 4, 3)
    loaded = {image.tobytes(): label for image, label in zip(*data.train, strict=True)}
    assert loaded == {pictures(1, (4, 4, 3), i)[0].tobytes(): i % 2 for i in range(10)}
    assert (data.train.images.dtype, data.train.labels.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tiny_two_sizes", "differ in size"),
        ("tiny_without_train", "no train split, only these: test"),
        ("tiny_two_labels", "choose label_key from label, other"),
        ("tiny_without_image", "none for images"),
        ("tiny_deep", "uint16"),
        ("tinny", "did you mean tiny"),
        ("minst", "mnist"),
        ("emnist/lettrs", "emnist/letters"),
        ("mnist:9.9.9", "3.0.1"),
        ("nothing_at_all_like_it", "choose one of mnist_5k, mnist, "),
        ("Fashion-MNIST", r"did you mean fashion_mnist\?"),
        ("FashionMNIST", r"did you mean fashion_mnist\?"),
        ("fashion mnist", r"did you mean fashion_mnist\?"),
        ("MNIST", r"did you mean mnist\?"),
        ("Cifar-10", r"did you mean cifar10\?"),
        ("MNIST 5k", r"did you mean mnist_5k\?"),
        ("huggingface:mnist", "no dataset is named 'huggingface:mnist'"),
        ("../mnist", "no dataset is named"),
        ("", "no dataset is named ''"),
        ("tiny_scalar_label", r"no class label among its features \(image: Image, label: Scalar\)"),
    ],
)
def test_a_set_that_cannot_be_used_is_one_clear_line(name, says, tmp_path):
    with pytest.raises(DataError, match=says) as error:
        load(name, data_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_a_label_that_is_not_there_names_those_that_are(tmp_path):
    with pytest.raises(DataError, match=r"no label 'colour'; choose label_key from label"):
        load("tiny", label_key="colour", data_dir=tmp_path)


def test_dimensions_are_known_without_any_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert dimensions("mnist") == ((28, 28, 1), 10)
    assert dimensions("emnist/letters") == ((28, 28, 1), 37)
    assert dimensions("smallnorb") == ((96, 96, 1), 5)  # by the label of its entry in DATASETS
    assert dimensions("cifar100", label_key="coarse_label") == ((32, 32, 3), 20)
    with pytest.raises(DataError, match=r"^tiny does not say how large its images are"):
        dimensions("tiny")
    with pytest.raises(DataError, match="did you mean mnist"):
        dimensions("mnits")
    assert describe("fashion_mnist").label_names[9] == "Ankle boot"
    assert describe("cifar10").label_names == tuple("0123456789")  # its names come with its files
    assert not list(tmp_path.iterdir())


def test_a_set_is_described_as_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    files, *_ = cifar10()
    fakes.register(monkeypatch, "cifar10", files)
    fakes.fill_download_cache("cifar10", files, tmp_path)
    fakes.fashion(monkeypatch, tmp_path)
    for name in ("cifar10", "fashion_mnist", "tiny"):  # tiny does not declare the size of its images
        data = load(name)
        assert describe(name) == (data.image_shape, data.label_names)
    assert describe("cifar10").label_names[3] == "name3"


class TinyThree(Tiny):
    """Each split holds pictures of its own."""

    SPLITS = ("train", "validation", "test")

    def _split_generators(self, dl_manager):
        return {split: self._pictures_from(100 * number) for number, split in enumerate(self.SPLITS)}

    def _pictures_from(self, first):
        for index in range(20):
            yield index, {"image": pictures(1, (4, 4, 3), first + index)[0], "label": self.label(first, index)}

    def label(self, first, index):
        return index % 2


class TinyWithoutTest(TinyThree):
    SPLITS = ("train", "validation")


class TinyTrainOnly(TinyThree):
    SPLITS = ("train",)


class TinyUnlabelledTest(TinyThree):
    def label(self, first, index):
        return -1 if first == 200 and index % 4 == 0 else index % 2  # tfds's mark of an image without a label


def which(examples):
    """Return the numbers of the pictures that a split holds, sorted."""
    numbers = {
        pictures(1, (4, 4, 3), number)[0].tobytes(): number
        for first in (0, 100, 200)
        for number in range(first, first + 20)
    }
    return sorted(numbers[image.tobytes()] for image in examples.images)


def test_a_validation_split_of_its_own_is_validation(tmp_path):
    for _ in range(2):  # decoded, and from the cache
        data = load("tiny_three", data_dir=tmp_path, validation_fraction=0.1)
        splits = [which(split) for split in (data.train, data.validation, data.test)]
        assert splits == [list(range(first, first + 20)) for first in (0, 100, 200)]
    assert len(load("tiny_three", data_dir=tmp_path, validation_fraction=0.0).validation.labels) == 0


def test_without_a_test_split_validation_is_test(tmp_path, capsys):
    data = load("tiny_without_test", data_dir=tmp_path, validation_fraction=0.2)
    assert which(data.test) == list(range(100, 120))
    assert sorted(which(data.train) + which(data.validation)) == list(range(20))
    assert "note: tiny_without_test/1.0.0 has no test split: its validation split is test" in capsys.readouterr().err


def test_with_a_train_split_only_a_fifth_is_test(tmp_path, capsys):
    for fraction in (0.0, 0.25):
        data = load("tiny_train_only", data_dir=tmp_path, validation_fraction=fraction)
        assert sorted(which(data.train) + which(data.validation) + which(data.test)) == list(range(20))
        assert np.bincount(data.test.labels).tolist() == [2, 2]
        assert np.bincount(data.validation.labels, minlength=2).tolist() == [8 * fraction] * 2
    assert "note: tiny_train_only/1.0.0 has no test split: 20% of each class" in capsys.readouterr().err


def test_labels_that_are_no_class_are_named_before_anything_is_trained(tmp_path):
    for _ in range(2):
        with pytest.raises(
            DataError,
            match=r"^tiny_unlabelled_test's test split: 5 of its labels are not in 0…1, the first is -1 at image \d+;",
        ):
            load("tiny_unlabelled_test", data_dir=tmp_path)


@pytest.fixture
def mine(tmp_path):
    """Return the folder of a prepared set whose builder nobody has, as if it came from someone else."""
    load("tiny", data_dir=tmp_path)
    folder = (tmp_path / "tiny").rename(tmp_path / "mine") / "1.0.0"
    for file in folder.glob("tiny-*"):
        file.rename(file.with_name(file.name.replace("tiny", "mine")))
    edit(folder / "dataset_info.json", lambda info: info.update(name="mine"))
    return folder


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_prepared_set_needs_no_builder(mine):
    data = load("mine", data_dir=mine.parents[1], validation_fraction=0.0)
    assert data.train.images.shape == (10, 4, 4, 3)
    assert data.label_names == ("0", "1")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("features.json", lambda top: top["featuresDict"]["features"]["image"].update(pythonClassName="evil.Image")),
        ("features.json", lambda top: top.update(pythonClassName="evil.Features")),
        ("features.json", lambda top: top.update(type="evil.Features", content={})),
        (
            "dataset_info.json",
            lambda top: top.update(features={"pythonClassName": "evil.X", "jsonFeature": {"json": "{}"}}),
        ),
    ],
)
def test_no_code_that_a_set_names_is_run(file, change, mine, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('code of the set was run')")
    monkeypatch.syspath_prepend(tmp_path)
    edit(mine / file, change)
    for name in ("mine", "mine:1.0.0"):
        with pytest.raises(DataError, match=r"^mine.*ask for the code 'evil\.\w+', which is no feature of tfds's own"):
            load(name, data_dir=tmp_path)
    assert "evil" not in sys.modules
    assert isinstance(vars(tfds.features.FeatureConnector)["cls_from_name"], classmethod)  # tfds is as it was


@pytest.mark.parametrize("field", ["name", "configName"])
@pytest.mark.parametrize("value", ["../../../outside", "/outside", ".."])
def test_a_sets_own_names_do_not_lead_out_of_the_cache(field, value, mine, tmp_path, empty_cache):
    edit(mine / "dataset_info.json", lambda info: info.update({field: value}))
    with pytest.raises(DataError, match=r"^mine in .*: its dataset_info.json gives it the name '.*'; delete"):
        load("mine", data_dir=tmp_path)
    assert list(tmp_path.rglob("*.npz")) == [empty_cache / "tiny" / "1.0.0" / "label.npz"]


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "{", "null", "[]"])
def test_damaged_metadata_are_one_line(name, content, mine):
    (mine / name).write_text(content)
    with pytest.raises(DataError, match=r"^mine") as error:
        load("mine", data_dir=mine.parents[1])
    assert len(str(error.value)) < 300


@pytest.mark.slow
def test_no_damage_of_the_records_is_ever_trusted(tmp_path):
    whole = load("tiny", data_dir=tmp_path, validation_fraction=0.0)
    folder = tmp_path / "tiny" / "1.0.0"
    random, refused = np.random.default_rng(0), 0
    for file in sorted(folder.glob("*.array_record*")):
        content = file.read_bytes()
        used = np.flatnonzero(np.frombuffer(content, np.uint8))  # most of so small a file is padding
        for position in random.choice(used, 60, replace=False):
            damaged = bytearray(content)
            damaged[position] ^= 1 << random.integers(8)
            file.write_bytes(damaged)
            try:
                data = load("tiny", data_dir=tmp_path, validation_fraction=0.0)
            except DataError as error:
                refused += str(file) in str(error)
            else:
                for one, other in zip((*data.train, *data.test), (*whole.train, *whole.test), strict=True):
                    np.testing.assert_array_equal(one, other)
        for length in random.integers(0, len(content), 20):
            file.write_bytes(content[:length])
            with pytest.raises(DataError, match="cannot be read"):
                load("tiny", data_dir=tmp_path)
        file.write_bytes(content)
    assert refused > 60


def in_the_way(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [Path.unlink, in_the_way])
def test_a_file_that_the_disk_refuses_is_named(damage, tmp_path):
    load("tiny", data_dir=tmp_path)
    file = next((tmp_path / "tiny" / "1.0.0").glob("*test*"))
    damage(file)
    with pytest.raises(
        DataError, match=rf"^tiny cannot be read: \[Errno \d+\] .*'{file}'; mend that, or set TFDS_DATA"
    ):
        load("tiny", data_dir=tmp_path)


def test_a_data_folder_that_is_none_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("TFDS_DATA_DIR", str(wrong))
        for function in (load, describe):
            with pytest.raises(DataError, match=rf"^tiny cannot be read: .*'{wrong}'; .* set TFDS_DATA_DIR"):
                function("tiny")
    monkeypatch.setenv("TFDS_DATA_DIR", "~/data")
    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(DataError, match=r"~/data: there is no such home directory; .* set TFDS_DATA_DIR"):
        load("tiny")


def test_a_data_folder_that_is_full_says_so(tmp_path, monkeypatch):
    def full(self, **arguments):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(Tiny, "download_and_prepare", full)
    with pytest.raises(DataError, match=r"^tiny cannot be prepared: .*No space left.*; set TFDS_DATA_DIR to a folder"):
        load("tiny", data_dir=tmp_path)


def test_without_a_home_there_is_a_warning_and_no_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CAPSNET_JAX_CACHE")
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert load("tiny", data_dir=tmp_path).classes == 2
    assert (
        "warning: decoded images are not cached, set CAPSNET_JAX_CACHE: ~/.cache: there is no"
        in capsys.readouterr().err
    )


def test_second_load_decodes_nothing_and_a_change_of_the_files_is_seen(tmp_path, monkeypatch, empty_cache):
    first = load("tiny", data_dir=tmp_path)
    real_decode, decoded = decode.decode, []
    monkeypatch.setattr(decode, "decode", lambda *args: decoded.append(1) or real_decode(*args))
    second = load("tiny", data_dir=tmp_path)
    assert not decoded
    np.testing.assert_array_equal(first.train.images, second.train.images)
    os.utime(next((tmp_path / "tiny" / "1.0.0").glob("*train*")), (0, 0))
    load("tiny", data_dir=tmp_path)
    assert len(decoded) == 1
    assert (empty_cache / "tiny" / "1.0.0" / "label.npz").is_file()
    load("tiny", data_dir=tmp_path, cache_dir=tmp_path / "elsewhere")
    assert len(decoded) == 2


def test_the_environment_names_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "from environment"))
    load("tiny")
    assert (tmp_path / "from environment" / "tiny" / "1.0.0").is_dir()


def test_damaged_records_and_half_a_folder_are_refused(tmp_path):
    load("tiny", data_dir=tmp_path)
    folder = tmp_path / "tiny" / "1.0.0"
    records = next(folder.glob("*train*"))
    records.write_bytes(records.read_bytes()[:100])
    with pytest.raises(
        DataError,
        match=r"^tiny's train split \(.*/tiny-train.array_record.*\) cannot be read .*; delete .*1.0.0 and load",
    ):
        load("tiny", data_dir=tmp_path)
    (folder / "dataset_info.json").unlink()
    with pytest.raises(DataError, match="not a complete prepared dataset; delete it"):
        load("tiny", data_dir=tmp_path)
    shutil.rmtree(folder)
    assert load("tiny", data_dir=tmp_path).classes == 2


def cifar10():
    batches = {f"data_batch_{i}.bin": 2 * i for i in range(1, 6)} | {"test_batch.bin": 20}
    names = [f"name{i}" for i in range(10)]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, first in batches.items():
            rows = [bytes([(first + i) % 10]) + pictures(1, (3, 32, 32), first + i).tobytes() for i in range(4)]
            add(archive, f"cifar-10-batches-bin/{name}", b"".join(rows))
        add(archive, "cifar-10-batches-bin/batches.meta.txt", "\n".join(names).encode())
    test = {pictures(1, (3, 32, 32), 20 + i)[0].transpose(1, 2, 0).tobytes(): i for i in range(4)}
    return {"https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz": packed.getvalue()}, (32, 32, 3), test


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def svhn_cropped():
    files, test = {}, {}
    for split in ("train", "test", "extra"):
        images = pictures(4, (32, 32, 3), len(split))
        packed = io.BytesIO()
        labels = np.array([[1], [5], [9], [10]], dtype=np.uint8)
        scipy.io.savemat(packed, {"X": images.transpose(1, 2, 3, 0), "y": labels})
        files[f"http://ufldl.stanford.edu/housenumbers/{split}_32x32.mat"] = packed.getvalue()
        if split == "test":
            test = dict(zip((i.tobytes() for i in images), (1, 5, 9, 0), strict=True))
    return files, (32, 32, 3), test


def smallnorb():
    def matrix(magic, array):
        shape = [*array.shape, 1, 1][: max(3, array.ndim)]
        return gzip.compress(np.array([magic, array.ndim, *shape], "<i4").tobytes() + array.tobytes())

    files = {}
    for split in ("46789x9x18x6x2x96x96-training", "01235x9x18x6x2x96x96-testing"):
        url = f"https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/smallnorb-5x{split}"
        pairs = pictures(5, (2, 96, 96), len(split))
        files[f"{url}-dat.mat.gz"] = matrix(507333717, pairs)
        files[f"{url}-cat.mat.gz"] = matrix(507333716, np.arange(5, dtype="<i4"))
        files[f"{url}-info.mat.gz"] = matrix(507333716, np.zeros((5, 4), "<i4"))
    return files, (96, 96, 1), {pair[0].tobytes(): i for i, pair in enumerate(pairs)}  # the left eye's image


@pytest.mark.parametrize("originals", [cifar10, svhn_cropped, smallnorb])
def test_tfdss_own_builders_prepare_without_tensorflow(originals, tmp_path, monkeypatch):
    name = originals.__name__
    files, shape, test = originals()
    fakes.register(monkeypatch, name, files)
    fakes.fill_download_cache(name, files, tmp_path)
    data = load(name, data_dir=tmp_path, validation_fraction=0.0)
    assert data.image_shape == shape
    assert {image.tobytes(): label for image, label in zip(*data.test, strict=True)} == test


def test_what_needs_more_of_tensorflow_says_so(tmp_path, monkeypatch):
    def needs_tensorflow(self):
        from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

        yield 0, {"image": tf.image.resize(None), "label": 0}

    monkeypatch.setattr(Tiny, "_generate_examples", needs_tensorflow)
    with pytest.raises(DataError, match=r"tiny: tfds needs TensorFlow.*tfds build tiny --file_format"):
        load("tiny", data_dir=tmp_path)
    assert not list((tmp_path / "tiny").glob("*"))


def test_another_process_may_prepare_it_first(tmp_path, monkeypatch):
    prepare = Tiny.download_and_prepare

    def overtaken(self, **arguments):
        prepare(self, **arguments)
        raise OSError("the folder is already there")

    monkeypatch.setattr(Tiny, "download_and_prepare", overtaken)
    assert load("tiny", data_dir=tmp_path).classes == 2


def test_without_network_failure_is_fast(tmp_path):
    start = time.monotonic()
    with pytest.raises(DataError, match=r"cifar10 is not prepared in .*cifar-10-binary.tar.gz in .*TFDS_DATA"):
        load("cifar10", data_dir=tmp_path)
    assert time.monotonic() - start < 5


REAL = os.environ.get("TFDS_DATA_DIR")

if REAL:

    @pytest.mark.slow
    def test_real_mnist_is_read_and_the_second_time_in_under_two_seconds():
        load("mnist", data_dir=REAL)
        start = time.monotonic()
        data = load("mnist", data_dir=REAL)
        assert time.monotonic() - start < 2
        counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        assert np.bincount(data.test.labels).tolist() == counts
        assert (len(data.train.labels), len(data.validation.labels)) == (54_000, 6_000)
        assert round(float(np.concatenate([data.train.images, data.validation.images]).mean()), 2) == 33.32
        assert describe("mnist") == (data.image_shape, data.label_names)
