"""Would an interval of a gap, or of its change, that is drawn anew hold near ties?

`python docs/studies/kinks_study.py` prints what intervals.md says of hybrid resampling, in
ten minutes: a hypothesis is kept if the estimate lies within the middle 95 % of what is
drawn at means that obey it. Only whether the true value is kept is asked. Means of groups
are normal with known standard errors, so this is the best case.
"""

from __future__ import annotations

import itertools

import numpy as np

RISK = 0.05
AT_ONCE = 100  # samples whose distributions are drawn together, for memory


def share_kept(estimates, draw):
    """Of how many samples, in percent, the estimate lies within what `draw` gives."""
    kept = 0
    for first in range(0, len(estimates), AT_ONCE):
        chosen = slice(first, first + AT_ONCE)
        below = (draw(chosen) < estimates[chosen, None]).mean(axis=1)
        kept += np.sum((below > RISK / 2) & (below < 1 - RISK / 2))
    return 100 * kept / len(estimates)


def centre_and_spread(means, errors):
    """The weighted centre `(samples, 1)`, and the χ² of equal means `(samples,)`."""
    weight = errors**-2.0
    centre = (means * weight).sum(axis=1, keepdims=True) / weight.sum()
    return centre, ((means - centre) ** 2 * weight).sum(axis=1)


# One gap ------------------------------------------------------------------------


def of_a_gap(rng, means, errors, samples=4000, draws=2000):
    """Estimated means are drawn together or apart until their gap is the true one."""
    found = means + errors * rng.normal(size=(samples, len(means)))
    noise = errors * rng.normal(size=(draws, len(means)))
    gaps = np.ptp(found, axis=1)
    centre, _ = centre_and_spread(found, errors)
    at_truth = centre + (np.ptp(means) / gaps)[:, None] * (found - centre)
    return share_kept(gaps, lambda c: np.ptp(at_truth[c, None] + noise, axis=2))


def patterns(groups, gap):
    """Means with this gap: one apart, two apart, evenly spread, half and half."""
    yield "one apart", np.r_[np.zeros(groups - 1), gap]
    yield "two apart", np.r_[0.0, np.full(groups - 2, gap / 2), gap]
    yield "even", np.linspace(0.0, gap, groups)
    half = groups // 2
    yield "halves", np.r_[np.zeros(half), np.full(groups - half, gap)]


def gaps(rng):
    for groups, gap in itertools.product(
        (2, 3, 6, 10), (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
    ):
        for name, means in patterns(groups, gap):
            for errors in (np.ones(groups), np.linspace(0.5, 1.5, groups)):
                kept = of_a_gap(rng, means, errors)
                yield kept, f"{groups} groups, {name}, gap {gap}, errors to {errors[-1]}"


# The change of a gap of two groups ------------------------------------------------


SHRUNKEN = {
    "as estimated": lambda q: np.ones_like(q),
    "by the root of moments": lambda q: np.sqrt(np.maximum(0.0, 1.0 - 1.0 / q)),
    "by moments": lambda q: np.maximum(0.0, 1.0 - 1.0 / q),
    "to 0 unless clear": lambda q: (q > 1.0 + 2.0 * np.sqrt(2.0)).astype(float),
}


def projected(after, before, variances, covariance, change):
    """The nearest two gaps, at least 0, that differ by the true change."""
    total = np.maximum(sum(variances) - 2.0 * covariance, 1e-12)
    miss = after - before - change
    after = np.maximum(after - (variances[0] - covariance) / total * miss, 0.0)
    before = np.maximum(after - change, 0.0)
    return before + change, before


def of_a_change(rng, gaps, errors, correlation, shrink, samples=2000, draws=1000):
    """Gaps after and before, of groups whose means have these standard errors."""
    true = [np.array([0.0, gap]) for gap in gaps]

    def noise(number):
        one, other = rng.normal(size=(2, number, 2))
        other = correlation * one + np.sqrt(1.0 - correlation**2) * other
        return errors[0] * one, errors[1] * other

    found = [means + drawn for means, drawn in zip(true, noise(samples))]
    drawn = noise(draws)
    sizes, spreads = zip(
        *(centre_and_spread(m, np.full(2, e)) for m, e in zip(found, errors))
    )
    estimated = [np.ptp(means, axis=1) for means in found]
    signs = np.sign([means[:, 1] - means[:, 0] for means in found])
    covariance = 2.0 * correlation * errors[0] * errors[1] * signs[0] * signs[1]
    one, other = (gap * shrink(q) for gap, q in zip(estimated, spreads))
    variances = [2.0 * error**2 for error in errors]
    kept = projected(one, other, variances, covariance, gaps[0] - gaps[1])
    after, before = (
        centre + (gap / estimate)[:, None] * (means - centre)
        for centre, gap, estimate, means in zip(sizes, kept, estimated, found)
    )

    def draw(chosen):
        new = np.ptp(after[chosen, None] + drawn[0], axis=2)
        return new - np.ptp(before[chosen, None] + drawn[1], axis=2)

    return share_kept(estimated[0] - estimated[1], draw)


def changes(rng, shrink):
    units = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)  # of a difference's standard error
    for one, other in itertools.product(units, repeat=2):
        for correlation, error in itertools.product((0.0, 0.5, 0.9), (1.0, 0.5)):
            gaps = np.sqrt(2.0) * np.array([one, error * other])
            kept = of_a_change(rng, gaps, (1.0, error), correlation, shrink)
            case = f"{one} after, {other} before, correlation {correlation}"
            yield kept, f"{case}, error before {error}"


def show(title, cases):
    cases = sorted(cases)
    kept = np.array([share for share, _ in cases])
    inside = 100 * np.mean((kept >= 93) & (kept <= 97.5))
    print(f"{title}: {len(cases)} cases, {inside:.0f} % of them within 93 to 97.5 %")
    for share, case in [*cases[:3], *cases[-2:]]:
        print(f"  {share:.1f} %: {case}")


def main():
    show("One gap", gaps(np.random.default_rng(2)))
    for name, shrink in SHRUNKEN.items():
        show(f"Change of a gap, gaps {name}", changes(np.random.default_rng(1), shrink))


if __name__ == "__main__":
    main()
