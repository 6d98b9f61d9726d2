"""Names that mean one picture are joined however they are written; names that may mean another never are."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.sources.names import is_hidden, join, plain, without_suffix

PICTURES = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00001000.png"]

words = st.text("abcé0_ -ü", min_size=1, max_size=4).filter(lambda word: word.strip(" ") == word)
paths = st.lists(words, min_size=1, max_size=3).map("/".join)
# Ways in which one picture is named; each is applied to all names of a file alike.
WAYS = {
    "as it is": lambda name: name,
    "backslashes": lambda name: name.replace("/", "\\"),
    "dot": lambda name: f"./{name}",
    "absolute": lambda name: f"/{name}",
    "capital suffix": lambda name: name.replace(".png", ".PNG"),
    "another suffix": lambda name: name.replace(".png", ".jpg"),
    "no suffix": lambda name: name.removesuffix(".png"),
    "decomposed": lambda name: unicodedata.normalize("NFD", name),
    "capitals": str.upper,
    "one folder more": lambda name: f"ffhq/{name}",
    "on another machine": lambda name: "C:\\Users\\me\\" + name.replace("/", "\\"),
}


@pytest.mark.parametrize("way", list(WAYS))
@settings(deadline=None, max_examples=60)
@given(st.lists(paths, min_size=1, max_size=6, unique_by=str.casefold))
def test_names_of_one_picture_are_joined_in_any_order(way: str, stems: list[str]) -> None:
    pictures = [f"{stem}.png" for stem in stems]
    given_names = {WAYS[way](name): name for name in pictures}
    assert join(reversed(given_names), pictures) == {name: other for other, name in given_names.items()}


def test_flat_names_join_where_no_other_picture_has_them() -> None:
    flat = [name.partition("/")[2] for name in PICTURES]
    assert join(flat, PICTURES) == dict(zip(PICTURES, flat, strict=True))
    assert join(PICTURES, flat) == dict(zip(flat, PICTURES, strict=True))


@pytest.mark.parametrize(
    ("names", "pictures"),
    [
        (["0"], ["a/0.png", "b/0.png"]),  # which of them?
        (["0"], ["0.png", "0.jpg"]),
        (["a/0", "b/0"], ["0.png"]),
        (["train/0.png"], ["test/0.png"]),  # other folders: another picture
        (["10.png"], ["0.png"]),
        (["v1.2"], ["v1.png"]),
        (["0_mirror.png"], ["0.png"]),
    ],
)
def test_names_that_may_mean_another_picture_are_not_joined(names: list[str], pictures: list[str]) -> None:
    assert join(names, pictures) == {}


def test_the_nearest_name_wins() -> None:
    assert join(["0.png", "0.jpg"], ["0.jpg", "0.png"]) == {"0.png": "0.png", "0.jpg": "0.jpg"}
    assert join(["0.png"], ["0.jpg", "0.png"]) == {"0.png": "0.png"}
    assert join(["face.1"], ["face.1.png", "face.2.png"]) == {"face.1.png": "face.1"}
    assert join(["a/same", "same"], ["a/same.png", "b/same.png"]) == {"a/same.png": "a/same"}


def test_the_normal_form() -> None:
    assert plain(".\\00000\\.\\img.png") == plain("/00000//img.png") == "00000/img.png"
    assert plain("cafe\u0301.png") == "café.png"
    assert [without_suffix(name) for name in ("a/b.PNG", "v1.2", "a.b/c", ".png")] == ["a/b", "v1.2", "a.b/c", ".png"]
    assert [is_hidden(name) for name in ("__MACOSX/a.png", "a/._b.png", "a/b.png")] == [True, True, False]
