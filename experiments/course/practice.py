"""The page on starting from a net that somebody else has trained."""

from capsnet_jax.training.finetune import copy_pretrained, split_frozen
from experiments.course.material import Material
from experiments.course.page import Excerpt, Page, measured, saved, table
from experiments.transfer_cases import ADVICE

CASES = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}  # (alike, much) → the slides' number
FOR_TEXT = {"dataset": "mnist", "data.transform": "rotated", "data.train_size": "100"}


def transfer(material: Material) -> Page:
    """Show the four cases, and what was measured."""
    del material
    rows = []
    for amount in ("much", "little"):
        cells = [f"{CASES[alike, amount == 'much']}. {ADVICE[alike, amount == 'much']}" for alike in (False, True)]
        rows.append((f"{amount} data", *cells))
    scratch = measured("transfer_cases", FOR_TEXT | {"finetune.source": "none"})
    first = measured("transfer_cases", FOR_TEXT | {"train.frozen": "conv1+conv2"})
    last = measured("transfer_cases", FOR_TEXT | {"train.frozen": "conv1+conv2+conv3+hidden"})
    return Page(
        "Transfer learning: four cases",
        f"""Training a large net takes days, powerful machines and a million labelled images. But first layers look
alike whatever is learned, so one can start from a net that has learned something else: copy it, freeze some layers,
train the rest. The slides advise by how much data there is and how alike it is. Measured with nets that learned
MNIST, the advice holds in part: with 100 digits turned by 90°, freezing the first two layers errs on {first}, from
scratch {scratch}, and training the output layer alone on {last}.""",
        [
            table(("", "unlike the source", "like the source"), rows),
            saved("transfer_cases-transfer_grid", "test error of four strategies for three targets and three sizes"),
        ],
        [Excerpt(copy_pretrained), Excerpt(split_frozen)],
        ["--experiment=transfer_cases", "--dataset=fashion_mnist --set finetune.source=mnist --set train.frozen=conv1"],
    )
