"""Weights of a student that learn a new style, and the file that holds them (3DPE, section 3.3)."""

from collections.abc import Mapping

from torch import Tensor, nn

from models.three_d.student import Student

NORMALISATIONS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def adaptable_parameters(student: Student) -> dict[str, nn.Parameter]:
    """Adaptable weights by name: every learned weight of E_p with its own encoders, and E_t's normalisation layers."""
    encoder = student.encoder
    names = {f"encoder.Ref_encoder.{name}" for name, _ in encoder.Ref_encoder.named_parameters()}
    for place, module in encoder.Final_encoder.named_modules():
        if isinstance(module, NORMALISATIONS):
            names |= {f"encoder.Final_encoder.{place}.{name}" for name, _ in module.named_parameters()}
    # An MAE inside the student has fixed positions.
    return {name: p for name, p in student.named_parameters() if name in names and not name.endswith("pos_embed")}


def learn_only_adaptable(student: Student) -> Student:
    """Freeze all but the adaptable parameters; returns the student."""
    student.requires_grad_(False)
    for parameter in adaptable_parameters(student).values():
        parameter.requires_grad_(True)
    return student


def read_delta(student: Student) -> dict[str, Tensor]:
    """Return the adaptable weights, on the CPU. An adapted student differs from its base in these alone."""
    return {name: p.detach().cpu().contiguous() for name, p in adaptable_parameters(student).items()}


def apply_delta(student: Student, delta: Mapping[str, Tensor]) -> Student:
    """Put an adapted style's weights into its base, in place; returns the student.

    Raises ValueError where the delta does not fit a student of these sizes.
    """
    parameters = adaptable_parameters(student)
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    if shapes != {name: tuple(value.shape) for name, value in delta.items()}:
        raise ValueError("the delta was made from a student of other sizes")
    for name, value in delta.items():
        parameters[name].data.copy_(value)
    return student
