"""Bad inputs of every public entry point: what each raises, and what to do about it.

The one source of `tests/test_bad_inputs.py` and of `docs/errors.md`, which
`python tests/bad_inputs.py` writes.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "errors.md"


@dataclasses.dataclass(frozen=True)
class BadInput:
    """A call that is refused.

    Args:
        id: A name for the test.
        given: The call, an expression over the names of `test_bad_inputs.names`.
        error: Name of the exception's type, or of the warning's.
        message: The message, `…` standing for what depends on the call.
        remedy: What it means and what to do, for the page.
    """

    id: str
    given: str
    error: str
    message: str
    remedy: str

    @property
    def pattern(self) -> str:
        """The message as a regular expression."""
        return ".*".join(re.escape(part) for part in self.message.split("…"))


COUNT_GROUPS = "Count the groups of all data, for example `len(group_names)`."

BUILD = [
    BadInput(
        "predictor-string", "alk.build_training_model('mse', predictor())", "TypeError",
        "`predictor` must be a Keras model.",
        "The predictor comes first, then the losses.",
    ),
    BadInput(
        "predictor-layer", "alk.build_training_model(layers.Dense(1), 'mse')", "TypeError",
        "`predictor` must be a Keras model. Put a layer into one",
        "A layer has no Inputs. Put it into a `keras.Sequential`.",
    ),
    BadInput(
        "predictor-unbuilt",
        "alk.build_training_model(keras.Sequential([layers.Dense(1)]), 'mse')",
        "ValueError", "`predictor` must be built, so that its shapes are known.",
        "Start a Sequential with `keras.Input(shape)`; call a subclassed model once.",
    ),
    BadInput(
        "predictor-with-losses", "alk.build_training_model(model, 'mae')", "ValueError",
        "`predictor` already has losses.",
        "Add the loss with `add_loss`, or take the predictor out first with "
        "`export_inference_model(model)`.",
    ),
    BadInput(
        "no-loss", "alk.build_training_model(predictor(), [])", "ValueError",
        "At least one loss is needed.", "Pass a loss.",
    ),
    BadInput(
        "weights-to-builder",
        "alk.build_training_model(predictor(), 'mse', sample_weight=y)",
        "TypeError",
        "`sample_weight` must say whether there are weights, `True` or `False`.",
        "Pass `True` here, and the weights to `pack_inputs`.",
    ),
    BadInput(
        "loss-number", "alk.build_training_model(predictor(), 3)", "TypeError",
        "A loss must be a name, a Keras loss, a LossTerm or a function.",
        "Pass one of these, or a list of them. Weights go to `loss_weights=`.",
    ),
    BadInput(
        "loss-misspelled", "alk.build_training_model(predictor(), 'huber_loss')",
        "ValueError",
        "Check the spelling. Did you mean `huber`? Received: loss='huber_loss'.",
        "Use one of Keras's names, such as `huber`.",
    ),
    BadInput(
        "loss-term-by-name", "alk.build_training_model(predictor(), 'group_gap')",
        "ValueError", "Terms have arguments, so they have no names as Keras's losses have. "
        "Pass an object, `losses.GroupGap(...)`.", "Pass `losses.GroupGap(num_groups=2)`.",
    ),
    BadInput(
        "two-of-one-name", "alk.build_training_model(predictor(), ['mse', 'mse'])",
        "ValueError", "Two of the losses are named ['mse'].",
        "Names are the keys of the history. Give one another: "
        "`losses.KerasLoss('mse', name='again')`.",
    ),
    BadInput(
        "losses-by-output", "alk.build_training_model(predictor(), {'y': 'mse'})",
        "ValueError", "`losses` by output name needs a predictor with several outputs.",
        "Pass the loss itself, or a list.",
    ),
    BadInput(
        "unknown-output", "alk.build_training_model(two_outputs(), {'prize': 'mse'})",
        "ValueError", "`losses` names ['prize'], but the predictor's outputs are "
        "['price', 'sold']. Did you mean `price`?",
        "Use the names of the outputs: the keys of a dict, or the names of the layers.",
    ),
    BadInput(
        "one-loss-for-two-outputs", "alk.build_training_model(two_outputs(), ['mse'])",
        "ValueError",
        "`losses` must have one entry per output, or be a dict by output name.",
        "Give each output a loss, a list, or `None`; or use a dict.",
    ),
    BadInput(
        "loss-weight-infinite",
        "alk.build_training_model(predictor(), 'mse', loss_weights=[np.inf])",
        "ValueError", "`loss_weights` must be finite.", "Pass a finite number.",
    ),
    BadInput(
        "loss-weight-too-large",
        "alk.build_training_model(predictor(), 'mse', loss_weights=[1e39])",
        "ValueError", "`loss_weights` must be finite in float32.",
        "The weight is infinite in the tensors' dtype. Pass a smaller one.",
    ),
    BadInput(
        "loss-weight-text",
        "alk.build_training_model(predictor(), 'mse', loss_weights=['0.5'])",
        "TypeError", "`loss_weights` must be a number. Received: loss_weights='0.5'.",
        "Pass a number, not text.",
    ),
    BadInput(
        "loss-weights-all-0",
        "alk.build_training_model(predictor(), ['mse', 'mae'], loss_weights=[0, 0])",
        "ValueError",
        "`loss_weights` must not be 0 for all losses, which would train nothing.",
        "Give one loss a weight, or a schedule that starts at 0.",
    ),
    BadInput(
        "loss-weights-too-many",
        "alk.build_training_model(predictor(), 'mse', loss_weights=[1.0, 2.0])",
        "ValueError", "`loss_weights` must have one number per loss.",
        "Pass as many as there are losses, or a dict by name.",
    ),
    BadInput(
        "loss-weights-unknown",
        "alk.build_training_model(predictor(), 'mse', loss_weights={'mae': 1.0})",
        "ValueError", "`loss_weights` names ['mae'], but the losses are ['mse'].",
        "Use the losses' names. For weights of classes or rows, use `sample_weight`.",
    ),
    BadInput(
        "metric-misspelled",
        "alk.build_training_model(predictor(), 'mse', metrics=['mean_absolut_error'])",
        "ValueError",
        "A metric must be a name that `keras.metrics.get` knows…Did you mean "
        "`mean_absolute_error`?", "Use one of Keras's names.",
    ),
    BadInput(
        "metric-number", "alk.build_training_model(predictor(), 'mse', metrics=[3])",
        "TypeError", "A metric must be a name, a Keras metric or a function.",
        "Pass one of these, or a list of them.",
    ),
    BadInput(
        "metrics-twice",
        "alk.build_training_model(predictor(), 'mse', metrics=['mae', 'mae'])",
        "ValueError", "Two of the metrics are named ['mae'].",
        "Names are the keys of the history. Give one another `name=`.",
    ),
    BadInput(
        "metrics-by-output",
        "alk.build_training_model(predictor(), 'mse', metrics={'y': 'mae'})", "ValueError",
        "`metrics` by output name needs a predictor with several outputs.",
        "Pass a list.",
    ),
    BadInput(
        "one-key-two-meanings",
        "alk.build_training_model(predictor(), [losses.KerasLoss('mse', name='a'), "
        "losses.KerasLoss('mae', name='a_loss')], "
        "metrics=[keras.metrics.MeanSquaredError(name='a')])",
        "ValueError", "Every key of the history must have one meaning.",
        "A loss is logged as `<name>_loss` where a metric has its name. Rename one.",
    ),
    BadInput(
        "two-numbers-of-groups",
        "alk.build_training_model(predictor(), losses.GroupGap(2), "
        "metrics=[metrics.GroupError(3)])",
        "ValueError", "Input `group_ids` cannot have two values of `num_groups`: 2 for "
        "group_gap, 3 for group_error.",
        "Use one number; or, for another attribute, another Input: `group_ids='age'`.",
    ),
    BadInput(
        "inputs-unknown",
        "alk.build_training_model(predictor(), 'mse', inputs={'y_tru': keras.Input((1,))})",
        "ValueError", "`inputs=` names ['y_tru'], which no loss or metric takes. Expected "
        "some of ['y_true']. Did you mean `y_true`?",
        "Inputs have the names of the arguments that they feed.",
    ),
    BadInput(
        "inputs-shape",
        "alk.build_training_model(predictor(), 'mse', inputs={'y_true': (1,)})",
        "TypeError", "`inputs['y_true']` must be a `keras.Input`.",
        "Pass `keras.Input((1,))`.",
    ),
    BadInput(
        "inputs-feature",
        "alk.build_training_model(predictor(), 'mse', inputs={'x': keras.Input((2,))})",
        "ValueError", "`inputs=` would ignore ['x']",
        "A functional predictor has its own feature Inputs. Change them there.",
    ),
    BadInput(
        "inputs-whole-weights",
        "alk.build_training_model(predictor(), 'mse', sample_weight=True, "
        "inputs={'sample_weight': keras.Input((), dtype='int32')})",
        "ValueError", "The weights `sample_weight` may be fractions",
        "Leave out the `dtype`.",
    ),
    BadInput(
        "tensors-array",
        "alk.build_training_model(predictor(), lambda y_pred, h: h, tensors={'h': x})",
        "TypeError", "`tensors['h']` must be a KerasTensor of the predictor",
        "Pass the output of a layer: `predictor.get_layer('hidden').output`.",
    ),
    BadInput(
        "tensors-unused",
        "alk.build_training_model(predictor(), 'mse', "
        "tensors={'h': keras.Input((2,), name='h')})",
        "ValueError", "`tensors['h']` must be computed from the predictor's inputs ['x'].",
        "Take the tensor from the predictor's own graph.",
    ),
    BadInput(
        "function-without-prediction",
        "alk.build_training_model(predictor(), lambda y_true, delta: delta)",
        "ValueError", "takes no prediction, so it cannot train anything.",
        "Name the parameters after what they hold: `y_true`, `y_pred`, an Input.",
    ),
    BadInput(
        "function-of-all-pairs",
        "alk.build_training_model(predictor(), "
        "lambda y_true, y_pred, cap: ops.minimum(ops.abs(y_true - y_pred), cap))",
        "ValueError", "compares every row with every other",
        "`(batch,)` and `(batch, 1)` broadcast to `(batch, batch)`. Index the column as "
        "`[:, 0]`, or declare the Input as `(1,)`.",
    ),
    BadInput(
        "function-of-two-losses",
        "alk.build_training_model(predictor(), lambda y_true, y_pred: [y_pred, y_pred])",
        "TypeError", "must return a scalar or a value per row.",
        "Pass several functions for several losses.",
    ),
    BadInput(
        "error-without-rows",
        "alk.build_training_model(predictor(), "
        "losses.GroupGap(2, error=keras.losses.Dice()))",
        "ValueError", "A group's error needs a loss with one value per sample.",
        "Use a loss that keeps the rows apart.",
    ),
]  # fmt: skip

CLASS_WEIGHT = [
    BadInput(
        "class-weight-number",
        "alk.build_training_model(predictor(), 'mse', class_weight=2.0)", "TypeError",
        "`class_weight` must be a dict of weights by class",
        "Pass `{0: 1.0, 1: 5.0}`; with several outputs, a dict of such dicts by output.",
    ),
    BadInput(
        "class-weight-class",
        "alk.build_training_model(predictor(), 'mse', class_weight={2: 5.0})", "ValueError",
        "`class_weight` must name classes in [0, 2)",
        "Classes are numbered from 0; a single output tells two apart.",
    ),
]  # fmt: skip

DERIVATIVE = [
    BadInput(
        "derivative-column", "alk.derivative(predictor(), by=2)", "ValueError",
        "`by` must be a column of an Input `(batch, features)`.",
        "Columns are counted from 0.",
    ),
    BadInput(
        "derivative-of-training-model", "alk.derivative(model, by=0)", "ValueError",
        "`predictor` must have no losses yet.",
        "Pass the predictor, before it goes to `build_training_model`.",
    ),
]  # fmt: skip

ADD_LOSS = [
    BadInput(
        "value-array", "alk.add_loss(functional_model(), np.float32(1.0))", "TypeError",
        "`value` must be a KerasTensor",
        "Compute it from the model's Inputs and outputs with `keras.ops`.",
    ),
    BadInput(
        "value-per-row", "alk.add_loss(base, base.outputs[0])", "ValueError",
        "A loss must be a scalar. Reduce it, e.g. with `keras.ops.mean(value)`.",
        "Take the mean over the rows.",
    ),
    BadInput(
        "value-of-another-input",
        "alk.add_loss(base, ops.mean(base.outputs[0] - keras.Input((1,), name='z')))",
        "ValueError",
        "The loss needs the Inputs ['z'], which the model lacks. Build it with them: "
        "`keras.Model([*model.inputs, z], model.outputs[0])`.",
        "Every Input of the loss must be an Input of the model.",
    ),
    BadInput(
        "weight-text", "alk.add_loss(base, value, weight='1')", "TypeError",
        "`weight` must be a number.", "Pass a number or a schedule.",
    ),
    BadInput(
        "weight-infinite", "alk.add_loss(base, value, weight=np.inf)", "ValueError",
        "`weight` must be finite.", "Pass a finite number.",
    ),
    BadInput(
        "model-subclassed", "alk.add_loss(subclassed(), value)", "TypeError",
        "`model` must be a functional model",
        "In a subclassed model, call `self.add_loss` in `call`.",
    ),
    BadInput(
        "model-unbuilt",
        "alk.add_loss(keras.Sequential([layers.Dense(1)]), value)", "ValueError",
        "A Sequential must be built, so that it has an output.",
        "Start it with `keras.Input(shape)`.",
    ),
    BadInput(
        "name-taken",
        "alk.add_loss(alk.add_loss(base, value, name='a'), value, name='a')", "ValueError",
        "The name `a` is taken.", "Names are the keys of the history. Pass another.",
    ),
    BadInput(
        "name-with-slash", "alk.add_loss(base, value, name='a/b')", "ValueError",
        "`name` must be text without `/`", "Pass another name.",
    ),
    BadInput(
        "add-loss-method", "alk.add_loss(base, value).add_loss(value)",
        "NotImplementedError", "Keras 3 has no `model.add_loss` in functional models. Use "
        "the function, `model = addloss_kit.add_loss(model, value)`.",
        "`model = alk.add_loss(model, value)`.",
    ),
]  # fmt: skip

ADD_METRIC = [
    BadInput(
        "metric-per-row", "alk.add_metric(base, base.outputs[0], name='m')", "ValueError",
        "A metric must be a scalar.", "Take the mean over the rows.",
    ),
    BadInput(
        "metric-without-name", "alk.add_metric(base, value, name=None)", "ValueError",
        "A metric needs a `name`, its key in the history.", "Pass a name.",
    ),
    BadInput(
        "metric-array", "alk.add_metric(base, 1.0, name='m')", "TypeError",
        "`value` must be a KerasTensor",
        "Compute it from the model's Inputs and outputs with `keras.ops`.",
    ),
]  # fmt: skip

GROUP_LOSSES = [
    BadInput(
        "no-groups", "losses.GroupGap(0)", "ValueError",
        "`num_groups` must be a whole number of at least 1.", COUNT_GROUPS,
    ),
    BadInput(
        "groups-float", "losses.WorstGroup(2.0)", "TypeError",
        "`num_groups` must be a whole number of at least 1.", "Pass an integer.",
    ),
    BadInput(
        "groups-bool", "losses.GroupDistributionGap(True)", "TypeError",
        "`num_groups` must be a whole number of at least 1.", "Pass an integer.",
    ),
    BadInput(
        "one-group", "losses.GroupGap(1)", "UserWarning",
        "`GroupGap` compares groups, so with one group it is always 0.", COUNT_GROUPS,
    ),
    BadInput(
        "one-group-constraint", "losses.GroupGapConstraint(1, bound=0.1)", "UserWarning",
        "`GroupGapConstraint` compares groups, so with one group it is always 0.",
        COUNT_GROUPS,
    ),
    BadInput(
        "one-group-distribution", "losses.GroupDistributionGap(1)", "UserWarning",
        "`GroupDistributionGap` compares groups, so with one group it is always 0.",
        COUNT_GROUPS,
    ),
    BadInput(
        "error-misspelled", "losses.GroupGap(2, error='squared_eror')", "ValueError",
        "Did you mean `squared_error`", "Use a name of Keras or of the literature.",
    ),
    BadInput(
        "distance", "losses.GroupGap(2, distance='square')", "ValueError",
        "Invalid value for argument `distance`. Expected one of ['squared', 'absolute']. "
        "Did you mean `squared`?", "Use one of the two.",
    ),
    BadInput(
        "between", "losses.GroupGap(2, between='pair')", "ValueError",
        "Invalid value for argument `between`. Expected one of ['pairs', 'range', "
        "'overall']. Did you mean `pairs`?", "Use one of the three.",
    ),
    BadInput(
        "push", "losses.GroupGap(2, push='up')", "ValueError",
        "Invalid value for argument `push`. Expected one of ['both', 'down'].",
        "Nothing pushes errors up alone. Use one of the two.",
    ),
    BadInput(
        "absent-group", "losses.GroupGap(2, absent_group='drop')", "ValueError",
        "Invalid value for argument `absent_group`. Expected one of ['skip', "
        "'zero_error'].",
        "Use one of the two.",
    ),
    BadInput(
        "momentum-1", "losses.GroupGap(2, momentum=1.0)", "ValueError",
        "`momentum` must lie in [0, 1).",
        "With 1 nothing would ever be learned. Use `'auto'`, or a number below 1.",
    ),
    BadInput(
        "momentum-1-in-float32", "losses.WorstGroup(2, momentum=0.99999999)", "ValueError",
        "`momentum` must lie in [0, 1) in float32.",
        "In the tensors' dtype it is 1. Use a smaller number.",
    ),
    BadInput(
        "momentum-word", "losses.GroupGap(2, momentum='aut')", "ValueError",
        "`momentum` must be \"auto\" or a number in [0, 1).", "Write `'auto'`.",
    ),
    BadInput(
        "force-0", "losses.GroupGap(2, max_force=0.0)", "ValueError",
        "`max_force` must be positive, or infinity for no limit.",
        "With 0 the term trains nothing. Leave it out, or pass a positive number.",
    ),
    BadInput(
        "ids-array", "losses.GroupGap(2, group_ids=ids)", "TypeError",
        "`group_ids` must be the name of an Input.",
        "Here it is a name. The ids go to `pack_inputs(group_ids=...)`.",
    ),
    BadInput(
        "option-misspelled", "losses.GroupGap(2, momentm=0.9)", "ValueError|TypeError",
        "momentm", "There is no such option. Check its spelling.",
    ),
    BadInput(
        "step-word", "losses.WorstGroup(2, step_size='aut')", "ValueError",
        "`step_size` must be \"auto\" or a positive number.", "Write `'auto'`.",
    ),
    BadInput(
        "step-yes", "losses.WorstGroup(2, step_size=True)", "TypeError",
        "`step_size` must be a number.", "Write `'auto'`, or a number.",
    ),
    BadInput(
        "step-infinite", "losses.WorstGroup(2, step_size=np.inf)", "ValueError",
        "`step_size` must be positive and finite.", "Pass a finite number.",
    ),
    BadInput(
        "bound-0", "losses.BoundedGroupLoss(2, bound=0.0)", "ValueError",
        "`bound` must be a positive number, or one per group.",
        "No model has an error of 0. Pass an error that can be reached.",
    ),
    BadInput(
        "bound-infinite", "losses.BoundedGroupLoss(2, bound=np.inf)", "ValueError",
        "`bound` must be a positive number, or one per group.",
        "An infinite bound holds nothing. Leave the term out.",
    ),
    BadInput(
        "bound-too-small", "losses.BoundedGroupLoss(2, bound=1e-50)", "ValueError",
        "`bound` must be a positive number, or one per group.",
        "In the tensors' dtype it is 0. Scale the target up.",
    ),
    BadInput(
        "bounds-too-many", "losses.BoundedGroupLoss(2, bound=[1.0, 1.0, 1.0])",
        "ValueError", "`bound` must be a positive number, or one per group.",
        "Pass one number, or as many as there are groups.",
    ),
    BadInput(
        "bound-text", "losses.BoundedGroupLoss(2, bound='low')", "TypeError",
        "`bound` must be a number, or one per group.", "Pass a number.",
    ),
    BadInput(
        "gap-bound-negative", "losses.GroupGapConstraint(2, bound=-0.1)", "ValueError",
        "`bound` must lie in [0, inf).", "A gap is at least 0.",
    ),
    BadInput(
        "gap-bound-infinite", "losses.GroupGapConstraint(2, bound=1e39)", "ValueError",
        "`bound` must lie in [0, inf) in float32.",
        "In the tensors' dtype it is infinite. Leave the term out.",
    ),
    BadInput(
        "gap-bound-list", "losses.GroupGapConstraint(2, bound=[0.1, 0.1])", "TypeError",
        "`bound` must be a number.", "There is one gap, so one bound.",
    ),
    BadInput(
        "penalty-infinite", "losses.BoundedGroupLoss(2, bound=1.0, penalty=np.inf)",
        "ValueError", "`penalty` must be positive and finite.", "Pass a finite number.",
    ),
    BadInput(
        "tolerance-negative", "losses.BoundedGroupLoss(2, bound=1.0, tolerance=-0.1)",
        "ValueError", "`tolerance` must lie in [0, inf).", "Pass a number of at least 0.",
    ),
    BadInput(
        "kernel", "losses.GroupDistributionGap(2, kernel='gausian')", "ValueError",
        "Invalid value for argument `kernel`. Expected one of ['gaussian', 'laplacian']. "
        "Did you mean `gaussian`?", "Use one of the two.",
    ),
    BadInput(
        "called-without-ids", "losses.GroupGap(2)([[1.0]], [[1.0]])", "TypeError",
        "`group_gap` takes ['y_true', 'y_pred', 'group_ids', 'sample_weight', 'mask']. "
        "Pass them, or train with `build_training_model`: `compile(loss=...)` has only "
        "`(y_true, y_pred)`. Received: missing a required argument: 'group_ids'.",
        "Pass the ids, too.",
    ),
]  # fmt: skip

OTHER_LOSSES = [
    BadInput(
        "keras-loss-misspelled", "losses.KerasLoss('msee')", "ValueError",
        "A loss must be a name that `keras.losses.get` knows", "Check the spelling.",
    ),
    BadInput(
        "loss-of-no-kind", "losses.get(3)", "TypeError",
        "A loss must be a name, a Keras loss, a LossTerm or a function.",
        "Pass one of these.",
    ),
    BadInput(
        "no-reduction", "losses.KerasLoss(keras.losses.MeanSquaredError(reduction=None))",
        "ValueError", "A term is a single number, so its loss needs a reduction.",
        "Construct it with `reduction='sum_over_batch_size'`.",
    ),
    BadInput(
        "price-negative", "losses.AsymmetricAbsoluteError(-1.0)", "ValueError",
        "must lie in [0, inf).", "A price is at least 0.",
    ),
    BadInput(
        "prices-0", "losses.AsymmetricAbsoluteError(0.0, 0.0)", "ValueError",
        "must not both be 0, which would train nothing.", "Give one error a price.",
    ),
    BadInput(
        "margin-0", "losses.Contrastive(margin=0.0)", "ValueError",
        "`margin` must be positive and finite.",
        "With 0, pairs that are not alike cost nothing.",
    ),
    BadInput(
        "margin-text", "losses.Contrastive(margin='1')", "TypeError",
        "`margin` must be a number.", "Pass a number.",
    ),
    BadInput(
        "weights-negative", "losses.WeightedMSE(weights=[1.0, -1.0])", "ValueError",
        "`weights` must be finite and at least 0, one per output, and not all 0.",
        "Pass one weight per output.",
    ),
    BadInput(
        "weights-0", "losses.WeightedRMSE(weights=[0.0, 0.0])", "ValueError",
        "`weights` must be finite and at least 0, one per output, and not all 0.",
        "Weights of 0 train nothing. Give one output a weight.",
    ),
    BadInput(
        "weights-number", "losses.WeightedRMSE(weights=1.0)", "ValueError",
        "`weights` must be finite and at least 0, one per output, and not all 0.",
        "Pass a list, or `sample_weight`.",
    ),
    BadInput(
        "weights-too-many",
        "alk.build_training_model(predictor(), losses.WeightedMSE(weights=[1.0, 2.0]))",
        "ValueError", "`weights` must have one weight per output.",
        "Pass as many as the predictor has outputs.",
    ),
    BadInput(
        "weights-missing", "losses.WeightedRMSE()([[1.0]], [[2.0]])", "ValueError",
        "`weighted_rmse` needs weights.",
        "Pass `sample_weight`, or construct the term with `weights=`; train with "
        "`build_training_model`.",
    ),
    BadInput(
        "weights-nan", "losses.WeightedResidualNorm(weights=[np.nan])", "ValueError",
        "`weights` must be finite and at least 0, one per output, and not all 0.",
        "Pass finite numbers.",
    ),
    BadInput(
        "over", "losses.WeightedRMSE(over='samples')", "ValueError",
        "Invalid value for argument `over`. Expected one of ['batch', 'sample']. Did you "
        "mean `sample`?", "Use one of the two.",
    ),
    BadInput(
        "term-without-totals", "losses.LossTerm()()", "NotImplementedError",
        "A LossTerm must define `totals`.", "Derive a class, and define the method.",
    ),
]  # fmt: skip

METRICS = [
    BadInput(
        "metric-no-groups", "metrics.GroupError(0)", "ValueError",
        "`num_groups` must be a whole number of at least 1.", COUNT_GROUPS,
    ),
    BadInput(
        "metric-too-many-groups", "metrics.GroupError(2000)", "ValueError",
        "`GroupError` logs one number per group, for at most 1000.",
        "Use `metrics.GroupGap`, or `group_report` after training.",
    ),
    BadInput(
        "metric-names-too-few", "metrics.GroupError(2, group_names=['a'])", "ValueError",
        "`group_names` must have one name per group.", "Name every group.",
    ),
    BadInput(
        "metric-names-twice", "metrics.GroupError(2, group_names=['a', 'a'])", "ValueError",
        "`group_names` must differ from one another.",
        "The names are keys of the history. Rename one.",
    ),
    BadInput(
        "metric-error", "metrics.GroupError(2, error='absolut_error')", "ValueError",
        "Did you mean `absolute_error`", "Check the spelling.",
    ),
    BadInput(
        "metric-one-group", "metrics.GroupGap(1)", "UserWarning",
        "`metrics.GroupGap` compares groups, so with one group it is always 0.",
        COUNT_GROUPS,
    ),
    BadInput(
        "metric-distance", "metrics.GroupGap(2, distance='squares')", "ValueError",
        "Invalid value for argument `distance`.", "Use `'squared'` or `'absolute'`.",
    ),
    BadInput(
        "bound-of", "metrics.BoundIsMet(2, bound=1.0, of='errors')", "ValueError",
        "Invalid value for argument `of`. Expected one of ['error', 'gap'].",
        "Use one of the two.",
    ),
    BadInput(
        "bound-of-gap-list", "metrics.BoundIsMet(2, bound=[1.0, 1.0], of='gap')",
        "ValueError", "`bound` must be a number, finite and at least 0",
        "There is one gap, so one bound.",
    ),
    BadInput(
        "bound-of-text", "metrics.BoundIsMet(2, bound='low')", "TypeError",
        "`bound` must be a number, or one per group.", "Pass a number.",
    ),
    BadInput(
        "bound-of-one-group", "metrics.BoundIsMet(1, bound=1.0, of='gap')", "UserWarning",
        "compares groups, so with one group it is always 0.", COUNT_GROUPS,
    ),
]  # fmt: skip

PACK = [
    BadInput(
        "pack-target-missing", "alk.pack_inputs(model, x)", "ValueError",
        "The model also needs ['y_true']. Pass `y=`.", "Pass the targets.",
    ),
    BadInput(
        "pack-rows", "alk.pack_inputs(model, x, y[:3])", "ValueError",
        "must have one row per row of", "Features and targets must have as many rows.",
    ),
    BadInput(
        "pack-no-rows", "alk.pack_inputs(model, x[:0], y[:0])", "ValueError",
        "There must be at least one row.", "Check what was filtered.",
    ),
    BadInput(
        "pack-feature-shape", "alk.pack_inputs(model, np.ones((4, 3)), y)", "ValueError",
        "`x` must have shape (None, 2), rows first.", "Pass the predictor's features.",
    ),
    BadInput(
        "pack-target-nan", "alk.pack_inputs(model, x, [1.0, np.nan, 3.0, 4.0])",
        "ValueError", "`y_true` must be finite.…at row 1.",
        "Drop the row, or put 0 there with a `sample_weight` of 0.",
    ),
    BadInput(
        "pack-target-text", "alk.pack_inputs(model, x, ['a', 'b', 'c', 'd'])", "TypeError",
        "`y_true` must be numbers, float32.", "Encode labels first.",
    ),
    BadInput(
        "pack-unknown", "alk.pack_inputs(model, x, y, delta=y)", "ValueError",
        "The model has no Input `delta`. Its Inputs are ['x', 'y_true'].",
        "An Input has the name of the loss argument that it feeds. A parameter with a "
        "default gets none, unless `inputs=` has it.",
    ),
    BadInput(
        "pack-misspelled", "alk.pack_inputs(grouped, x, y, groups=ids)", "ValueError",
        "The model has no Input `groups`. Its Inputs are ['x', 'y_true', 'group_ids']. Did "
        "you mean `group_ids`?", "Use the names of the Inputs.",
    ),
    BadInput(
        "pack-no-target", "alk.pack_inputs(alk.add_loss(base, value), x, y)", "ValueError",
        "The model has no Input for `y`. It feeds one that is named `y_true`.",
        "Here the target's Input has a name of its own: `pack_inputs(model, x, target=y)`.",
    ),
    BadInput(
        "pack-weights-shape",
        "alk.pack_inputs(weighted, x, y, sample_weight=np.ones((4, 2)))", "ValueError",
        "`sample_weight` must have shape (None,), rows first. Pass one weight per row, or "
        "per element of the target.", "A `Weighted…` term takes a weight per element.",
    ),
    BadInput(
        "pack-weights-of-outputs",
        "alk.pack_inputs(by_element, x, np.ones((4, 3)), sample_weight=[1, 2, 1])",
        "ValueError", "Weights of the outputs, for all rows, go to the loss: "
        "`WeightedMSE(weights=[...])`.",
        "Pass them there, or one row of weights per row.",
    ),
    BadInput(
        "pack-no-weights", "alk.pack_inputs(model, x, y, sample_weight=y)", "ValueError",
        "The model has no Input for `sample_weight`. Build it with `sample_weight=True`",
        "Build the model with `sample_weight=True`, or leave the weights out.",
    ),
    BadInput(
        "pack-weights-negative",
        "alk.pack_inputs(weighted, x, y, sample_weight=[1, 1, -1, 1])", "ValueError",
        "`sample_weight` must be at least 0.", "Weights are at least 0.",
    ),
    BadInput(
        "pack-weights-0", "alk.pack_inputs(weighted, x, y, sample_weight=[0, 0, 0, 0])",
        "ValueError", "`sample_weight` must not be 0 for all rows",
        "They would train nothing. Give some rows a weight.",
    ),
    BadInput(
        "pack-ids-missing", "alk.pack_inputs(grouped, x, y)", "ValueError",
        "The model also needs ['group_ids'].", "Pass `group_ids=`.",
    ),
    BadInput(
        "pack-ids-outside", "alk.pack_inputs(grouped, x, y, group_ids=[0, 1, 2, 1])",
        "ValueError", "`group_ids` must lie in [0, 2) for num_groups=2, or be -1 for no "
        "group. Received: 1 ids outside, the first being 2 at row 2.",
        "Count the groups anew, or give the row the id -1.",
    ),
    BadInput(
        "pack-ids-fraction", "alk.pack_inputs(grouped, x, y, group_ids=[0, 1, 0.5, 1])",
        "ValueError", "`group_ids` must be whole numbers.", "Use `encode_groups`.",
    ),
    BadInput(
        "pack-ids-labels", "alk.pack_inputs(grouped, x, y, group_ids=['f', 'm', 'f', 'm'])",
        "TypeError", "Encode labels first (group labels with `ids, names = "
        "encode_groups(labels)`).",
        "`ids, names = alk.encode_groups(labels)`.",
    ),
    BadInput(
        "pack-ids-one-hot", "alk.pack_inputs(grouped, x, y, group_ids=np.eye(2)[ids])",
        "ValueError", "`group_ids` must have shape (None,), rows first. Pass one id per "
        "row, such as `one_hot.argmax(-1)`.", "Pass `one_hot.argmax(-1)`.",
    ),
    BadInput(
        "pack-ids-twice",
        "alk.pack_inputs(grouped, {'x': x, 'group_ids': ids}, y, group_ids=ids)",
        "ValueError", "Input `group_ids` is given twice.", "Give it once.",
    ),
    BadInput(
        "pack-class-outside", "alk.pack_inputs(classes, x, [0, 1, 2, 3])", "ValueError",
        "`y_true` must hold classes in [0, 3), as many as the prediction has.",
        "Number the classes from 0.",
    ),
    BadInput(
        "pack-one-hot", "alk.pack_inputs(classes, x, np.eye(3)[[0, 1, 2, 0]])",
        "ValueError",
        "`sparse_categorical_crossentropy` takes the number of each class, not one-hot "
        "rows. Pass `y.argmax(-1)`, or use the loss `categorical_crossentropy`.",
        "The two losses compute the same, from the two forms of a target.",
    ),
    BadInput(
        "pack-class-numbers", "alk.pack_inputs(one_hot, x, [0, 1, 2, 0])", "ValueError",
        "`categorical_crossentropy` takes one-hot rows, not the number of each class. Pass "
        "`keras.utils.to_categorical(y, 3)`, or use the loss "
        "`sparse_categorical_crossentropy`.",
        "The two losses compute the same, from the two forms of a target.",
    ),
    BadInput(
        "pack-one-hot-of-two", "alk.pack_inputs(binary, x, np.eye(2)[[0, 1, 1, 0]])",
        "ValueError",
        "`binary_crossentropy` on one output takes 0 or 1 for each row, not one-hot rows.",
        "Pass `y.argmax(-1)`, or give the predictor two outputs.",
    ),
    BadInput(
        "pack-for-predictor", "alk.pack_inputs(predictor(), x, y)", "TypeError",
        "`model` must be a training model.",
        "Pass what `build_training_model` or `add_loss` returned.",
    ),
    BadInput(
        "pack-does-not-fit", "alk.pack_inputs(model, x, [1.0, 1e39, 1.0, 1.0])",
        "ValueError", "`y_true` does not fit into float32.",
        "Scale the target, or give the Input a wider dtype.",
    ),
    BadInput(
        "pack-complex", "alk.pack_inputs(model, x, y + 1j)", "TypeError",
        "`y_true` must be real numbers", "Take the real part, or the magnitude.",
    ),
    BadInput(
        "pack-masked", "alk.pack_inputs(model, x, np.ma.masked_array(y, [1, 0, 0, 0]))",
        "ValueError", "`y_true` must have no masked entries",
        "Drop the rows, or fill them with `.filled(value)`.",
    ),
    BadInput(
        "pack-outputs", "alk.pack_inputs(two, x, y)", "ValueError",
        "`y` must be a dict by output name, for ['price', 'sold'].",
        "`y={'price': ..., 'sold': ...}`.",
    ),
    BadInput(
        "pack-output-unknown", "alk.pack_inputs(two, x, {'prize': y, 'sold': y})",
        "ValueError", "`y` names `prize`, but the model expects ['price', 'sold'].",
        "Use the outputs' names.",
    ),
]  # fmt: skip

PACK_STREAM = [
    BadInput(
        "stream-array", "alk.pack_dataset(model, packed)", "TypeError",
        "`dataset` must be a stream of batches. Pack arrays with `pack_inputs`.",
        "A dict of arrays is no stream. `pack_inputs` takes it.",
    ),
    BadInput(
        "stream-no-columns", "alk.pack_dataset(model, [(x, y)])", "ValueError",
        "In batch 0 of `dataset`: `columns` must say what the parts of a batch are",
        "Name the parts: `columns=('x', 'y')`.",
    ),
    BadInput(
        "stream-columns-text", "alk.pack_dataset(model, [(x, y)], columns='xy')",
        "TypeError", "`columns` must have one word per part of a batch. Pass a tuple",
        "`columns=('x', 'y')`.",
    ),
    BadInput(
        "stream-columns-unknown",
        "alk.pack_dataset(model, [(x, y)], columns=('x', 'target'))", "ValueError",
        "`columns` must name each part once, with some of ['x', 'y', 'sample_weight', "
        "'y_true'], or `None` to leave it out.",
        "Use the words of `pack_inputs`, or names of Inputs.",
    ),
    BadInput(
        "stream-columns-few", "alk.pack_dataset(model, [(x, y)], columns=('x',))",
        "ValueError",
        "In batch 0 of `dataset`: `columns` must have one word per part of a batch.",
        "Write `None` for a part that the model does not take.",
    ),
    BadInput(
        "stream-key-unknown", "alk.pack_dataset(model, [{'x': x, 'y': y, 'age': y}])",
        "ValueError", "In batch 0 of `dataset`: The model has no Inputs ['age'].",
        "Name what the model takes: `columns={'x': 'x', 'y': 'y'}` leaves the rest out.",
    ),
    BadInput(
        "stream-key-missing",
        "alk.pack_dataset(model, [{'x': x}], columns={'x': 'x', 'label': 'y'})",
        "ValueError", "`columns` names the keys ['label'], which the batch lacks.",
        "The keys of `columns` are those of the batches, its values words.",
    ),
    BadInput(
        "stream-dicts-by-tuple",
        "alk.pack_dataset(model, [{'x': x, 'y': y}], columns=('x', 'y'))", "TypeError",
        "`columns` must be a dict of words by key, as the batches are dicts.",
        "A dict has no order of its own. Pass `columns={'x': 'x', 'y': 'y'}`, or omit it.",
    ),
    BadInput(
        "stream-empty", "alk.pack_dataset(model, [])", "ValueError",
        "`dataset` must have a batch.", "The list, or the generator, is empty.",
    ),
    BadInput(
        "stream-target-missing",
        "alk.pack_dataset(model, stream((x,)), columns=('x',))", "ValueError",
        "The model also needs ['y_true']. Pass `y=`.",
        "Add a part `y` to the batches.",
    ),
    BadInput(
        "stream-first-batch",
        "alk.pack_dataset(grouped, [(x, y, ids + 1)], columns=('x', 'y', 'group_ids'))",
        "ValueError",
        "In batch 0 of `dataset`: `group_ids` must lie in [0, 2) for num_groups=2",
        "Number the groups from 0. The first batch is checked at once, all others by "
        "`fit`, `evaluate` and `predict`.",
    ),
]  # fmt: skip

PARQUET = [
    BadInput(
        "parquet-columns", "alk.parquet_dataset(parquet, model, 2, columns=['x0', 'x1'])",
        "TypeError", "`columns` must be a dict of columns by word",
        "Say what each column is: `columns={'x': ['x0', 'x1'], 'y': 'y'}`.",
    ),
    BadInput(
        "parquet-paths", "alk.parquet_dataset(model, parquet, 2, columns={'x': 'x0'})",
        "TypeError", "`paths` must be paths of files. Call `parquet_dataset(paths, model, "
        "batch_size, columns=...)`.", "The files come first, then the model.",
    ),
    BadInput(
        "parquet-folder",
        "alk.parquet_dataset(parquet.parent, model, 2, columns={'x': 'x0', 'y': 'y'})",
        "FileNotFoundError", "`paths` must be paths of files. List those of a folder with "
        "`sorted(pathlib.Path(folder).glob('*.parquet'))`.", "Pass that list.",
    ),
    BadInput(
        "parquet-columns-reversed",
        "alk.parquet_dataset(parquet, model, 2, columns={'x0': 'x', 'y': 'y'})",
        "ValueError", "`columns` must be columns by word, such as `{'x': ['a', 'b'], 'y': "
        "'c'}`. The model has no Input `x0`.",
        "The keys are the words of `pack_inputs`, the values columns.",
    ),
    BadInput(
        "parquet-labels",
        "alk.parquet_dataset(parquet, grouped, 2, columns={'x': ['x0', 'x1'], 'y': 'y', "
        "'group_ids': 'sex'})", "TypeError",
        "`group_ids` must be ids, or labels with names. Pass `group_names=[...]`, the "
        "labels in the order of their ids.", "Pass `group_names=['f', 'm']`.",
    ),
    BadInput(
        "parquet-column-missing",
        "alk.parquet_dataset(parquet, model, 2, columns={'x': ['x0', 'x9'], 'y': 'y'})",
        "ValueError", "`columns` names ['x9'], which…lacks.", "Use the file's columns.",
    ),
    BadInput(
        "parquet-target-missing",
        "alk.parquet_dataset(parquet, model, 2, columns={'x': ['x0', 'x1']})",
        "ValueError", "The model also needs ['y_true']. Pass `y=`.",
        "Name a column for every Input.",
    ),
    BadInput(
        "parquet-shard",
        "alk.parquet_dataset(parquet, model, 2, columns={'x': ['x0', 'x1'], 'y': 'y'}, "
        "shard=(1, 2))", "ValueError",
        "`shard` must be `(index, count)` with a row group for each index.",
        "Write more row groups: `pyarrow.parquet.write_table(..., row_group_size=...)`.",
    ),
    BadInput(
        "parquet-label-unknown",
        "alk.parquet_dataset(parquet, grouped, 2, columns={'x': ['x0', 'x1'], 'y': 'y', "
        "'group_ids': 'sex'}, group_names=['f', 'x'])", "ValueError",
        "In row group 0 of …parquet: ", "Pass all names, from `encode_groups`.",
    ),
    BadInput(
        "parquet-sizes",
        "alk.parquet_dataset(parquet, grouped, 2, columns={'x': ['x0', 'x1'], 'y': 'y', "
        "'group_ids': 'sex'}, group_names=['f', 'm'], balance_groups=True, "
        "group_sizes={0: 1})", "ValueError",
        "`group_sizes` must add up to the rows that this process reads.",
        "Omit it, so that rows are counted.",
    ),
    BadInput(
        "parquet-sizes-list",
        "alk.parquet_dataset(parquet, grouped, 2, columns={'x': ['x0', 'x1'], 'y': 'y', "
        "'group_ids': 'sex'}, group_names=['f', 'm'], balance_groups=True, "
        "group_sizes=[1, 2])", "TypeError", "`group_sizes` must be a dict",
        "Pass rows by id, such as `{0: 900, 1: 100}`.",
    ),
    BadInput(
        "parquet-balance-column",
        "alk.parquet_dataset(parquet, model, 2, columns={'x': ['x0', 'x1'], 'y': 'y'}, "
        "balance_groups=True)", "ValueError",
        "`balance_groups` needs the column of the ids.",
        "Name the column that holds the group ids.",
    ),
    BadInput(
        "parquet-undo-alone",
        "alk.parquet_dataset(parquet, model, 2, columns={'x': ['x0', 'x1'], 'y': 'y'}, "
        "undo_weights=True)", "ValueError",
        "`undo_weights` and `group_sizes` need `balance_groups`.",
        "Pass `balance_groups=True`, or omit them.",
    ),
]  # fmt: skip

MAKE = [
    BadInput(
        "data-array", "alk.make_dataset(x, 2)", "TypeError",
        "`inputs` must be a dict of arrays by Input name.", "Make it with `pack_inputs`.",
    ),
    BadInput(
        "data-empty", "alk.make_dataset({}, 2)", "ValueError",
        "`inputs` must hold an array.", "Make it with `pack_inputs`.",
    ),
    BadInput(
        "data-scalar", "alk.make_dataset({'x': x, 'cap': 2.0}, 2)", "ValueError",
        "`cap` must have one entry per row. Repeat it for each row.",
        "`np.full(len(x), 2.0)`.",
    ),
    BadInput(
        "data-masked", "alk.make_dataset({'x': np.ma.masked_array(y, [1, 0, 0, 0])}, 2)",
        "ValueError", "`x` must have no masked entries",
        "Drop the rows. Make the arrays with `pack_inputs`.",
    ),
    BadInput(
        "data-rows", "alk.make_dataset({'x': x, 'y_true': y[:3]}, 2)", "ValueError",
        "`y_true` must have one row per row of `x`.", "All arrays have the same rows.",
    ),
    BadInput(
        "batch-size-0", "alk.make_dataset(packed, 0)", "ValueError",
        "`batch_size` must be a whole number of at least 1.", "Pass rows per batch.",
    ),
    BadInput(
        "batch-size-float", "alk.make_dataset(packed, 2.0)", "TypeError",
        "`batch_size` must be a whole number of at least 1.", "Pass an integer.",
    ),
    BadInput(
        "batch-too-large", "alk.make_dataset(packed, 8, drop_remainder=True)", "ValueError",
        "There must be at least one full batch.",
        "Use smaller batches, or keep the remainder.",
    ),
    BadInput(
        "seed-text", "alk.make_dataset(packed, 2, seed='a')", "TypeError",
        "`seed` must be a whole number", "Pass an integer.",
    ),
    BadInput(
        "balance-without-ids", "alk.make_dataset(packed, 2, balance_groups=True)",
        "ValueError", "`balance_groups` needs the ids in the entry `group_ids`.",
        "Pack the ids, or name their entry with `group_ids=`.",
    ),
    BadInput(
        "balance-number", "alk.make_dataset(with_ids, 2, balance_groups=1)", "TypeError",
        "`balance_groups` must be True, or one share per group", "Pass `True`.",
    ),
    BadInput(
        "balance-share-0", "alk.make_dataset(with_ids, 2, balance_groups=[1.0, 0.0])",
        "ValueError", "`balance_groups[1]` must be positive and finite.",
        "With 0 a group would be in no batch. Drop its rows instead.",
    ),
    BadInput(
        "balance-names",
        "alk.make_dataset(with_ids, 2, balance_groups={'f': 1.0, 'm': 1.0})", "ValueError",
        "`balance_groups` must have one share for each group in the data, by id.",
        "Use the ids: `{0: 1.0, 1: 1.0}`.",
    ),
    BadInput(
        "balance-small-batch", "alk.make_dataset(with_ids, 1, balance_groups=True)",
        "ValueError", "With `balance_groups`, a batch must have a row for each group.",
        "Use larger batches.",
    ),
    BadInput(
        "balance-unshuffled",
        "alk.make_dataset(with_ids, 2, balance_groups=True, shuffle=False)", "ValueError",
        "`balance_groups` draws rows by chance.", "Leave `shuffle` at True.",
    ),
    BadInput(
        "balance-fractions",
        "alk.make_dataset({'group_ids': np.array([0, 1, 0.5, 1])}, 4, "
        "balance_groups=True)", "ValueError",
        "`group_ids` must be whole numbers, -1 for no group.", "Use `encode_groups`.",
    ),
    BadInput(
        "undo-without-balance", "alk.make_dataset(packed, 2, undo_weights=True)",
        "ValueError", "`undo_weights` undoes `balance_groups`, so it needs it.",
        "Pass both or none.",
    ),
    BadInput(
        "undo-without-weights",
        "alk.make_dataset(with_ids, 2, balance_groups=True, undo_weights=True)",
        "ValueError", "`undo_weights` needs an entry `sample_weight`",
        "Build the model with `sample_weight=True` and pack weights of 1.",
    ),
]  # fmt: skip

ENCODE = [
    BadInput(
        "labels-scalar", "alk.encode_groups('f')", "ValueError",
        "`labels` must be one label per row, or several columns.", "Pass a list.",
    ),
    BadInput(
        "labels-3d", "alk.encode_groups(np.zeros((2, 2, 2)))", "ValueError",
        "`labels` must be one label per row, or several columns.", "Reshape them.",
    ),
    BadInput(
        "labels-unknown", "alk.encode_groups(['x'], group_names=['f', 'm'])", "ValueError",
        "`labels` must be in `group_names`.…labels[0]='x'",
        "Make the names from all data, or set the label to `None`.",
    ),
    BadInput(
        "names-twice", "alk.encode_groups(['f'], group_names=['f', 'f'])", "ValueError",
        "`group_names` must differ from one another.", "Remove one.",
    ),
    BadInput(
        "names-text", "alk.encode_groups(['f'], group_names='fm')", "TypeError",
        "`group_names` must be a list of names.", "Pass a list.",
    ),
    BadInput(
        "columns-rows", "alk.encode_groups({'sex': ['f'], 'age': ['20', '30']})",
        "ValueError", "`column 1 of labels` must have one row per row of",
        "All columns have the same rows.",
    ),
    BadInput(
        "combinations-read-the-same",
        "alk.encode_groups({'a': ['a & b', 'a'], 'b': ['c', 'b & c']})", "ValueError",
        "Two groups must not have the same name.", "Rename labels that contain `&`.",
    ),
]  # fmt: skip

TRAIN = [
    BadInput(
        "compile-metrics", "model.compile('sgd', metrics=['mae'])", "ValueError",
        "`compile(metrics=...)` compares outputs with `y`, which this model does not take.",
        "Pass `metrics=` to `build_training_model`.",
    ),
    BadInput(
        "compile-loss-weights", "model.compile('sgd', loss_weights=[0.5])", "ValueError",
        "`compile(loss_weights=...)` would be ignored",
        "Pass `loss_weights=` to `build_training_model`, or set `model.loss_weights`.",
    ),
    BadInput(
        "set-unknown-weight", "model.loss_weights.update(mae=1.0)", "KeyError",
        "No term is named `mae`. The terms are ['mse'].", "Use the losses' names.",
    ),
    BadInput(
        "set-infinite-weight", "model.loss_weights.update(mse=np.inf)", "ValueError",
        "`loss_weights['mse']` must be finite.", "Pass a finite number.",
    ),
    BadInput(
        "set-weight-text", "model.loss_weights.update(mse='a')", "TypeError",
        "`loss_weights['mse']` must be a number.", "Pass a number.",
    ),
    BadInput(
        "set-weights-list", "model.loss_weights.update([1.0])", "TypeError",
        "`loss_weights` must be a dict by the name of the term: ['mse'].", "Pass a dict.",
    ),
    BadInput(
        "remove-weight", "model.loss_weights.pop('mse')", "TypeError",
        "A term cannot be taken out. Set `loss_weights['mse'] = 0.0`.", "Set it to 0.",
    ),
    BadInput(
        "fit-target", "model.fit(packed, y, verbose=0)", "ValueError",
        "`fit` would ignore `y=`", "Put it into the dict: `pack_inputs(model, x, y)`.",
    ),
    BadInput(
        "fit-weights", "model.fit(packed, sample_weight=y, verbose=0)", "ValueError",
        "`fit` would ignore `sample_weight=`", "Pass the weights to `pack_inputs`.",
    ),
    BadInput(
        "fit-class-weight", "model.fit(packed, class_weight={0: 2.0}, verbose=0)",
        "ValueError", "`fit` would ignore `class_weight=`",
        "Pass `class_weight=` to `build_training_model`.",
    ),
    BadInput(
        "fit-validation-target",
        "model.fit(packed, validation_data=(packed, y), verbose=0)", "ValueError",
        "`validation_data` would ignore `y=`", "Pass one packed dict.",
    ),
    BadInput(
        "evaluate-target", "model.evaluate(packed, y, verbose=0)", "ValueError",
        "`evaluate` would ignore `y=`", "Put it into the dict.",
    ),
    BadInput(
        "train-on-batch-target", "model.train_on_batch(packed, y)", "ValueError",
        "`train_on_batch` would ignore `y=`", "Put it into the dict.",
    ),
    BadInput(
        "checkpoint-unregistered",
        "unregistered.fit(packed, verbose=0, "
        "callbacks=[keras.callbacks.ModelCheckpoint(folder / 'm.keras')])", "ValueError",
        "cannot be saved, because no later process could find it.",
        "Decorate it with `@keras.saving.register_keras_serializable('your_package')`.",
    ),
    BadInput(
        "save-unregistered", "unregistered.save(folder / 'm.keras')", "ValueError",
        "cannot be saved, because no later process could find it.",
        "Decorate it with `@keras.saving.register_keras_serializable('your_package')`.",
    ),
    BadInput(
        "predict-features", "model.predict(x, verbose=0)", "ValueError",
        "Predict from features alone with `export_inference_model(model)`.",
        "A training model takes targets, too. Predict with the exported one.",
    ),
    BadInput(
        "predict-on-batch-features", "model.predict_on_batch(x)", "ValueError",
        "Predict from features alone with `export_inference_model(model)`.",
        "A training model takes targets, too. Predict with the exported one.",
    ),
    BadInput(
        "call-features", "model(x)", "ValueError",
        "Predict from features alone with `export_inference_model(model)`.",
        "A training model takes targets, too. Call the exported one.",
    ),
    BadInput(
        "training-model-by-hand", "alk.TrainingModel(base.inputs, base.outputs)",
        "ValueError", "A TrainingModel needs a LossEndpoint in its graph.",
        "Use `build_training_model` or `add_loss`.",
    ),
]  # fmt: skip

RAW = [
    BadInput(
        "fit-unknown-key", "model.fit({**packed, 'z': y}, verbose=0)", "ValueError",
        "The data must have one entry for each Input ['x', 'y_true']: `z` is not one of "
        "them.", "Leave the entry out.",
    ),
    BadInput(
        "fit-key-missing", "model.fit({'x': x}, verbose=0)", "ValueError",
        "The data must have one entry for each Input ['x', 'y_true']: `y_true` is missing.",
        "Use `pack_inputs`, which names what is needed.",
    ),
    BadInput(
        "fit-features", "model.fit(x, verbose=0)", "ValueError",
        "The model has 2 Inputs, ['x', 'y_true'], so it takes a dict",
        "Use `pack_inputs(model, x, y)`.",
    ),
    BadInput(
        "fit-rows", "model.fit({'x': x, 'y_true': y[:3]}, verbose=0)", "ValueError",
        "`y_true` must have one row per row of `x`.", "All entries have the same rows.",
    ),
    BadInput(
        "fit-shape", "model.fit({'x': np.ones((4, 3)), 'y_true': y}, verbose=0)",
        "ValueError", "`x` must have shape (None, 2), rows first.",
        "Pass the predictor's features.",
    ),
    BadInput(
        "fit-nan", "model.fit({'x': x, 'y_true': y * np.nan}, verbose=0)", "ValueError",
        "`y_true` must be finite.", "Drop the rows without a target.",
    ),
    BadInput(
        "fit-text", "model.fit({'x': x, 'y_true': ['a', 'b', 'c', 'd']}, verbose=0)",
        "TypeError", "`y_true` must be numbers, float32.", "Encode labels first.",
    ),
    BadInput(
        "fit-ids-outside", "grouped.fit({**with_ids, 'group_ids': ids + 1}, verbose=0)",
        "ValueError", "`group_ids` must lie in [0, 2) for num_groups=2",
        "Count the groups anew, or give the row the id -1.",
    ),
    BadInput(
        "fit-ids-fraction", "grouped.fit({**with_ids, 'group_ids': ids / 2}, verbose=0)",
        "ValueError", "`group_ids` must be whole numbers.", "Use `encode_groups`.",
    ),
    BadInput(
        "fit-weights-negative",
        "weighted.fit({**packed, 'sample_weight': -y}, verbose=0)", "ValueError",
        "`sample_weight` must be at least 0.", "Weights are at least 0.",
    ),
    BadInput(
        "fit-weights-0", "weighted.fit({**packed, 'sample_weight': 0 * y}, verbose=0)",
        "ValueError", "`sample_weight` must not be 0 for all rows",
        "They would train nothing.",
    ),
    BadInput(
        "fit-validation-split", "model.fit(packed, validation_split=1.5, verbose=0)",
        "ValueError", "`validation_split` must lie in [0, 1).",
        "Pass the share of the rows to hold out, such as 0.2.",
    ),
    BadInput(
        "fit-validation-split-of-no-rows",
        "model.fit(packed, validation_split=0.999, verbose=0)", "ValueError",
        "`validation_split` must leave rows for both parts.",
        "Choose another share, or pass `validation_data=`.",
    ),
    BadInput(
        "fit-validation-nan",
        "model.fit(packed, validation_data={'x': x, 'y_true': y * np.nan}, verbose=0)",
        "ValueError", "`y_true` must be finite.", "Drop the rows without a target.",
    ),
    BadInput(
        "evaluate-nan", "model.evaluate({'x': x, 'y_true': y * np.nan}, verbose=0)",
        "ValueError", "`y_true` must be finite.", "Drop the rows without a target.",
    ),
    BadInput(
        "train-on-batch-nan", "model.train_on_batch({'x': x, 'y_true': y * np.nan})",
        "ValueError", "`y_true` must be finite.", "Drop the rows without a target.",
    ),
    BadInput(
        "test-on-batch-nan", "model.test_on_batch({'x': x, 'y_true': y * np.nan})",
        "ValueError", "`y_true` must be finite.", "Drop the rows without a target.",
    ),
    BadInput(
        "fit-unpacked-dataset",
        "grouped.fit(alk.make_dataset({**with_ids, 'group_ids': ids + 1}, 2), verbose=0)",
        "ValueError", "`group_ids` must lie in [0, 2) for num_groups=2",
        "Pack the arrays before `make_dataset`.",
    ),
    BadInput(
        "fit-stream-of-tuples", "model.fit(stream((x, y)), verbose=0)", "ValueError",
        "`fit` would ignore all but the first part of the tuples, because targets and "
        "weights are Inputs of the model. Yield dicts with the keys ['x', 'y_true']",
        "Yield dicts.",
    ),
    BadInput(
        "fit-stream-of-other-rank",
        "model.fit(stream({'x': np.ones((4, 2, 1, 1)), 'y_true': y}), verbose=0)",
        "ValueError", "`x` must have shape (None, 2), rows first.",
        "Yield batches of features.",
    ),
    BadInput(
        "fit-stream-key", "model.fit(stream({'x': x}), verbose=0)", "ValueError",
        "`y_true` is missing.", "Yield dicts with an entry for each Input.",
    ),
    BadInput(
        "fit-stream-text",
        "model.fit(stream({'x': x, 'y_true': np.array(['a'] * 4)}), verbose=0)",
        "TypeError", "`y_true` must be real numbers, float32.",
        "Convert it in the dataset's `map`.",
    ),
    BadInput(
        "fit-generator-nan",
        "model.fit(iter_once({'x': x, 'y_true': y * np.nan}), verbose=0)",
        "ValueError", "In batch 0 of `fit`: `y_true` must be finite.",
        "Filter the rows without a target.",
    ),
    BadInput(
        "fit-generator-ids",
        "grouped.fit(iter_once({**with_ids, 'group_ids': ids + 1}), verbose=0)",
        "ValueError", "In batch 0 of `fit`: `group_ids` must lie in [0, 2)",
        "Number the groups from 0.",
    ),
    BadInput(
        "fit-other-stream", "model.fit({1, 2}, verbose=0)", "TypeError",
        "`fit` takes arrays, a `tf.data.Dataset`, `keras.utils.PyDataset`",
        "Yield the batches from a generator.",
    ),
]  # fmt: skip

EXPORT = [
    BadInput(
        "export-predictor", "alk.export_inference_model(predictor())", "ValueError",
        "`training_model` must have losses in its graph.",
        "Pass the training model; a plain Keras model has `save` and `export`.",
    ),
    BadInput(
        "export-leak", "alk.export_inference_model(leaky)", "ValueError",
        "The prediction depends on the training-only Input `group_ids`, so it cannot be "
        "exported.", "Remove it from the predictor's features.",
    ),
    BadInput(
        "export-output", "alk.export_inference_model(two, outputs=['prize'])", "ValueError",
        "`outputs` must name some of the model's outputs, ['price', 'sold'].",
        "Use the outputs' names.",
    ),
    BadInput(
        "export-format-misspelled",
        "alk.export_inference_model(model, folder / 'm.onnx', format='onx')", "ValueError",
        "`format` must be one of ['keras', 'tf_saved_model', 'onnx', 'litert']…Did you "
        "mean `onnx`?", "Use one of these, or a suffix that tells.",
    ),
    BadInput(
        "export-no-format", "alk.export_inference_model(model, folder / 'm')", "ValueError",
        "or `filepath` end in one of ['.keras', '.onnx', '.tflite'].",
        "Pass `format=`, or a suffix that tells.",
    ),
    BadInput(
        "export-suffix",
        "alk.export_inference_model(model, folder / 'm.keras', format='onnx')",
        "ValueError", "For `format='onnx'` the `filepath` must end in `.onnx`.",
        "Change one of the two.",
    ),
    BadInput(
        "export-no-path", "alk.export_inference_model(model, format='onnx')", "ValueError",
        "`format` needs a `filepath`.", "Pass both or none.",
    ),
    BadInput(
        "export-remote", "alk.export_inference_model(model, 'gs://bucket/m.keras')",
        "ValueError", "`filepath` must be on a local disk",
        "Write it to a local disk, then copy it.",
    ),
    BadInput(
        "export-path-number", "alk.export_inference_model(model, 3)", "TypeError",
        "`filepath` must be a path.", "Pass text or a `pathlib.Path`.",
    ),
    BadInput(
        "export-over-directory", "alk.export_inference_model(model, files)", "ValueError",
        "`format` must be one of", "Choose a file, or `format='tf_saved_model'`.",
    ),
    BadInput(
        "export-no-rows",
        "alk.export_inference_model(model, folder / 'm.keras', sample=x[:0])",
        "ValueError", "`sample` must hold at least one row",
        "The file is compared on these rows. Pass some, or leave it out.",
    ),
    BadInput(
        "export-sample-shape",
        "alk.export_inference_model(model, folder / 'm.keras', sample=np.ones((3, 5)))",
        "ValueError", "`sample` must fit the predictor: `x` has shape (None, 2).",
        "Pass rows of features.",
    ),
    BadInput(
        "export-sample-nan",
        "alk.export_inference_model(model, folder / 'm.keras', sample=x * np.nan)",
        "ValueError", "`sample` must hold finite numbers",
        "NaN equals every file's prediction. Pass rows as they will come.",
    ),
    BadInput(
        "export-sample-name",
        "alk.export_inference_model(model, folder / 'm.keras', sample={'z': x})",
        "ValueError", "`sample` names ['z'], but the features are ['x'].",
        "Use the features' names.",
    ),
]  # fmt: skip

LOAD = [
    BadInput(
        "load-nothing", "alk.load_training_model(folder / 'm.keras')", "FileNotFoundError",
        "`filepath` must be a file that `save` wrote.", "Check the path.",
    ),
    BadInput(
        "load-number", "alk.load_training_model(3)", "TypeError",
        "`filepath` must be a path.", "Pass text or a `pathlib.Path`.",
    ),
    BadInput(
        "load-truncated", "alk.load_training_model(files / 'truncated.keras')",
        "ValueError", "The file could not be loaded: it is truncated, damaged",
        "Load another copy.",
    ),
    BadInput(
        "load-text", "alk.load_training_model(files / 'text.keras')", "ValueError",
        "The file could not be loaded: it is truncated, damaged, not a Keras file",
        "Pass what `model.save` wrote.",
    ),
    BadInput(
        "load-weights", "alk.load_training_model(files / 'model.weights.h5')", "ValueError",
        "The file could not be loaded",
        "Build the model, then call `model.load_weights`.",
    ),
    BadInput(
        "load-predictor", "alk.load_training_model(files / 'predictor.keras')",
        "ValueError", "The file must hold a training model.",
        "Load an exported predictor with `keras.saving.load_model`.",
    ),
    BadInput(
        "load-unregistered", "alk.load_training_model(files / 'foreign.keras')",
        "ValueError", "The file could not be loaded, as it needs ['shop>own_loss'], which "
        "nothing has registered here.…`custom_objects={'shop>own_loss': own_loss}`",
        "Import the module that defines it, or pass it as `custom_objects`.",
    ),
]  # fmt: skip

LAST_LAYER = [
    BadInput(
        "last-layer-predictor", "alk.fit_last_layer(predictor(), packed)", "TypeError",
        "`model` must be a compiled `TrainingModel`.",
        "Call `build_training_model` and `compile`.",
    ),
    BadInput(
        "last-layer-uncompiled",
        "alk.fit_last_layer(alk.build_training_model(predictor(), 'mse'), packed)",
        "TypeError", "`model` must be a compiled `TrainingModel`.", "Call `compile`.",
    ),
    BadInput(
        "last-layer-rows-of-another-model", "alk.fit_last_layer(grouped, packed)",
        "ValueError", "`group_ids` is missing.", "Pack the rows for this model.",
    ),
    BadInput(
        "last-layer-features-only", "alk.fit_last_layer(model, x)", "TypeError",
        "`rows` must be a dict of arrays in memory.", "Pack them with `pack_inputs`.",
    ),
    BadInput(
        "last-layer-validation", "alk.fit_last_layer(model, packed, validation=(x, y))",
        "TypeError", "`validation` must be a dict of arrays in memory.",
        "Pack it with `pack_inputs`.",
    ),
    BadInput(
        "last-layer-epochs", "alk.fit_last_layer(model, packed, epochs=0)", "ValueError",
        "`epochs` must be a whole number of at least 1.", "Train at least once.",
    ),
    BadInput(
        "last-layer-patience", "alk.fit_last_layer(model, packed, patience=-1)",
        "ValueError", "`patience` must be a whole number of at least 1.",
        "Use `None` to train for all epochs.",
    ),
    BadInput(
        "last-layer-not-finite",
        "alk.fit_last_layer(model, {**packed, 'x': x * [[1], [1], [np.nan], [1]]})",
        "ValueError", "What `rows` give to the last layer must be finite.…row 2.",
        "Drop the rows, or put a number there; a model with weights of NaN has diverged.",
    ),
    BadInput(
        "last-layer-frozen", "alk.fit_last_layer(frozen, packed)", "ValueError",
        "A prediction must come from a layer with trainable weights.",
        "Set `layer.trainable = True`.",
    ),
    BadInput(
        "last-layer-nested", "alk.fit_last_layer(nested, packed)", "ValueError",
        "The last layer must be visible, but it is inside another model.",
        "Build the predictor from layers.",
    ),
    BadInput(
        "last-layer-tied", "alk.fit_last_layer(tied, {**packed, 'y_true': x})",
        "ValueError", "The last layers must be trainable by themselves",
        "Its weights are those of an earlier layer, too: freeze what is to stay, or use "
        "`fit`.",
    ),
]  # fmt: skip

REPORT = [
    BadInput(
        "report-rows", "alk.group_report(y, y[:3], ids)", "ValueError",
        "`y_pred` must have one row per row of `y_true`.", "Predict for the same rows.",
    ),
    BadInput(
        "report-outputs", "alk.group_report(np.ones((4, 2)), np.ones((4, 3)), ids)",
        "ValueError", "`y_pred` must have the shape of `y_true`.",
        "Pass as many outputs as targets.",
    ),
    BadInput(
        "report-scalar", "alk.group_report(1.0, 1.0, 0)", "ValueError",
        "`y_true` must have one entry per row.", "Pass arrays.",
    ),
    BadInput(
        "report-text", "alk.group_report(['a', 'b', 'c', 'd'], y, ids)", "TypeError",
        "`y_true` must be numbers", "Encode labels first.",
    ),
    BadInput(
        "report-masked", "alk.group_report(np.ma.masked_array(y, [1, 0, 0, 0]), y, ids)",
        "ValueError", "`y_true` must have no masked entries", "Drop the rows.",
    ),
    BadInput(
        "report-masked-clusters",
        "alk.group_report(y, y, ids, clusters=np.ma.masked_array(ids, [1, 0, 0, 0]))",
        "ValueError", "`clusters` must have no masked entries",
        "Give rows that depend on no other a cluster of their own.",
    ),
    BadInput(
        "report-nan", "alk.group_report(y, [1.0, np.nan, 1.0, 1.0], ids)", "ValueError",
        "Every row must have a finite error.…y_pred[1]=[nan]",
        "Find out why the prediction is not finite.",
    ),
    BadInput(
        "report-model-without-x", "alk.group_report(y, predictor(), ids)", "ValueError",
        "A model needs `x` to predict from.", "Pass `x=`.",
    ),
    BadInput(
        "report-ids-outside", "alk.group_report(y, y, [-2, 0, 0, 1])", "ValueError",
        "`group_ids` must lie in [0, 2), or be -1 for no group.…-2 at row 0",
        "Use ids from 0; -1 means no group.",
    ),
    BadInput(
        "report-ids-of-customers", "alk.group_report(y, y, [7, 7, 10**9, 10**9])",
        "ValueError", "`group_ids` must be ids from 0, one after another.",
        "Number the groups with `encode_groups`.",
    ),
    BadInput(
        "report-names-too-few", "alk.group_report(y, y, ids, group_names=['f'])",
        "ValueError", "`group_ids` must lie in [0, 1), as `group_names` has 1 names",
        "Name every group.",
    ),
    BadInput(
        "report-names-twice", "alk.group_report(y, y, ids, group_names=['f', 'f'])",
        "ValueError", "`group_names` must differ from one another.", "Rename one.",
    ),
    BadInput(
        "report-no-group", "alk.group_report(y, y, [-1, -1, -1, -1])", "ValueError",
        "At least one row must have a group.", "Number the groups from 0.",
    ),
    BadInput(
        "report-weights-negative",
        "alk.group_report(y, y, ids, sample_weight=[1, -1, 1, 1])", "ValueError",
        "`sample_weight` must be finite and at least 0.", "Weights are at least 0.",
    ),
    BadInput(
        "report-weights-0", "alk.group_report(y, y, ids, sample_weight=[0, 0, 0, 0])",
        "ValueError", "`sample_weight` must not be 0 for all rows",
        "Leave the weights out.",
    ),
    BadInput(
        "report-error", "alk.group_report(y, y, ids, error='absolut_error')", "ValueError",
        "Did you mean `absolute_error`", "Check the spelling.",
    ),
    BadInput(
        "report-error-of-classes",
        "alk.group_report(y, y, ids, error='categorical_crossentropy')", "ValueError",
        "`categorical_crossentropy` takes the last axis of `y_pred` for the outputs or "
        "classes of a row", "Pass `(rows, classes)`.",
    ),
    BadInput(
        "report-measure-misspelled", "alk.group_report(y, y, ids, error='acuracy')",
        "ValueError", "Did you mean `accuracy`", "Check the spelling.",
    ),
    BadInput(
        "report-metric-first", "alk.group_report(y, y, ids, error='r2')", "ValueError",
        "The first error decides gap, worst group, comparisons and certificates",
        "Put an error with one value per row first: `{'MSE': 'mse', 'R²': 'r2'}`.",
    ),
    BadInput(
        "report-score-first", "alk.group_report(y, y, ids, error='accuracy')",
        "ValueError", "must have a value on every row, the smaller the better",
        "Use `'error_rate'`.",
    ),
    BadInput(
        "report-no-error", "alk.group_report(y, y, ids, error={})", "ValueError",
        "`error` must name an error at least.", "Omit it for the squared error.",
    ),
    BadInput(
        "report-heading", "alk.group_report(y, y, ids, error={'n': 'mse'})", "ValueError",
        "`error` must have headings as keys", "Rename it: the table has that column.",
    ),
    BadInput(
        "report-logits", "alk.group_report(y, [0.2, 3.1, -2, 1], ids, error='error_rate')",
        "ValueError", "Rates of labels need labels or probabilities in `y_pred`.…"
        "y_pred[1]=3.1", "Apply the `sigmoid` to logits.",
    ),
    BadInput(
        "report-one-hot",
        "alk.group_report(np.eye(4), np.eye(4), ids, error='error_rate')", "ValueError",
        "Rates of labels need whole numbers as targets, one per row.",
        "Take the `argmax` of one-hot targets.",
    ),
    BadInput(
        "report-rate-of-classes",
        "alk.group_report(y, np.eye(4), ids, error='selection_rate')", "ValueError",
        "Rates of positive labels need one prediction per row.",
        "Pass the column of label 1.",
    ),
    BadInput(
        "report-rate-of-many-labels",
        "alk.group_report(2 * y, y, ids, error='selection_rate')", "ValueError",
        "Rates of positive labels need 0 and 1 in `y_true`…y_true[0]=2.0",
        "Recode the label of interest as 1.",
    ),
    BadInput(
        "report-metric-fails",
        "alk.group_report(y, y, ids, error={'MSE': 'mse', 'no': "
        "lambda y_true, y_pred, sample_weight=None: 1 / 0})", "ValueError",
        "The metric `no` must have a value on every group and resample, or return NaN",
        "The message names the metric's own error.",
    ),
    BadInput(
        "report-metric-of-rows",
        "alk.group_report(y, y, ids, error={'MSE': 'mse', 'rows': "
        "lambda y_true, y_pred, sample_weight=None: y_true})", "ValueError",
        "The metric `rows` must return one number.",
        "For one value per row, pass a function of `(y_true, y_pred)` alone.",
    ),
    BadInput(
        "report-bootstrap", "alk.group_report(y, y, ids, bootstrap=-1)", "ValueError",
        "`bootstrap` must be a whole number of at least 0.", "0 is for none.",
    ),
    BadInput(
        "report-gap-of", "alk.group_report(y, y, ids).gap_of('rmse')", "ValueError",
        "Invalid value for argument `heading`. Expected one of ['MSE', 'RMSE', 'MAE']. "
        "Did you mean `RMSE`", "Use a heading of the table.",
    ),
    BadInput(
        "report-confidence-0", "alk.group_report(y, y, ids, confidence=0.0)", "ValueError",
        "`confidence` must lie in (0, 1).", "The usual one is 0.95.",
    ),
    BadInput(
        "report-confidence-percent", "alk.group_report(y, y, ids, confidence=95)",
        "ValueError", "`confidence` must lie in (0, 1).", "Write 0.95 for 95 %.",
    ),
    BadInput(
        "difference-method", "alk.group_report(y, y, ids).difference('to_all')",
        "ValueError", "Invalid value for argument `method`. Expected one of "
        "['between_groups', 'to_overall'].", "Use one of the two.",
    ),
    BadInput(
        "compare-errors",
        "alk.group_report(y, y, ids).compare(alk.group_report(y, y, ids, error='mae'))",
        "ValueError", "Two reports to compare must have the same error name.",
        "Create both with the same `error=`.",
    ),
    BadInput(
        "compare-groups",
        "alk.group_report(y, y, ids).compare("
        "alk.group_report(y, y, ids, group_names=['f', 'm']))", "ValueError",
        "Two reports to compare must have the same group names.",
        "Create both with the same `group_names=`.",
    ),
    BadInput(
        "compare-other", "alk.group_report(y, y, ids).compare(0.5)", "TypeError",
        "`before` must be a `GroupReport`.", "Create both with `group_report`.",
    ),
    BadInput(
        "curve-no-values", "alk.tradeoff_curve(build, with_ids, with_ids, [])",
        "ValueError", "`values` must hold a value.", "Pass loss weights or bounds.",
    ),
    BadInput(
        "curve-no-ids", "alk.tradeoff_curve(build, packed, packed)", "ValueError",
        "`train` must have the entries `y_true` and `group_ids`.",
        "Pack the ids, or name their entry with `group_ids=`.",
    ),
    BadInput(
        "curve-no-validation", "alk.tradeoff_curve(build, with_ids)", "TypeError",
        "tradeoff_curve() missing 1 required positional argument: 'validation'",
        "Pass other rows that judge each value.",
    ),
    BadInput(
        "curve-misspelled", "alk.tradeoff_curve(build, with_ids, with_ids, epoch=3)",
        "TypeError", "tradeoff_curve() got an unexpected keyword argument 'epoch'",
        "From version 3.13 Python suggests `epochs`; the reference lists all.",
    ),
    BadInput(
        "curve-verbose", "alk.tradeoff_curve(build, with_ids, with_ids, verbose='x')",
        "ValueError", "`verbose` must be 0, 1, 2 or 'auto'.", "Pass one of them.",
    ),
    BadInput(
        "report-verbose", "alk.group_report(y, y, ids, verbose='x')", "ValueError",
        "`verbose` must be 0, 1, 2 or 'auto'.", "Pass one of them.",
    ),
    BadInput(
        "curve-budget", "alk.tradeoff_curve(build, with_ids, with_ids, budget=-0.1)",
        "ValueError", "`budget` must lie in [0, inf).", "0.05 is 5 % more.",
    ),
    BadInput(
        "curve-epochs", "alk.tradeoff_curve(build, with_ids, with_ids, epochs=0)",
        "ValueError", "`epochs` must be a whole number of at least 1.",
        "Train at least once.",
    ),
    BadInput(
        "curve-build", "alk.tradeoff_curve(0.5, with_ids, with_ids)", "TypeError",
        "`build` must be a function of a loss weight", "Pass a function.",
    ),
    BadInput(
        "curve-model-without-term", "alk.tradeoff_curve(grouped, with_ids, with_ids)",
        "TypeError", "with a model, name the term: `tradeoff_curve(model, 'group_gap'",
        "Name the term whose weight is varied.",
    ),
    BadInput(
        "curve-term", "alk.tradeoff_curve(grouped, 'group_gab', with_ids, with_ids)",
        "ValueError", "`term` must name a loss whose weight is a number: one of ['mse', "
        "'group_gap']. Did you mean `group_gap`?",
        "Use the term's name in the history. A weight that is a schedule cannot be varied.",
    ),
    BadInput(
        "curve-not-a-training-model",
        "alk.tradeoff_curve(predictor(), 'group_gap', with_ids, with_ids)", "TypeError",
        "`model` must be a compiled `TrainingModel`.",
        "Call `build_training_model` and `compile`.",
    ),
    BadInput(
        "curve-repeats", "alk.tradeoff_curve(build, with_ids, with_ids, repeats=0)",
        "ValueError", "`repeats` must be a whole number of at least 1.",
        "Train at least once.",
    ),
    BadInput(
        "permutations-none", "alk.group_report(y, y, ids).permutation_test(0)",
        "ValueError", "`permutations` must be a whole number of at least 1.",
        "The usual number is 999.",
    ),
    BadInput(
        "permutations-of-one-group",
        "alk.group_report(y, y, [0, 0, 0, 0]).permutation_test()", "ValueError",
        "A gap needs two groups with rows.", "Report on rows of two groups.",
    ),
    BadInput(
        "permutations-of-mixed-clusters",
        "alk.group_report(y, y, ids, clusters=[0, 0, 1, 1]).permutation_test()",
        "ValueError", "Each cluster must be of one group",
        "Go by the interval of `gap`.",
    ),
    BadInput(
        "report-error-of-all-rows",
        "alk.group_report(y, y, ids, error=lambda y_true, y_pred: 1.0)", "ValueError",
        "A group's error needs a loss with one value per sample.",
        "Return one value per row, not their mean.",
    ),
    BadInput(
        "certify-what", "alk.group_report(y, y, ids).certify(0.1, 'ratio')", "ValueError",
        "Invalid value for argument `of`. Expected one of ['gap', 'worst_error'].",
        "Use one of the two.",
    ),
    BadInput(
        "certify-increase-of-one",
        "alk.group_report(y, y, ids).certify(0.1, 'error_increase')", "ValueError",
        "An increase is of one report over another.",
        "Call `report.compare(before).certify(bound)`.",
    ),
    BadInput(
        "certify-confidence", "alk.group_report(y, y, ids).certify(0.1, confidence=95)",
        "ValueError", "`confidence` must lie in (0, 1).", "Write 0.95 for 95 %.",
    ),
    BadInput(
        "certify-bound", "alk.group_report(y, y, ids).certify('0.1')", "TypeError",
        "`bound` must be a number.", "Pass a number, in the units of the error.",
    ),
    BadInput(
        "certify-range",
        "alk.group_report(y, 3 * y, ids).certify(0.1, errors_within=(0, 1))", "ValueError",
        "`errors_within` must be (low, high), between which all errors lie.",
        "Pass the smallest and the largest error that is possible, or omit it.",
    ),
    BadInput(
        "certify-one-group", "alk.group_report(y, y, [0, 0, 0, 0]).certify(0.1)",
        "ValueError", "A gap needs two groups with rows.",
        "Report on rows of two groups, or certify the `'worst_error'`.",
    ),
    BadInput(
        "fit-certificate-used-rows",
        "alk.fit_to_certificate(build, with_ids, other_rows, with_ids, 0.1)", "ValueError",
        "`certify_rows` must be rows that took no part in training nor in choosing",
        "Keep rows apart that neither train nor choose.",
    ),
    BadInput(
        "fit-certificate-no-ids",
        "alk.fit_to_certificate(build, with_ids, with_ids, packed, 0.1)", "ValueError",
        "`certify_rows` must have the entries of `validation`.",
        "Pack these rows like those.",
    ),
    BadInput(
        "fit-certificate-a-group-without-rows",
        "alk.fit_to_certificate(build, with_ids, with_ids, {**other_rows, "
        "'group_ids': np.zeros(4, int)}, 0.1)", "ValueError",
        "`certify_rows` must have rows of every group", "Pass more rows.",
    ),
    BadInput(
        "fit-certificate-bound",
        "alk.fit_to_certificate(build, with_ids, with_ids, other_rows, '0.1')", "TypeError",
        "`bound` must be a number.", "Pass a number, in the units of the error.",
    ),
    BadInput(
        "fit-certificate-yes",
        "alk.fit_to_certificate(build, with_ids, with_ids, other_rows, True)", "TypeError",
        "`bound` must be a number.…bound=True", "Pass a number, in the units of the error.",
    ),
    BadInput(
        "fit-certificate-no-bound",
        "alk.fit_to_certificate(build, with_ids, with_ids, other_rows)", "TypeError",
        "fit_to_certificate() missing 1 required positional argument: 'bound'",
        "Pass the bound after the three sets of rows.",
    ),
    BadInput(
        "fit-certificate-values",
        "alk.fit_to_certificate(build, with_ids, with_ids, other_rows, 0.1, "
        "values=[0.1, np.nan])", "ValueError", "`values[1]` must be finite.",
        "Pass finite numbers.",
    ),
    BadInput(
        "fit-certificate-built",
        "alk.fit_to_certificate(lambda weight: None, with_ids, with_ids, other_rows, 0.1)",
        "TypeError", "`build` must return a compiled `TrainingModel`.",
        "End the function with `return model`, after `model.compile(...)`.",
    ),
    BadInput(
        "fit-certificate-ids",
        "alk.fit_to_certificate(build, with_ids, with_ids, "
        "{**other_rows, 'group_ids': ids + 0.5}, 0.1)", "TypeError",
        "`certify_rows['group_ids']` must be whole numbers.", "Pack it with `pack_inputs`.",
    ),
    BadInput(
        "fit-certificate-of",
        "alk.fit_to_certificate(build, with_ids, with_ids, other_rows, 0.1, of='gaps')",
        "ValueError", "Invalid value for argument `of`.…Did you mean `gap`?",
        "Use `'gap'`, `'worst_error'` or `'error_increase'`.",
    ),
    BadInput(
        "fit-certificate-range",
        "alk.fit_to_certificate(build, with_ids, with_ids, other_rows, 0.1, "
        "of='error_increase', errors_within=(0, 1))", "ValueError",
        "`errors_within` bounds a gap or a largest error.", "Omit it.",
    ),
    BadInput(
        "fit-certificate-two-outputs",
        "alk.fit_to_certificate(two, 'price_mse', with_ids, with_ids, other_rows, 0.1)",
        "ValueError", "`model` must have one output.",
        "Build a model of the output in question.",
    ),
]  # fmt: skip

FUNCTIONAL = [
    BadInput(
        "totals-rows", "functional.group_totals([1.0, 2.0], [0], num_groups=2)",
        "ValueError", "`group_ids` must have one row per row of `error`.",
        "Pass one id per row.",
    ),
    BadInput(
        "totals-axes", "functional.group_totals([[1.0, 2.0]], [0], num_groups=2)",
        "ValueError", "`error` must have one number per row, shape (batch,).",
        "Take the mean over the outputs first: `functional.row_mean`.",
    ),
    BadInput(
        "totals-no-groups", "functional.group_totals([1.0], [0], num_groups=0)",
        "ValueError", "`num_groups` must be a whole number of at least 1.", COUNT_GROUPS,
    ),
    BadInput(
        "means-shapes", "functional.group_means([1.0, 2.0], [1.0])", "ValueError",
        "`weight_totals` must have the shape of `error_totals`.",
        "Pass both results of `group_totals`.",
    ),
    BadInput(
        "gap-of-rows", "functional.group_gap([[1.0, 2.0]])", "ValueError",
        "`means` must have one number per group, shape (num_groups,).",
        "Take them from `group_means`.",
    ),
    BadInput(
        "gap-present", "functional.group_gap([1.0, 2.0], [True])", "ValueError",
        "`is_present` must have the shape of `means`.", "One flag per group.",
    ),
    BadInput(
        "gap-shares",
        "functional.group_gap([1.0, 2.0], between='overall', shares=[1.0, 1.0, 1.0])",
        "ValueError", "`shares` must have the shape of `means`.", "One share per group.",
    ),
    BadInput(
        "slopes-distance", "functional.group_gap_slopes([1.0, 2.0], distance='sqared')",
        "ValueError", "Invalid value for argument `distance`.…Did you mean `squared`?",
        "Use `'squared'` or `'absolute'`.",
    ),
    BadInput(
        "mmd-rows", "functional.group_mmd([1.0, 2.0], [0], num_groups=2)", "ValueError",
        "`group_ids` must have one row per row of `y_pred`.", "Pass one id per row.",
    ),
    BadInput(
        "mmd-kernel",
        "functional.group_mmd([1.0, 2.0], [0, 1], num_groups=2, kernel='rbf')",
        "ValueError", "Invalid value for argument `kernel`.",
        "RBF is `'gaussian'`.",
    ),
    BadInput(
        "error-shapes", "functional.squared_error([[1.0], [2.0]], [1.0, 2.0])",
        "ValueError", "`y_pred` must have the shape of `y_true`.",
        "They would broadcast. Reshape one.",
    ),
    BadInput(
        "error-whole", "functional.squared_error([1], [1])", "TypeError",
        "`y_pred` must be a float tensor.", "Pass floats.",
    ),
    BadInput(
        "mse-weights", "functional.weighted_mse([[1.0]], [[1.0]], [1.0, 2.0])",
        "ValueError", "`sample_weight` must have the shape of `y_true`.",
        "One weight per element, or one per output.",
    ),
    BadInput(
        "rmse-over", "functional.weighted_rmse([[1.0]], [[1.0]], [[1.0]], over='row')",
        "ValueError", "Invalid value for argument `over`.", "Use `'batch'` or `'sample'`.",
    ),
    BadInput(
        "norm-weights",
        "functional.weighted_residual_norm([[1.0]], [[1.0]], [[1.0, 2.0]])", "ValueError",
        "`sample_weight` must have the shape of `y_true`.", "One weight per element.",
    ),
]  # fmt: skip

CLI = [
    BadInput(
        "cli-epochs", "cli('demo', '--epochs', '0')", "SystemExit",
        "`epochs` must be a whole number of at least 1.", "Train at least once.",
    ),
    BadInput(
        "cli-epochs-text", "cli('demo', '--epochs', 'many')", "SystemExit",
        "argument --epochs: invalid int value: 'many'", "Pass an integer.",
    ),
    BadInput(
        "cli-weight", "cli('demo', '--loss-weight', '-1')", "SystemExit",
        "`loss_weight` must lie in [0, inf).", "Pass a number of at least 0.",
    ),
    BadInput(
        "cli-seed", "cli('demo', '--seed', '-1')", "SystemExit",
        "`seed` must lie in [0, 4.29497e+09].", "Pass a number from 0 to 2³² − 1.",
    ),
    BadInput(
        "cli-output", "cli('demo', '--output', str(files / 'text.keras'))", "SystemExit",
        "`output` must be a folder.", "Name a new or existing folder.",
    ),
    BadInput(
        "cli-command", "cli('dmeo')", "SystemExit",
        "invalid choice: 'dmeo'", "The command is `demo`.",
    ),
]  # fmt: skip

ENTRIES = {
    "build_training_model": BUILD,
    "class_weight of build_training_model": CLASS_WEIGHT,
    "derivative": DERIVATIVE,
    "add_loss": ADD_LOSS,
    "add_metric": ADD_METRIC,
    "Losses of groups": GROUP_LOSSES,
    "Other losses": OTHER_LOSSES,
    "Metrics": METRICS,
    "pack_inputs": PACK,
    "pack_dataset": PACK_STREAM,
    "parquet_dataset": PARQUET,
    "make_dataset": MAKE,
    "encode_groups": ENCODE,
    "compile, fit, evaluate, predict and save": TRAIN,
    "Data without pack_inputs, and streams": RAW,
    "export_inference_model": EXPORT,
    "load_training_model": LOAD,
    "fit_last_layer": LAST_LAYER,
    "Reports and trade-off curves": REPORT,
    "functional": FUNCTIONAL,
    "The command addloss-kit": CLI,
}

HEAD = """\
# Errors

