"""A small student, and a head that it edited."""

import pytest

from stillroom import Portrait3D, Student
from tests.worlds import pupil


@pytest.fixture(scope="module")
def student() -> Student:
    return pupil.student()


@pytest.fixture(scope="module")
def head(student: Student) -> Portrait3D:
    return student.edit(pupil.aligned_portrait(), "make the hair red")
