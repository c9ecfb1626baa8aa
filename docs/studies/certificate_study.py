"""How often a certificate is wrong, and how many rows it takes.

`python docs/studies/certificate_study.py` writes the tables of certificate.md in a minute,
and with `--picture` certificate.png from the last of them.
"""

import pathlib
import sys

import numpy as np

from addloss_kit.reports.bounds import (
    any_errors,
    bounded_errors,
    difference_margins,
    group_means,
    margin_above,
    t_quantile,
)

RISK = 0.05
REPEATS = 2000
ERRORS = {
    "squared normal": (lambda rng, n: rng.normal(size=n) ** 2, 1.0),
    "absolute normal": (lambda rng, n: np.abs(rng.normal(size=n)), np.sqrt(2 / np.pi)),
    "lognormal, sigma 1": (lambda rng, n: np.exp(rng.normal(size=n)), np.exp(0.5)),
    "lognormal, sigma 1.5": (
        lambda rng, n: np.exp(1.5 * rng.normal(size=n)),
        np.exp(1.125),
    ),
    "squared t, 5 df": (lambda rng, n: rng.standard_t(5, size=n) ** 2, 5 / 3),
    # Heavier tails than the correction was made for.
    "lognormal, sigma 2": (lambda rng, n: np.exp(2 * rng.normal(size=n)), np.exp(2)),
    "squared t, 4 df": (lambda rng, n: rng.standard_t(4, size=n) ** 2, 2.0),
    "squared t, 3 df": (lambda rng, n: rng.standard_t(3, size=n) ** 2, 3.0),
    "Pareto, index 2.1": (lambda rng, n: rng.pareto(2.1, size=n) + 1, 2.1 / 1.1),
    "Pareto, index 3": (lambda rng, n: rng.pareto(3, size=n) + 1, 1.5),
    # These and some of the above took no part in the choice of the rule.
    "Pareto, index 1.5": (lambda rng, n: rng.pareto(1.5, size=n) + 1, 3.0),
    "gamma, shape 0.3": (lambda rng, n: rng.gamma(0.3, size=n), 0.3),
    "squared, contaminated": (lambda rng, n: contaminated(rng, n) ** 2, 0.98 + 0.02 * 9),
}


def contaminated(rng, n):
    """Standard normal, but 2 % with three times the spread."""
    return rng.normal(size=n) * np.where(rng.random(n) < 0.02, 3.0, 1.0)


def samples(rng, draw, rows, repeats=REPEATS, is_weighted=False):
    """Means of many samples at once: to `group_means` each sample is a group."""
    ids = np.repeat(np.arange(repeats), rows)
    weight = rng.uniform(0.2, 1.0, len(ids)) if is_weighted else np.ones(len(ids))
    return group_means(draw(rng, len(ids)), ids, weight, repeats)


def percent(is_wrong):
    return f"{100 * np.mean(is_wrong):.1f}"


def wrong(upper, truth):
    """Share of wrong bounds among all samples, and of samples with a bound."""
    return f"{percent(upper < truth)} of {100 * np.mean(np.isfinite(upper)):.0f}"