What each message means, and what to do. Every call below is refused before the first
step: nothing has been trained or written. `…` stands for what depends on your call. (A
`UserWarning` only tells; the call goes on.)

In the calls, `x`, `y` and `ids` are arrays of four rows, `predictor()` makes a model with
two features and one output, and `model` trains it on `"mse"`. `weighted` takes sample
weights, `by_element` one for each of three outputs, `grouped` has a `GroupGap(2)`,
`classes` predicts three classes from their numbers and `one_hot` from one-hot targets,
`binary` has one output, `two` has the outputs `price` and `sold`; `frozen`, `nested` and
`tied` are what their names say. `packed` and `with_ids` are from `pack_inputs`, without and
with group ids, `other_rows` of other rows with ids;
`stream(batch)` is a `tf.data.Dataset`, `iter_once(batch)` a generator, and `parquet` a file
with the columns `x0`, `x1`, `y` and `sex`; `base` is a functional model and `value` a
scalar of its graph.
"""


def page() -> str:
    """The text of `docs/errors.md`."""
    parts = [HEAD]
    for entry, rows in ENTRIES.items():
        lines = ["| you call | it says | what to do |", "|---|---|---|"]
        for row in rows:
            # Kinds of errors differ between versions of Keras in a few rows.
            kind = row.error.replace("|", " or ")
            cells = [f"`` {row.given} ``", f"{kind}: `` {row.message} ``", row.remedy]
            lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        parts.append(f"## {entry}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.name}: {sum(map(len, ENTRIES.values()))} rows")
