"""All names of tfds and etils that this room uses and that those packages do not promise to keep.

`pyproject.toml` bounds the version of tfds for their sake. Before you raise that bound, run
`tests/data/tfds/test_private.py`: it says which of these names are missing.
"""

import importlib

# Module → what is used of it. A dot leads to an attribute.
PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "etils.epy.lazy_imports_utils": ("LazyModule._module",),
    "tensorflow_datasets.core.dataset_builder": (
        "DatasetBuilder.builder_configs",
        "DatasetBuilder.data_dir_root",
        "DatasetBuilder.url_infos",
        "GeneratorBasedBuilder._split_generators",
    ),
    "tensorflow_datasets.core.download.checksums": ("compute_url_info",),
    "tensorflow_datasets.core.download.download_manager": ("NonMatchingChecksumError",),
    "tensorflow_datasets.core.download.downloader": ("MAX_RETRIES", "_open_url"),
    "tensorflow_datasets.core.download.resource": ("get_dl_fname",),
    "tensorflow_datasets.core.features.feature": (
        "FeatureConnector._registered_features",
        "FeatureConnector.cls_from_name",
    ),
    "tensorflow_datasets.core.features.image_feature": ("_ImageEncoder._encode_image", "_validate_np_array"),
    "tensorflow_datasets.core.utils.gcs_utils": ("_is_gcs_disabled",),
    "tensorflow_datasets.core.utils.lazy_imports_utils": ("tensorflow",),
    "tensorflow_datasets.core.utils.py_utils": ("temporary_assignment",),
    "tensorflow_datasets.core.utils.tqdm_utils": ("tqdm",),
    "tensorflow_datasets.image_classification.mnist": ("EMNIST.URL", "MNIST.URL"),
    "tensorflow_datasets.proto": ("tf_example_pb2.Example.FromString",),
}


def missing_names() -> list[str]:
    """Return the names above that the installed tfds does not have, as `module.name`."""
    missing = []
    for module, names in PRIVATE_NAMES.items():
        for name in names:
            try:
                value = importlib.import_module(module)
                for part in name.split("."):
                    value = getattr(value, part)
            except (ImportError, AttributeError):
                missing.append(f"{module}.{name}")
    return missing
