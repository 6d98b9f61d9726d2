"""The Python interface: `from stillroom import Student`."""

from tasks.portrait3d import Portrait3D
from tasks.student_api import Student

__all__ = ["Portrait3D", "Student"]
