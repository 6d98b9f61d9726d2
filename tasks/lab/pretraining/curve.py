"""Drawing of a training's loss."""

from __future__ import annotations

import io
from collections.abc import Sequence

from data_catalog.samples.encoding import decode_rgb
from tasks.pictures.inline import embed_picture

SIZE_INCHES, DPI = (7.0, 2.2), 150
SMOOTHED = 9  # points, a tenth of the curve at most

Point = dict[str, float]


def draw_curve(points: Sequence[Point]) -> str | None:
    """Draw the loss over the steps, as a data URI; None where there is too little of it.

    points: in the order of writing. A killed training repeats some steps: the later value counts.
    """
    import pandas as pd
    from matplotlib.figure import Figure

    kept: list[Point] = []
    for point in points:
        while kept and kept[-1]["step"] >= point["step"]:
            kept.pop()
        kept.append(point)
    if len(kept) < 2:
        return None
    loss = pd.Series([point["loss"] for point in kept], [point["step"] for point in kept])
    window = max(1, min(SMOOTHED, len(loss) // 10))
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.semilogy(loss, alpha=0.35, linewidth=1)
    axes.semilogy(loss.rolling(window, center=True, min_periods=1).mean(), color="C0")
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(which="both", alpha=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return embed_picture(decode_rgb(drawn.getvalue()))
