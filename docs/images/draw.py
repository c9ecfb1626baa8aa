"""Draws the pictures of the site: `python docs/images/draw.py`.

Sketches, not measurements. Middle tones, which read on white and on black.
"""

import math
import pathlib

FOLDER = pathlib.Path(__file__).parent
LINE, MUTED, BETTER, WORSE = "#7a7f99", "#a9adc1", "#4f8fd6", "#d9822b"


def line(x1, y1, x2, y2, color=LINE, width=1.5, dashed=False, arrow=False):
    extra = ' stroke-dasharray="4 3"' if dashed else ""
    extra += ' marker-end="url(#tip)"' if arrow else ""
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{color}" '
        f'stroke-width="{width}"{extra}/>'
    )


def curve(points, color=LINE):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'


def bar(x, height, color, width=20):
    size = f'y="{66 - height}" width="{width}" height="{height}"'
    return f'<rect x="{x}" {size} fill="{color}"/>'


def dot(x, y, radius, color=BETTER):
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{color}" fill-opacity="0.8"/>'


def text(x, y, words, color=LINE, size=11, anchor="middle"):
    return (
        f'<text x="{x}" y="{y}" fill="{color}" font-size="{size}" text-anchor="{anchor}" '
        f'font-family="sans-serif">{words}</text>'
    )


def box(x, y, width, height, words, color=LINE, dashed=False):
    extra = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="none" '
        f'stroke="{color}" stroke-width="1.5"{extra}/>'
        + text(x + width / 2, y + height / 2 + 4, words, color, 13)
    )


def write(name, title, *parts, width=120, height=72):
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
        f'markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker>'
    )
    body = "\n".join(parts)
    (FOLDER / f"{name}.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img"><title>{title}</title>\n'
        f"<defs>{tip}</defs>\n{body}\n</svg>\n",
        encoding="utf-8",
    )


FLOOR = line(8, 66, 112, 66)
UNEVEN = (bar(26, 22, BETTER), bar(74, 50, WORSE))


def sketches():
    sizes = ((18, 56, 6), (34, 38, 2), (50, 42, 7), (66, 14, 2), (82, 26, 6), (98, 52, 2))
    write(
        "weighted",
        "A line that passes near the heavy points",
        *(dot(x, y, radius) for x, y, radius in sizes),
        line(8, 62, 112, 14, WORSE, 2),
    )
    write(
        "asymmetric",
        "A loss that is steeper on one side of 0",
        FLOOR,
        line(60, 8, 60, 66, MUTED, 1, dashed=True),
        curve([(14, 46), (60, 66), (84, 8)], WORSE),
    )
    squares = [(10 + 2 * i, 66 - 0.011 * (2 * i) ** 2) for i in range(37)]
    hinge = [(10 + 2 * i, 66 - 0.011 * max(0, 72 - 2 * i) ** 2) for i in range(52)]
    write(
        "contrastive",
        "Similar pairs: the squared distance; others: the shortfall from a margin",
        FLOOR,
        curve(squares, BETTER),
        curve(hinge, WORSE),
    )
    write(
        "group_gap",
        "Two groups' errors, pulled together",
        FLOOR,
        *UNEVEN,
        line(36, 40, 36, 26, arrow=True),
        line(84, 4, 84, 14, arrow=True),
    )
    write(
        "group_gap_constraint",
        "Two groups' errors, no further apart than a bound",
        FLOOR,
        bar(26, 34, BETTER),
        bar(74, 48, WORSE),
        line(20, 32, 112, 32, dashed=True),
        line(20, 18, 112, 18, dashed=True),
        line(106, 31, 106, 19, width=2),
        text(116, 29, "b"),
    )
    write(
        "bounded_group_loss",
        "Every group's error, below a bound",
        FLOOR,
        bar(18, 20, BETTER),
        bar(50, 56, WORSE),
        bar(82, 28, BETTER),
        line(8, 32, 112, 32, dashed=True),
        line(60, 12, 60, 28, arrow=True),
    )
    write(
        "worst_group",
        "The largest of the groups' errors, pushed down",
        FLOOR,
        bar(18, 20, BETTER),
        bar(50, 48, WORSE),
        bar(82, 30, BETTER),
        line(60, 2, 60, 15, arrow=True),
    )

    def bell(center):
        xs = range(8, 113, 2)
        return [(x, 66 - 52 * math.exp(-(((x - center) / 18) ** 2))) for x in xs]

    write(
        "group_distribution_gap",
        "Two groups' predictions, distributed alike",
        FLOOR,
        curve(bell(46), BETTER),
        curve(bell(74), WORSE),
    )
    write(
        "function",
        "A function of targets, predictions and what else it needs",
        text(60, 28, "f(y, ŷ, cap)", size=13),
        line(60, 36, 60, 48, arrow=True),
        text(60, 64, "loss", WORSE, 12),
    )
    write(
        "tensor",
        "A tensor of the graph as a loss",
        *(dot(x, 18, 5, BETTER) for x in (28, 60, 92)),
        dot(60, 54, 7, WORSE),
        line(31, 22, 53, 48, arrow=True),
        line(60, 24, 60, 45, arrow=True),
        line(89, 22, 67, 48, arrow=True),
    )


def graph():
    extra = ("y_true", "sample_weight", "group_ids", "…")
    parts = [
        box(4, 8, 96, 34, "features", BETTER),
        box(128, 8, 112, 34, "your predictor", BETTER),
        box(270, 8, 106, 180, "LossEndpoint"),
        box(408, 8, 108, 34, "predictions", BETTER),
        box(408, 108, 108, 34, "losses, metrics", WORSE),
        line(100, 25, 126, 25, BETTER, arrow=True),
        line(240, 25, 268, 25, BETTER, arrow=True),
        line(376, 25, 406, 25, BETTER, arrow=True),
        line(376, 125, 406, 125, WORSE, arrow=True),
    ]
    for i, name in enumerate(extra):
        y = 62 + 32 * i
        parts += [
            box(128, y, 112, 26, name, WORSE),
            line(240, y + 13, 268, y + 13, WORSE, arrow=True),
        ]
    parts += [
        text(62, 60, "exported: blue only", BETTER, 13),
        text(62, 112, "training only:", WORSE, 13),
        text(62, 130, "one Input for each", WORSE, 13),
        text(62, 148, "argument of a loss", WORSE, 13),
    ]
    title = (
        "Features go through your predictor and LossEndpoint to the predictions; targets, "
        "weights and group ids are Inputs of their own, which it turns into losses"
    )
    # Narrow, so that a telephone shows it in letters that can be read.
    write("graph", title, *parts, width=520, height=192)


if __name__ == "__main__":
    sketches()
    graph()
