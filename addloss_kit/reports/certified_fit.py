"""fit_to_certificate: train to a bound that holds on rows to come."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from addloss_kit._checks import named
from addloss_kit._types import ArrayLike
from addloss_kit.data.checking import InputChecker
from addloss_kit.fields import GROUP_IDS
from addloss_kit.model.training_model import TrainingModel
from addloss_kit.reports.certificate import Certified
from addloss_kit.reports.certified_choice import CertifiedChoice, Question
from addloss_kit.reports.curve_training import check_build, names_a_term, tradeoff_curve
from addloss_kit.reports.held_out import HeldOut
from addloss_kit.reports.tradeoff import TradeoffCurve
from addloss_kit.reports.trials import check_model


@overload
def fit_to_certificate(
    build: Callable[[float], Any],
    train: Mapping[str, Any],
    validation: Mapping[str, Any],
    certify_rows: Mapping[str, Any],
    bound: float,
    *,
    of: Certified = ...,
    confidence: float = ...,
    values: Sequence[float] = ...,
    **options: Any,
) -> CertifiedChoice: ...


@overload
def fit_to_certificate(
    model: TrainingModel,
    term: str,
    train: Mapping[str, Any],
    validation: Mapping[str, Any],
    certify_rows: Mapping[str, Any],
    bound: float,
    *,
    of: Certified = ...,
    confidence: float = ...,
    values: Sequence[float] = ...,
    **options: Any,
) -> CertifiedChoice: ...


def fit_to_certificate(*args: Any, **options: Any) -> CertifiedChoice:
    """Train over a range of loss weights, and keep the best whose bound is certain.

    `tradeoff_curve(model, term, train, validation, values)` followed by
    `certify(certify_rows, bound)`; like the former, also with a function `build` instead
    of a model and a term. Whatever can be refused is refused before the training.

    Args:
        model, term, build, train, validation, values: As in `tradeoff_curve`.
        certify_rows: Dict from `pack_inputs`, of rows that took no part in training
            nor in validation.
        bound, of, confidence, errors_within, max_tests, clusters: As in
            `TradeoffCurve.certify`; `clusters` are of `certify_rows`.
        **options: As in `tradeoff_curve`.

    Returns:
        A `CertifiedChoice`: `verdict` is `"holds"` or `"no solution found"`; see also
        `point`, `certificate`, `tests`, `curve` and `build_model()`.

    Raises:
        ValueError: As by `tradeoff_curve` and `TradeoffCurve.certify`.

    Warns:
        UserWarning: If more of the `certify_rows` stand among the other rows, too, or
            more than once, than chance explains.

    Reference: Angelopoulos et al., "Learn then Test", arXiv:2110.01052 (2021).
    """
    is_of_model = names_a_term(args, options)
    return _of_model(*args, **options) if is_of_model else _built(*args, **options)


@named("fit_to_certificate")
def _of_model(
    model: TrainingModel, term: str, *args: Any, **options: Any
) -> CertifiedChoice:
    check_model(model, term)
    train_all = functools.partial(tradeoff_curve, model, term)
    return _fit(train_all, model.input_checker, *args, **options)


@named("fit_to_certificate")
def _built(
    build: Callable[[float], Any],
    train: Mapping[str, Any],
    validation: Mapping[str, Any],
    certify_rows: Mapping[str, Any],
    *args: Any,
    **options: Any,
) -> CertifiedChoice:
    check_build(build)
    parts = {"validation": validation, "certify_rows": certify_rows}

    def checked(value: float) -> Any:
        """A new model; the first one checks the rows before it is trained."""
        model = build(value)
        if parts and isinstance(model, TrainingModel):
            _check_values(model.input_checker, **parts)
            parts.clear()
        return model

    train_all = functools.partial(tradeoff_curve, checked)
    return _fit(train_all, None, train, validation, certify_rows, *args, **options)


@named("fit_to_certificate")
def _fit(
    train_all: Callable[..., TradeoffCurve],
    checker: InputChecker | None,
    train: Mapping[str, Any],
    validation: Mapping[str, Any],
    certify_rows: Mapping[str, Any],
    bound: float,
    *,
    of: Certified = "gap",
    confidence: float = 0.95,
    errors_within: tuple[float, float] | None = None,
    max_tests: int | None = None,
    clusters: ArrayLike | None = None,
    **options: Any,
) -> CertifiedChoice:
    question = Question(bound, of, confidence, errors_within, max_tests)
    held_out = HeldOut(
        train,
        validation,
        options.get("group_ids", GROUP_IDS),
        options.get("group_names"),
        options.get("error", "squared_error"),
    )
    held_out.check()
    if checker is not None:
        _check_values(checker, validation=validation, certify_rows=certify_rows)
    held_out.check_unseen("certify_rows", certify_rows, question.min_groups, clusters)
    curve = train_all(train, validation, **options)
    # Not `certify`, which would compare the rows once more.
    return curve._choose(question, certify_rows, clusters)


def _check_values(checker: InputChecker, **parts: Mapping[str, Any]) -> None:
    """What would be refused only after the training."""
    for name, rows in parts.items():
        try:
            checker.check(checker.by_name(rows))
        except (TypeError, ValueError) as error:
            raise type(error)(f"In `{name}`: {error}") from None
