"""Operations of the paper's networks at 512x512, counted by torch.utils.flop_counter.

Sampling of planes is not counted. `tests/tasks/test_operations.py` counts them again.
"""

# TFLOP of one pass. The UNet runs once for each of three guidance branches; PROMPT is CLIP's text transformer.
UNET, VAE_ENCODE, VAE_DECODE, PROMPT = 0.803, 1.117, 2.515, 0.0133
BRANCHES = 3
ENCODE, RENDER, STUDENT = 0.455, 0.211, 0.467  # a picture to a triplane, a view, an edit by the student


def counted_speedup(editor_steps: int) -> float:
    """Return how many times the student's operations editor and teacher need, from portrait and words to a view."""
    edited = VAE_ENCODE + VAE_DECODE + PROMPT + BRANCHES * UNET * editor_steps
    return (edited + ENCODE + RENDER) / (PROMPT + STUDENT + RENDER)
