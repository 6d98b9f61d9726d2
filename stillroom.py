"""The Python interface: `from stillroom import Student`. As a program, `python -m stillroom`, the command line."""

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main()
else:
    from tasks.student.api import Student
    from tasks.student.portrait3d import Portrait3D

    __all__ = ["Portrait3D", "Student"]
