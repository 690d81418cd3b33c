"""Questions about short stories: the first three kinds of tasks of bAbI (Weston et al. 2015, arXiv:1502.05698).

People move between six rooms, take things and leave them. Kind 1 asks where someone is (one supporting fact), kind 2
where a thing is (two), kind 3 where it was before it came to a room (three). The stories are made here, by a fixed
seed, 200 with five questions each for train and for test; bAbI's own files are read if they are there. A guess is right
in one of six.

An example is uint8[51, 7, 1]: numbers of words in `VOCABULARY`, 0 where there is none. Row 0 is the question, row 1 the
last sentence before it, and so on back to the fiftieth. Label k is the room whose word has the number k + 1.
"""

import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from capsnet_jax.data import cache
from capsnet_jax.data.arrays import DataError, Examples, RawDataset

ROOMS = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
PEOPLE = ("daniel", "john", "mary", "sandra")
THINGS = ("apple", "football", "milk")
MOVES = ("went to", "journeyed to", "travelled to", "moved to", "went back to")
TAKES = ("took", "got", "grabbed", "picked up")
LEAVES = ("left", "dropped", "discarded", "put down")
VERBS = sorted({phrase.split()[0] for phrase in (*MOVES, *TAKES, *LEAVES)})
OTHERS = ("back", "before", "down", "is", "the", "there", "to", "up", "was", "where")

VOCABULARY = ("", *ROOMS, *PEOPLE, *THINGS, *VERBS, *OTHERS)
MEMORIES, WORDS = 50, 7
FILES = {1: "qa1_single-supporting-fact", 2: "qa2_two-supporting-facts", 3: "qa3_three-supporting-facts"}
FOLDER = Path("babi")  # in the folder of tfds's sets; holds qa1_single-supporting-fact_train.txt and so on

STORIES, QUESTIONS = 200, 5
# Sentences before a story's first question, and before each of the others; then the chance that the next one is
# followed by one. In bAbI's own files about as many come before the first question.
FIRST, OTHER = {1: 2, 2: 3, 3: 30}, 2
CHANCE = {1: 1.0, 2: 0.4, 3: 0.4}
MOVING = {1: 1.0, 2: 2 / 3, 3: 2 / 3}  # the chance that someone moves, and does not take or leave something
_SEED = 20150219  # any fixed number would do


class Question(NamedTuple):
    """What is asked after so many sentences of a story.

    Attributes:
        sentences: all of the story so far, each a list of words.
        words: of the question.
        answer: a room.
    """

    sentences: list[list[str]]
    words: list[str]
    answer: str


def load(task: int, data_dir: str | os.PathLike[str] | None = None, validation_fraction: float = 0.0) -> RawDataset:
    """Return one kind of tasks as arrays.

    Args:
        task: 1, 2 or 3.
        data_dir: holds `babi/`, or does not; as of `data.load`.
        validation_fraction: the share of train's stories, its last, that is validation. Questions of one story share
            its sentences, so none of it is left in train.

    Raises:
        DataError: a file is there, but has a line that is no sentence of its task.
    """
    splits: dict[str, Any] = {}
    stories: dict[str, list[list[Question]]] = {}
    notes = []
    for number, split in enumerate(("train", "test")):
        file = cache.prepared_dir(data_dir) / FOLDER / f"{FILES[task]}_{split}.txt"
        if file.exists():
            stories[split] = read(file)
        else:
            # Unlike Generator's, the stream of RandomState is frozen across NumPy versions (NEP 19).
            random = np.random.RandomState(_SEED + 10 * task + number)
            stories[split] = [list(tell(task, random)) for _ in range(STORIES)]
            notes.append(f"babi_{task}: there is no {file}: the stories of {split} are made, at a fixed seed")
        splits[split] = encode(chain(*stories[split]), str(file))
    if validation_fraction:
        sizes = [len(story) for story in stories["train"]]
        held_out = min(max(1, round(validation_fraction * len(sizes))), len(sizes) - 1)
        first = sum(sizes[: len(sizes) - held_out])
        splits["validation"] = Examples(*(array[first:] for array in splits["train"]))
        splits["train"] = Examples(*(array[:first] for array in splits["train"]))
    return RawDataset(ROOMS, **splits, notes=tuple(notes))


