"""Sentence forms of the built-in paraphraser: ways to ask for each kind of edit."""

from __future__ import annotations

from typing import NamedTuple


class Person(NamedTuple):
    """One way to speak of who is in the picture, with the verbs that agree."""

    subject: str
    object: str
    possessive: str
    looks: str
    has: str
    is_: str


PEOPLE = (
    Person("he", "him", "his", "looks", "has", "is"),
    Person("she", "her", "her", "looks", "has", "is"),
    Person("they", "them", "their", "look", "have", "are"),
    Person("the person", "the person", "the person's", "looks", "has", "is"),
    Person("this person", "this person", "this person's", "looks", "has", "is"),
)
PICTURES = ("the photo", "this picture", "the portrait", "the image")

# Fields: subject object possessive looks has is_ (a Person); picture; phrase (with its article); bare (without);
# a_bare ("a" or "an" and bare); part and quality (of "red hair": hair, red).
BECOME = (
    "turn {object} into {phrase}",
    "make {object} look like {phrase}",
    "make {object} {phrase}",
    "transform {object} into {phrase}",
    "{bare} style portrait",
    "what if {subject} were {phrase}?",
    "show {object} as {phrase}",
    "change {picture} so that {subject} {looks} like {phrase}",
    "give {object} the look of {phrase}",
    "I want to see {object} as {phrase}",
    "replace {object} with {phrase}",
    "a portrait of {phrase}",
    "{subject} should become {phrase}",
    "what would {subject} look like as {phrase}?",
    "reimagine {object} as {phrase}",
    "have {object} become {phrase}",
    "edit {picture}: {subject} {is_} now {phrase}",
    "convert {object} to {phrase}",
    "let {object} be {phrase}",
    "apply a {bare} effect to {picture}",
)
MEDIUM = (
    "turn {picture} into {phrase}",
    "make {picture} look like {phrase}",
    "make it {phrase}",
    "{phrase} of {object_noun}",
    "{bare} style portrait",
    "redo {picture} as {phrase}",
    "transform {object} into {phrase}",
    "what if this were {phrase}?",
    "show {object} as {phrase}",
    "I want {phrase} instead of a photo",
    "convert it to {phrase}",
    "give {picture} the look of {phrase}",
    "portray {object} as {phrase}",
    "change the style of {picture} to {a_bare}",
    "{picture} should become {phrase}",
    "reimagine {picture} as {phrase}",
    "apply a {bare} effect",
    "let {object} appear in {phrase}",
)
HAVE = (
    "give {object} {phrase}",
    "add {phrase}",
    "make {object} have {phrase}",
    "{subject_noun} with {phrase}",
    "what if {subject} had {phrase}?",
    "put {phrase} on {object}",
    "change {picture} so that {subject} {has} {phrase}",
    "what would {subject} look like with {phrase}?",
    "show {object} with {phrase}",
    "I want {object} to have {phrase}",
    "{subject} should have {phrase}",
    "let {object} be seen with {phrase}",
    "edit {picture} to include {phrase}",
    "a portrait with {phrase}",
    "{phrase}, please",
    "reimagine {object} with {phrase}",
    "add {phrase} to {picture}",
    "{subject} now {has} {phrase}",
)
HAVE_P
