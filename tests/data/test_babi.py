"""Stories are understood anew here, by a reader that has the sentences alone."""

import numpy as np
import pytest

from capsnet_jax.data import DataError, babi, load


def rooms_of(sentences):
    """Where people are, and the rooms that each thing has been in, as far as sentences tell."""
    people, holders, paths = {}, {}, {thing: [] for thing in babi.THINGS}
    for person, verb, *rest in sentences:
        if rest[-1] in babi.ROOMS:
            people[person] = rest[-1]
            for thing in babi.THINGS:
                if holders.get(thing) == person:
                    paths[thing].append(rest[-1])
            continue
        thing = next(word for word in rest if word in babi.THINGS)
        if verb in {"left", "dropped", "discarded", "put"}:
            assert holders.pop(thing) == person
        else:
            assert thing not in holders
            holders[thing] = person
            if person not in people:
                paths[thing] = []
            elif paths[thing][-1:] != [people[person]]:
                paths[thing].append(people[person])
    return people, paths


@pytest.mark.parametrize("task", [1, 2, 3])
def test_answers_follow_from_the_stories(task):
    random = np.random.RandomState(1)
    asked = [question for _ in range(60) for question in babi.tell(task, random)]
    assert len(asked) == 300
    for question in asked:
        people, paths = rooms_of(question.sentences)
        what = question.words[-1] if task < 3 else question.words[3]
        if task == 1:
            assert question.answer == people[what]
        elif task == 2:
            assert question.answer == paths[what][-1]
        else:
            room, path = question.words[-1], paths[what]
            last = max(place for place, visited in enumerate(path) if visited == room)
            assert question.answer == path[last - 1] != room
    counts = np.unique([question.answer for question in asked], return_counts=True)[1]
    assert len(counts) == 6
    assert counts.max() < 2 * 300 / 6  # so a guess is right in about one of six


def test_stories_are_as_long_as_about_bAbIs():  # noqa: N802
    lengths = {t: [len(q.sentences) for q in babi.tell(t, np.random.RandomState(0))] for t in (1, 2, 3)}
    assert lengths[1] == [2, 4, 6, 8, 10]
    assert 3 <= lengths[2][0] <= 15
    assert 30 <= lengths[3][0] <= 50


def test_an_example_is_the_question_and_the_last_sentences_newest_first():
    sentences = [["mary", "went", "to", "the", room] for room in babi.ROOMS * 10]
    [image], [label] = babi.encode([babi.Question(sentences, ["where", "is", "mary"], "office")])
    words = [[babi.VOCABULARY[number] for number in row if number] for row in image[..., 0]]
    assert words[0] == ["where", "is", "mary"]
    assert words[1:] == sentences[::-1][:50]
    assert babi.ROOMS[label] == babi.VOCABULARY[label + 1] == "office"
    assert len(babi.VOCABULARY) == 36


def test_sets_are_the_same_everywhere_and_of_a_thousand():
    data = load("babi_2", validation_fraction=0.1)
    assert (data.image_shape, data.classes) == ((51, 7, 1), 6)
    assert [len(s.labels) for s in (data.train, data.validation, data.test)] == [900, 100, 1000]
    again = load("babi_2", validation_fraction=0.1)
    np.testing.assert_array_equal(data.train.images, again.train.images)
    assert not np.array_equal(data.train.images[:100], data.test.images[:100])


def test_no_story_is_in_two_splits():
    whole = load("babi_2", validation_fraction=0.0)
    assert (len(whole.train.labels), len(whole.validation.labels)) == (1000, 0)
    stories = np.repeat(np.arange(babi.STORIES), babi.QUESTIONS)
    where = {image.tobytes(): story for image, story in zip(whole.train.images, stories, strict=True)}
    for fraction, count in ((0.1, 20), (0.001, 1), (0.9, 180)):
        data = load("babi_2", validation_fraction=fraction)
        train, validation = ({where[i.tobytes()] for i in split.images} for split in (data.train, data.validation))
        assert (len(train), len(validation)) == (babi.STORIES - count, count)
        assert train.isdisjoint(validation)
        np.testing.assert_array_equal(data.test.images, whole.test.images)


LINES = """1 Mary got the milk there.
2 Daniel went back to the office.
3 Where is Daniel? \toffice\t2
1 Sandra travelled to the kitchen.
2 Where is Sandra?\tkitchen\t1
"""


def test_published_files_are_read(tmp_path):
    file = tmp_path / "qa1.txt"
    file.write_text(LINES)
    [[first], [second]] = babi.read(file)
    assert first.sentences == [
        ["mary", "got", "the", "milk", "there"],
        ["daniel", "went", "back", "to", "the", "office"],
    ]
    assert (first.words, first.answer) == (["where", "is", "daniel"], "office")
    assert (second.sentences, second.answer) == ([["sandra", "travelled", "to", "the", "kitchen"]], "kitchen")

    folder = tmp_path / "babi"
    folder.mkdir()
    (folder / "qa1_single-supporting-fact_train.txt").write_text(LINES)
    raw = babi.load(1, data_dir=tmp_path)
    assert len(raw.train.labels) == 2
    assert len(raw.test.labels) == 1000
    assert "test are made" in raw.notes[0]
    assert [len(split.labels) for split in babi.load(1, tmp_path, validation_fraction=0.1).splits.values()] == [
        1,
        1,
        1000,
    ]
    assert len(babi.fingerprint(tmp_path)) > 8
    assert babi.fingerprint(tmp_path / "none") == "made"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Mary went to the office.\n", "line 1: 'Mary went to the office.' does not begin with a number"),
        ("1 Mary went to the office.\n", "has no question"),
        ("1 Fred went to the office.\n2 Where is Fred?\toffice\t1\n", "has 'fred', which"),
        ("1 Mary went to the office.\n2 Where is Mary?\tmilk\t1\n", "has 'where is mary milk', which"),
    ],
)
def test_another_file_is_told(tmp_path, text, told):
    (tmp_path / "babi").mkdir()
    (tmp_path / "babi" / "qa1_single-supporting-fact_train.txt").write_text(text)
    with pytest.raises(DataError) as error:
        babi.load(1, data_dir=tmp_path)
    assert told in str(error.value)