class World:
    """Where people and things are, and what a story has told of it.

    Attributes:
        places: the room of everyone and everything.
        holders: who holds a thing, of those that are held.
        known_rooms: where people are known to be.
        paths: rooms in which things are known to have been, in their order.
    """

    def __init__(self, random: np.random.RandomState):
        self._random = random
        self.places: dict[str, str] = {name: random.choice(ROOMS) for name in (*PEOPLE, *THINGS)}
        self.holders: dict[str, str] = {}
        self.known_rooms: dict[str, str] = {}
        self.paths: dict[str, list[str]] = {thing: [] for thing in THINGS}

    def move(self) -> list[str]:
        """Send someone to another room, with all that they hold; return the sentence."""
        person = self._random.choice(PEOPLE)
        room = self._random.choice([room for room in ROOMS if room != self.places[person]])
        self.places[person] = self.known_rooms[person] = room
        for thing in (thing for thing, holder in self.holders.items() if holder == person):
            self.places[thing] = room
            self.paths[thing].append(room)
        return [person, *self._random.choice(MOVES).split(), "the", room]

    def handle(self) -> list[str] | None:
        """Have something taken or left; return the sentence, or None where nobody is near the thing."""
        thing = self._random.choice(THINGS)
        held = thing in self.holders
        near = [p for p in PEOPLE if (self.holders[thing] == p if held else self.places[p] == self.places[thing])]
        if not near:
            return None
        person = self._random.choice(near)
        if held:
            del self.holders[thing]
        else:
            self.holders[thing] = person
            path = self.paths[thing]
            if person not in self.known_rooms:
                path.clear()  # as far as the story tells, it may have been moved
            elif path[-1:] != [self.known_rooms[person]]:
                path.append(self.known_rooms[person])
        there = ["there"] if self._random.rand() < 0.3 else []
        return [person, *self._random.choice(LEAVES if held else TAKES).split(), "the", thing, *there]

    def ask(self, task: int) -> tuple[list[str], str] | None:
        """Return a question of a kind with its answer; None where too little is known."""
        if task == 1:
            person = self._random.choice(sorted(self.known_rooms))
            return ["where", "is", person], self.known_rooms[person]
        known = [thing for thing, path in self.paths.items() if len(path) >= (1 if task == 2 else 3)]
        if not known:
            return None
        thing = self._random.choice(known)
        path = self.paths[thing]
        if task == 2:
            return ["where", "is", "the", thing], path[-1]
        # A room that it has been in twice stands for the last time; asked are those of the last three steps.
        visits = {room: place for place, room in enumerate(path) if place}
        room = self._random.choice([room for room, place in visits.items() if place >= len(path) - 3])
        return ["where", "was", "the", thing, "before", "the", room], path[visits[room] - 1]


def tell(task: int, random: np.random.RandomState) -> Iterator[Question]:
    """Make up a story, and ask its questions in between."""
    world = World(random)
    story: list[list[str]] = []
    asked = waited = 0
    while asked < QUESTIONS:
        moves = random.rand() < MOVING[task]
        story.append((None if moves else world.handle()) or world.move())
        waited += 1
        if waited < (OTHER if asked else FIRST[task]) or random.rand() >= CHANCE[task]:
            continue
        if question := world.ask(task):
            yield Question(list(story), *question)
            asked, waited = asked + 1, 0


def encode(questions: Iterable[Question], name: str = "") -> Examples:
    """Write questions and the last sentences before each as numbers of words.

    Args:
        questions: any number, but not none.
        name: of the file, for the error.

    Raises:
        DataError: a word or an answer is none of bAbI's first three kinds, or a sentence is too long.
    """
    numbers = {word: number for number, word in enumerate(VOCABULARY)}
    rows, labels = [], []
    for question in questions:
        row = np.zeros((MEMORIES + 1, WORDS, 1), np.uint8)
        for place, words in enumerate([question.words, *question.sentences[: -MEMORIES - 1 : -1]]):
            unknown = [word for word in [*words, question.answer] if word not in numbers]
            if unknown or len(words) > WORDS or question.answer not in ROOMS:
                wrong = " ".join(unknown[:1] or [*words, question.answer])
                raise DataError(f"{name} has {wrong!r}, which bAbI's tasks 1 to 3 have not; take its English files")
            row[place, : len(words), 0] = [numbers[word] for word in words]
        rows.append(row)
        labels.append(ROOMS.index(question.answer))
    images: Any = np.stack(rows)
    classes: Any = np.asarray(labels, np.int32)
    return Examples(images, classes)


def read(file: Path) -> list[list[Question]]:
    """Return the questions of each story in a file of bAbI's.

    It has numbered sentences, 1 where a story begins; questions have a tab before the answer.

    Raises:
        DataError: a line has no number, or the file has no question.
    """
    sentences: list[list[str]] = []
    stories: list[list[Question]] = [[]]
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        place, _, text = line.partition(" ")
        if not place.isdigit():
            raise DataError(f"{file}, line {number}: {line[:40]!r} does not begin with a number; take bAbI's own file")
        if place == "1":
            sentences = []
            stories.append([])
        said, *answer = text.split("\t")
        words = re.findall(r"[^\W\d_]+", said.lower())
        if answer:
            stories[-1].append(Question(list(sentences), words, answer[0].strip().lower()))
        else:
            sentences.append(words)
    if not any(stories):
        raise DataError(f"{file} has no question; take bAbI's own file")
    return [story for story in stories if story]


def fingerprint(data_dir: str | os.PathLike[str] | None = None) -> str:
    """Return a digest of bAbI's files, or "made" where there are none."""
    folder = cache.prepared_dir(data_dir) / FOLDER
    files = sorted(folder.glob("qa*.txt")) if folder.is_dir() else []
    return cache.fingerprint(files, folder) if files else "made"
