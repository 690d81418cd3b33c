"""smallNORB's split by viewpoint, on a stand-in of tfds's features."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from capsnet_jax.data import DATASETS, describe, dimensions, load
from capsnet_jax.data.tfds import source, viewpoints


class TinyNorb(tfds.core.GeneratorBasedBuilder):
    """An image of each viewpoint, 9 elevations and 18 azimuths; both cameras' pixels tell what it is of."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(4, 4, 1))
        numbers = {"label_category": 5, "label_elevation": 9, "label_azimuth": 18}
        labels = {name: tfds.features.ClassLabel(num_classes=count) for name, count in numbers.items()}
        features = tfds.features.FeaturesDict({"image": image, "image2": image, **labels})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0), "test": self._generate_examples(1)}

    def _generate_examples(self, split):
        for index in range(9 * 18):
            elevation, azimuth = divmod(index, 18)
            left, right = (
                np.full((4, 4, 1), 10 * elevation + split, np.uint8),
                np.full((4, 4, 1), 10 * azimuth, np.uint8),
            )
            labels = {"label_category": index % 5, "label_elevation": elevation, "label_azimuth": azimuth}
            yield index, {"image": left, "image2": right, **labels}


@pytest.mark.parametrize(
    ("feature", "degrees", "familiar"),
    [
        ("azimuth", [20 * label for label in range(18)], {300, 320, 340, 0, 20, 40}),
        ("elevation", [30 + 5 * label for label in range(9)], {30, 35, 40}),
    ],
)
def test_splits_are_by_viewpoint(feature, degrees, familiar, tmp_path, monkeypatch):
    real = source.load
    monkeypatch.setattr(source, "load", lambda name, *rest, **kw: real("tiny_norb", *rest, **kw))
    name = f"smallnorb_{feature}"
    for _ in range(2):  # decoded, and from the cache
        data = load(name, data_dir=tmp_path)
        assert data.image_shape == (2, 2, 2)
        for split, (images, labels) in {"train": data.train, "validation": data.validation, "test": data.test}.items():
            assert (images[:, 0, 0, 0] % 10 == (split != "train")).all()
            elevations, azimuths = images[:, 0, 0, 0] // 10, images[:, 0, 0, 1] // 10
            seen = {degrees[k] for k in (azimuths if feature == "azimuth" else elevations)}
            assert seen == (set(degrees) - familiar if split == "test" else familiar)
            np.testing.assert_array_equal(labels, (18 * elevations.astype(int) + azimuths) % 5)
    assert (len(data.train.labels), len(data.validation.labels), len(data.test.labels)) == (54, 54, 108)


def test_pixels_are_means_of_four():
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 4, 2), np.uint8)
    halved = viewpoints.halve(images)
    for n, y, x, c in np.ndindex(3, 3, 2, 2):
        four = [int(images[n, 2 * y + i, 2 * x + j, c]) for i in (0, 1) for j in (0, 1)]
        assert halved[n, y, x, c] == int(sum(four) / 4 + 0.5)


def test_the_set_is_described_without_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert dimensions("smallnorb_azimuth") == ((48, 48, 2), 5)
    assert describe("smallnorb_elevation").label_names == describe("smallnorb", label_key="label_category").label_names
    assert DATASETS["smallnorb_azimuth"].load.fixed == {"feature": "azimuth"}
