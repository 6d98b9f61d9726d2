"""The Python interface: `from stillroom import Student`."""

from tasks.student.api import Student
from tasks.student.portrait3d import Portrait3D

__all__ = ["Portrait3D", "Student"]