def coverage():
    """Upper bounds at 95 % that are below the truth, and how many there are, in percent."""
    print(
        "| errors | rows | t | Hall | certificate | near | weights | gap, 1 : 1 | 1 : 10 |"
    )
    print("|---|" + 8 * "---:|")
    for name, (draw, truth) in ERRORS.items():
        for rows in (30, 100, 300, 1000):
            rng = np.random.default_rng(rows)
            repeats = REPEATS if rows < 1000 else REPEATS // 2
            means = samples(rng, draw, rows, repeats)
            t = t_quantile(1 - RISK, means.rows - 1) * np.sqrt(means.variance)
            hall = means.upper.whole.margin(RISK)
            cells = [percent(means.mean + margin < truth) for margin in (t, hall)]
            upper = means.mean + margin_above(means, RISK)
            near = upper <= (1.5 if rows <= 100 else 1.25) * truth
            cells += [wrong(upper, truth), f"{100 * np.mean(near):.0f}"]
            weighted = samples(rng, draw, rows, repeats, is_weighted=True)
            cells.append(wrong(weighted.mean + margin_above(weighted, RISK), truth))
            again = np.random.default_rng(rows)  # The same rows, of twice the error.
            worse = samples(again, lambda r, n, d=draw: 2 * d(r, n), rows, repeats)
            # Of as many rows: the next sample.
            others = {1: means.take(np.roll(np.arange(repeats), 1))}
            if rows <= 100:
                others[10] = samples(rng, draw, 10 * rows, REPEATS // 2)
            for other in others.values():
                one = worse.take(np.s_[: len(other.mean)])
                above, _ = difference_margins(any_errors(), one, other, RISK, 1.0)
                cells.append(wrong(one.mean - other.mean + above, truth))
            cells += ["–"] * (2 - len(others))
            print(f"| {name} | {rows} | {' | '.join(cells)} |", flush=True)


def power():
    """Chance that a true bound is certified: gap of 1 between mean errors of 2 and 1."""
    print("\n| rows of each group | bound 1.2 | 1.5 | 2 | 3 |")
    print("|---:|---:|---:|---:|---:|")
    for rows in (30, 100, 300, 1000, 3000):
        rng = np.random.default_rng(rows)
        repeats = 1000 if rows > 300 else REPEATS
        one = samples(rng, lambda r, n: 2 * r.normal(size=n) ** 2, rows, repeats)
        other = samples(rng, lambda r, n: r.normal(size=n) ** 2, rows, repeats)
        above, _ = difference_margins(any_errors(), one, other, RISK, 1.0)
        upper = one.mean - other.mean + above
        cells = [f"{100 * np.mean(upper <= bound):.0f} %" for bound in (1.2, 1.5, 2, 3)]
        print(f"| {rows:,} | {' | '.join(cells)} |")


def rates():
    """Errors of 0 and 1: chance that a worst error of at most 0.2 is certified."""
    print("\n| rows | true rate 0.05 | 0.1 | 0.15 | 0.2001: wrong |")
    print("|---:|---:|---:|---:|---:|")
    for rows in (10, 30, 100, 300, 1000):
        rng = np.random.default_rng(rows)
        cells = []
        for rate in (0.05, 0.1, 0.15, 0.2001):
            means = samples(rng, lambda r, n, p=rate: 1.0 * (r.random(n) < p), rows)
            upper = means.mean + bounded_errors(0.0, 1.0, False).above(means, RISK)
            cells.append(f"{100 * np.mean(upper <= 0.2):.0f} %")
        print(f"| {rows:,} | {' | '.join(cells)} |")


def seldonian():
    """The tutorials' problem: X ~ N(0, 1), Y ~ N(X, 1), MSE < 2 and MSE > 1.25.

    A line is fitted to most of the rows; its predictions are shrunk until the MSE there
    is in the middle of the two bounds; the rest of the rows certify both, each with
    probability 0.9.
    """
    print("\n| rows | a solution | wrong: MSE > 2 | wrong: MSE < 1.25 | MSE of solutions |")
    print("|---:|---:|---:|---:|---:|")
    for rows in (32, 128, 512, 2048, 8192, 65536):
        rng = np.random.default_rng(rows)
        found, high, low, mses = 0, 0, 0, []
        for _ in range(1000 if rows < 10_000 else 200):
            x = rng.normal(size=rows)
            y = x + rng.normal(size=rows)
            k = int(0.6 * rows)
            slope, level = np.polyfit(x[:k], y[:k], 1)
            # A further offset of d adds d² to the MSE of the fit.
            fit = np.mean((y[:k] - slope * x[:k] - level) ** 2)
            level = level + np.sqrt(max(1.625 - fit, 0.0))
            errors = (y[k:] - slope * x[k:] - level) ** 2
            means = group_means(errors, np.zeros(rows - k, int), np.ones(rows - k), 1)
            upper = means.mean + margin_above(means, 0.1)
            lower = means.mean - any_errors().below(means, 0.1)
            if upper[0] < 2.0 and lower[0] > 1.25:
                truth = 1.0 + (1.0 - slope) ** 2 + level**2
                found += 1
                mses.append(truth)
                high, low = high + (truth > 2.0), low + (truth < 1.25)
        n = 1000 if rows < 10_000 else 200
        mse = f"{np.mean(mses):.2f}" if mses else "–"
        shares = [f"{100 * c / n:.1f} %" for c in (found, high, low)]
        print(f"| {rows:,} | {' | '.join(shares)} | {mse} |")


def draw(path):
    """The Seldonian problem, from its table in certificate.md."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    page = pathlib.Path(__file__).with_name("certificate.md").read_text()
    lines = page.split("## The Seldonian problem")[1].splitlines()
    table = [line.strip("|").split("|") for line in lines if line.endswith(" |")]
    cells = [[cell.strip(" %").replace(",", "") for cell in row] for row in table[1:]]
    rows, found, high, low, mse = np.array(
        [[float(c) if c != "–" else np.nan for c in row] for row in cells]
    ).T
    figure, axes = plt.subplots(1, 3, figsize=(8.0, 2.7), layout="constrained")
    axes[0].plot(rows, high, "o-", color="tab:orange", label="MSE > 2")
    axes[0].plot(rows, low, "x--", color="tab:blue", label="MSE < 1.25")
    axes[0].axhline(10, color="black", linewidth=0.8, linestyle=":")
    axes[0].text(rows[0], 10.2, "allowed, each", fontsize=9)
    axes[0].set(title="wrong, in percent", ylim=(-0.5, 12))
    axes[0].legend(loc="center right", fontsize=9)
    axes[1].plot(rows, found, "o-", color="tab:blue")
    axes[1].set(title="a solution found, in percent", ylim=(-4, 104))
    axes[2].plot(rows, mse, "o-", color="tab:blue")
    for bound in (1.25, 2.0):
        axes[2].axhline(bound, color="black", linewidth=0.8, linestyle=":")
        axes[2].text(rows[0], bound + 0.015, f"bound: {bound:g}", fontsize=9)
    axes[2].set(title="MSE of solutions", ylim=(1.2, 2.1))
    for one in axes:
        one.title.set_fontsize(10)
        one.set(xscale="log", xlim=(25, 90_000), xlabel="rows")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    if "--picture" in sys.argv:
        draw(pathlib.Path(__file__).with_name("certificate.png"))
        sys.exit()
    coverage()
    power()
    rates()
    seldonian()
