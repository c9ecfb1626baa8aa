"""The table of demo.md: ten splits, on none of which anything was chosen.

`python docs/studies/demo_study.py` prints it; the settings were chosen on others.
"""

import numpy as np

from addloss_kit.demo import noisy_rows, rare_group, run

SPLITS = range(1, 11)


def main() -> None:
    """Train everything for each split, and print means and standard deviations."""
    weighted, by_term, clear, certificates = [], {}, {}, []
    for seed in SPLITS:
        comparison = noisy_rows.compare_weights(run.EPOCHS, seed)
        weighted.append([comparison.before.means.mean(), comparison.after.means.mean()])
        train, test = rare_group.load_rows(seed)
        models = rare_group.fit_terms(train, epochs=run.EPOCHS, seed=seed)
        reports = {label: rare_group.report(model, test) for label, model in models.items()}
        plain = reports[rare_group.PLAIN]
        for label, report in reports.items():
            changes = rare_group.changes(plain, report)
            is_rare = report.group_ids == rare_group.RARE_DIGIT
            errors = report.row_errors
            row = [
                [errors[is_rare].mean(), changes[f"digit {rare_group.RARE_DIGIT}"].value],
                [errors[~is_rare].mean(), changes["other digits"].value],
                [errors.mean(), changes["all"].value],
            ]
            by_term.setdefault(label, []).append(row)
            comparison = report.compare(plain)
            change = changes[f"digit {rare_group.RARE_DIGIT}"]
            clear.setdefault(label, []).append(
                [
                    change.value + change.margin < 0,
                    changes["all"].value < 0,
                    comparison.is_levelling_down,
                    sum(verdict == "worse" for verdict in comparison.verdicts.values()),
                ]
            )
        certificates.append(
            [rare_group.certify(model, test).verdict for model in models.values()]
        )
        print(
            seed, weighted[-1], {k: np.round(v[-1], 3).tolist() for k, v in by_term.items()}
        )
    values = np.array(weighted)
    print("distance from the truth:", values.mean(0), "±", values.std(0, ddof=1))
    for label, rows in by_term.items():
        rows = np.array(rows)
        print(label, "error, change by part:", np.round(rows.mean(0), 3).tolist())
        print("  standard deviations:", np.round(rows.std(0, ddof=1), 3).tolist())
        names = "8 clearly better; all better; levelling down; digits clearly worse"
        print(f"  splits ({names}):", np.sum(clear[label], axis=0).tolist())
    for label, verdicts in zip(by_term, zip(*certificates)):
        print(label, "certified:", verdicts.count("holds"), "of", len(verdicts))


if __name__ == "__main__":
    main()
