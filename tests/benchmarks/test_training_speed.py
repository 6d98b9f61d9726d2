"""The measure of training speed takes the real steps, from the sources that it names."""

import torch

from benchmarks.gpu import networks
from benchmarks.training_speed import training_speed


def test_a_step_reads_the_teachers_part_or_has_it_made() -> None:
    teacher, student, _, tokens = networks(True, "cpu")
    before = student.encoder.Final_encoder.net[0].weight.detach().clone()
    encoded: list[int] = []
    teacher.encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    made: list[int] = []

    def timer(step: object) -> float:
        encoded.clear()
        assert callable(step)
        step()
        made.append(len(encoded))
        return 0.5

    assert training_speed(teacher, student, tokens, 2, timer) == {"cached": 2.0, "online": 2.0}
    assert made == [0, 2]  # pictures that the teacher saw in the step
    assert not torch.equal(student.encoder.Final_encoder.net[0].weight, before)
