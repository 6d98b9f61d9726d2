"""Sentence forms of the built-in paraphraser: ways to ask for each kind of edit."""

from __future__ import annotations

from typing import NamedTuple


class Person(NamedTuple):
    """Words for the person in the picture, with verbs that agree."""

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
HAVE_PART = (  # Only of a part everybody has: "red hair", "elf ears".
    "replace {possessive} {part} with {phrase}",
    "change {possessive} {part} to {phrase}",
    "turn {possessive} {part} into {phrase}",
    "swap {possessive} {part} for {phrase}",
    "{possessive} {part} should be {phrase}",
)
HAVE_COLOUR = (  # Only of a colour: "red hair".
    "make {possessive} {part} {quality}",
    "change {possessive} {part} colour to {quality}",
    "colour {possessive} {part} {quality}",
    "what if {possessive} {part} were {quality}?",
)
LOSE = (
    "remove {possessive} {bare}",
    "take {possessive} {bare} away",
    "get rid of the {bare}",
    "show {object} without the {bare}",
    "make {object} have no {bare}",
    "what if {subject} had no {bare}?",
    "erase the {bare} from {picture}",
    "{subject_noun} without the {bare}",
    "I want {object} without any {bare}",
    "what would {subject} look like without the {bare}?",
    "edit {picture} so that the {bare} can no longer be seen",
    "{subject} should have no {bare}",
    "no {bare}, please",
    "delete the {bare}",
    "let {possessive} {bare} vanish",
    "a portrait without the {bare}",
)
ADJECTIVE = (
    "make {object} {phrase}",
    "make {picture} look {phrase}",
    "{a_phrase} version of {picture}",
    "give {object} {a_phrase} look",
    "what if {subject} were {phrase}?",
    "change {picture} so that {subject} {looks} {phrase}",
    "{subject} should look {phrase}",
    "turn it {phrase}",
    "{phrase} portrait",
    "I want {object} to look {phrase}",
    "have {object} look {phrase}",
    "let {possessive} face appear {phrase}",
    "edit {picture}: {subject} {is_} now {phrase}",
    "what would {a_phrase} version look like?",
    "transform {object} until {subject} {looks} {phrase}",
    "reimagine {picture} with {a_phrase} look",
    "{phrase}, please",
)
MANNER = (
    "make it in {phrase}",
    "paint {object} in {phrase}",
    "turn {picture} into {phrase}",
    "redo {picture} in {phrase}",
    "what if this were in {phrase}?",
    "show {object} in {phrase}",
    "a portrait in {phrase}",
    "use {phrase} for {picture}",
    "give it {phrase}",
    "I want to see {object} in {phrase}",
    "{phrase}, please",
    "apply {phrase} to {picture}",
    "reimagine {object} in {phrase}",
    "{picture} should be in {phrase}",
    "change {picture} to {phrase}",
    "let {possessive} face appear in {phrase}",
)
OTHER = (
    "please {phrase}",
    "{phrase} in {picture}",
    "edit {picture}: {phrase}",
    "could you {phrase}?",
    "I want you to {phrase}",
    "{phrase}, keep everything else",
    "change {picture} as follows: {phrase}",
    "only {phrase}",
    "{phrase}, but keep the face the same",
    "now {phrase}",
    "your task is to {phrase}",
    "{phrase} and leave the rest of {picture} alone",
    "for {picture}, {phrase}",
    "see to it: {phrase}",
    "the edit I want: {phrase}",
    "just {phrase}, nothing more",
)
BY_KIND = {
    "become": BECOME,
    "medium": MEDIUM,
    "have": HAVE,
    "lose": LOSE,
    "adjective": ADJECTIVE,
    "manner": MANNER,
    "other": OTHER,
}
