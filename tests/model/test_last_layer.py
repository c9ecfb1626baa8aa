"""fit_last_layer: the last layers train as in a frozen model, the rest stands still."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from sklearn.linear_model import LinearRegression

import addloss_kit as alk
from addloss_kit import losses

ROWS = 120
# A few steps, where that is faster than to compile them.
EAGERLY = keras.backend.backend() == "tensorflow"
# So that the features of the hidden layer are far from collinear.
WIDE = keras.initializers.RandomNormal(stddev=1.0, seed=0)


@pytest.fixture(scope="module")
def table():
    """Features, ids, and a target that two features explain, differently by group."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3)).astype("float32")
    ids = (rng.random(ROWS) < 0.3).astype(int)
    y = np.where(ids, x[:, 0] - x[:, 1], x[:, 0]) + 0.2 * rng.normal(size=ROWS)
    return x, y.astype("float32"), ids


def unsteady(last=None):
    """A predictor whose body differs between training and inference."""
    return keras.Sequential(
        [
            keras.Input((3,), name="x"),
            layers.Dense(6, "tanh", kernel_initializer=WIDE, name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, seed=1),
            *(last or [layers.Dense(1, name="last")]),
        ]
    )


def compiled(predictor, terms, optimizer=None, **options):
    eagerly = options.pop("run_eagerly", False)
    model = alk.build_training_model(predictor, terms, **options)
    model.compile(optimizer or keras.optimizers.SGD(0.1, 0.9), run_eagerly=eagerly)
    return model


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return {v.path: np.array(ops.convert_to_numpy(v)) for v in variables}


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if not np.array_equal(before[name], after[name])}


def features_of(predictor, x):
    body = keras.Model(predictor.inputs, predictor.layers[-1].input)
    return body.predict(x, verbose=0)


# Exactly the last layer ----------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(table):
    x, y, _ = table
    keras.utils.set_random_seed(0)
    model = compiled(unsteady(), "mse", keras.optimizers.SGD(0.01, 0.9))
    rows = alk.pack_inputs(model, x, y)
    model.fit(rows, epochs=2, verbose=0)
    model.optimizer.learning_rate = 0.1
    before, flags = state(model), [layer.trainable for layer in model.layers]
    optimizer = model.optimizer
    history = alk.fit_last_layer(
        model, rows, epochs=1500, batch_size=ROWS, seed=0, verbose=0
    )
    assert model.optimizer is optimizer
    assert [layer.trainable for layer in model.layers] == flags
    return model, before, history


def test_a_linear_last_layer_is_the_regression_on_the_body_s_features(fitted, table):
    x, y, _ = table
    model, _, history = fitted
    predictor = alk.export_inference_model(model)
    features = features_of(predictor, x)
    kernel, bias = predictor.get_layer("last").get_weights()
    exact = LinearRegression().fit(features, y)
    np.testing.assert_allclose(kernel[:, 0], exact.coef_, atol=1e-3)
    np.testing.assert_allclose(bias[0], exact.intercept_, atol=1e-3)
    residual = y - exact.predict(features)
    assert history.history["loss"][-1] == pytest.approx(np.mean(residual**2), rel=1e-3)


def test_nothing_else_changes(fitted):
    # Statistics, seeds, the optimizer's state and the state of the losses among it.
    model, before, _ = fitted
    assert len(before) > 12
    last = {v.path for v in model.get_layer("last").variables}
    assert changed(before, state(model)) == last


def test_the_model_trains_on_as_before(table):
    x, y, ids = table
    ends = []
    for is_interrupted in (False, True):
        keras.utils.set_random_seed(0)
        terms = ["mse", losses.GroupGap(2)]
        optimizer = keras.optimizers.Adam(0.02)
        model = compiled(unsteady(), terms, optimizer, run_eagerly=EAGERLY)
        rows = alk.pack_inputs(model, x, y, group_ids=ids)
        data = alk.make_dataset(rows, 40, seed=0)
        model.fit(data, epochs=1, verbose=0)
        if is_interrupted:
            weights = model.get_layer("last").get_weights()
            alk.fit_last_layer(model, rows, epochs=1, verbose=0)
            model.get_layer("last").set_weights(weights)
        model.fit(data, epochs=2, initial_epoch=1, verbose=0)
        ends.append(state(model).values())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_no_trace_of_it_stays_in_the_model_s_layers(fitted, table):
    x, y, _ = table
    model, _, _ = fitted
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    alk.fit_last_layer(model, alk.pack_inputs(model, x, y), epochs=1, verbose=0)
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes


# Which layers: as if the others were frozen ----------------------------------------------


def hidden(x, name="hidden", **options):
    return layers.Dense(4, "tanh", name=name, **options)(x)


def of_inputs(make):
    x = keras.Input((3,), name="x")
    return keras.Model(x, make(x))


def residual_block(x):
    h = hidden(x)
    return layers.Add()([layers.Dense(4, name="last")(hidden(h, "body")), h])[:, :1]


def two_towers(x):
    last = layers.Dense(1, "tanh", name="last")
    return last(hidden(x)) - last(hidden(x, "other"))


def two_outputs(x):
    h = hidden(x)
    return {
        "a": layers.Dense(1, name="last_a")(h),
        "b": layers.Activation("tanh")(layers.Dense(1, name="last_b")(hidden(h, "more"))),
    }


def masked_steps(last):
    def make(x):
        # Negative features become steps of 0, which do not count.
        steps = layers.Masking()(layers.Reshape((3, 1))(layers.ReLU()(x)))
        return last()(layers.SimpleRNN(2, return_sequences=True)(steps))

    return of(make)


def of(make, terms="mse"):
    return lambda: alk.build_training_model(of_inputs(make), terms)


def clipped(y_true, y_pred, h):
    return ops.minimum(ops.square(y_true - y_pred), 4.0) + 0.1 * ops.mean(h**2)


def smooth(y_true, y_pred, slope):
    return ops.square(y_true - y_pred) + 0.1 * ops.square(slope)


def with_features_in_the_loss():
    predictor = of_inputs(lambda x: layers.Dense(1, name="last")(hidden(x)))
    h = predictor.get_layer("hidden").output
    return alk.build_training_model(predictor, clipped, tensors={"h": h})


def with_a_derivative():
    predictor = of_inputs(lambda x: layers.Dense(1, name="last")(hidden(x)))
    slope = alk.derivative(predictor, by=0)
    return alk.build_training_model(predictor, smooth, tensors={"slope": slope})


def with_a_scalar_of_the_graph():
    x, y = keras.Input((3,), name="x"), keras.Input((1,), name="y_true")
    h = hidden(x)
    y_pred = layers.Dense(1, name="last")(h)
    model = alk.add_loss(keras.Model([x, y], y_pred), ops.mean(ops.square(y - y_pred)))
    return alk.add_loss(model, ops.mean(ops.square(h)) * ops.mean(ops.abs(y_pred)))


def weighted_terms():
    predictor = of_inputs(lambda x: layers.Dense(1, name="last")(hidden(x)))
    model = alk.build_training_model(
        predictor,
        ["mse", losses.GroupGap(2)],
        loss_weights=[1.0, 0.0],
        sample_weight=True,
        metrics=["mae", alk.metrics.GroupGap(2)],
    )
    model.loss_weights["group_gap"] = 2.0
    return model


def classes():
    predictor = of_inputs(
        lambda x: layers.Softmax()(layers.Dense(2, name="last")(hidden(x)))
    )
    return alk.build_training_model(
        predictor, "sparse_categorical_crossentropy", class_weight={1: 5.0}
    )


def regularised():
    last = {"kernel_regularizer": "l2", "activity_regularizer": "l1", "name": "last"}
    predictor = of_inputs(lambda x: layers.Dense(1, **last)(hidden(x)))
    return alk.build_training_model(predictor, "mse")


CASES = {
    "what has no weights follows": of(
        lambda x: layers.Rescaling(2.0)(
            layers.LeakyReLU()(layers.Dense(1, name="last")(hidden(x)))
        )
    ),
    "a linear model": of(lambda x: layers.Dense(1, name="last")(x)),
    "a residual block": of(residual_block),
    "a layer that is called twice": of(two_towers),
    "two outputs": of(two_outputs, {"a": "mse", "b": "mae"}),
    "masked steps": masked_steps(lambda: layers.Dense(1, name="last")),
    "masked steps, one by one": masked_steps(
        lambda: layers.TimeDistributed(layers.Dense(1), name="last")
    ),
    "a last layer that takes a mask, with dropout": masked_steps(
        lambda: layers.SimpleRNN(1, return_sequences=True, dropout=0.4, seed=2, name="last")
    ),
    "features in the loss": with_features_in_the_loss,
    "a derivative": with_a_derivative,
    "a scalar of the graph": with_a_scalar_of_the_graph,
    "weights of rows and terms": weighted_terms,
    "weights of classes": classes,
    "regularisers": regularised,
}


def rows_for(model, table):
    x, y, ids = table
    given = {"x": x, "y_true": y, "group_ids": ids, "sample_weight": 1.0 + ids}
    given |= {"a_y_true": y, "b_y_true": np.abs(y)}
    rows = {}
    for tensor in model.inputs:
        values = given[tensor.name]
        if "int" in tensor.dtype and tensor.name == "y_true":
            values = values > 0
        shape = (ROWS, *tensor.shape[1:])
        if values.shape != shape:
            values = np.broadcast_to(values.reshape(ROWS, *[1] * (len(shape) - 1)), shape)
        rows[tensor.name] = values.astype(tensor.dtype)
    return rows


@pytest.mark.parametrize("case", CASES)
def test_it_trains_as_with_all_other_layers_frozen(case, table):
    ends = []
    for is_frozen in (True, False):
        keras.utils.set_random_seed(0)
        model = CASES[case]()
        last = [layer for layer in model.layers if layer.name.startswith("last")]
        assert last
        if is_frozen:
            for layer in model.layers:
                layer.trainable = layer in last
        model.compile(keras.optimizers.SGD(0.05, 0.9), run_eagerly=EAGERLY)
        rows = rows_for(model, table)
        first = [np.array(weight) for layer in last for weight in layer.get_weights()]
        if is_frozen:
            data = alk.make_dataset(rows, 50, seed=3)
            history = model.fit(data, epochs=2, verbose=0)
        else:
            others = state(model)
            history = alk.fit_last_layer(
                model, rows, epochs=2, batch_size=50, seed=3, verbose=0
            )
            moved = changed(others, state(model))
            assert {v.path for layer in last for v in layer.trainable_variables} <= moved
            # The seed of a last layer's own dropout moves on, too.
            assert moved <= {v.path for layer in last for v in layer.variables}
        now = [weight for layer in last for weight in layer.get_weights()]
        ends.append((now, history.history))
        assert all(np.any(a != b) for a, b in zip(first, now))
    for one, other in zip(ends[0][0], ends[1][0], strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)
    for name, values in ends[1][1].items():
        renamed = name if name in ends[0][1] else f"{name}_loss"
        renamed = f"{name}_loss" if f"{name}_loss" in ends[0][1] else renamed
        np.testing.assert_allclose(values, ends[0][1][renamed], rtol=1e-4)


# When it stops ---------------------------------------------------------------------------


def test_it_stops_by_the_validation_loss_and_keeps_the_best_epoch(table):
    x, y, _ = table
    model = compiled(unsteady(), "mse", keras.optimizers.SGD(1.2), run_eagerly=EAGERLY)
    train, validation = (
        alk.pack_inputs(model, x[part], y[part]) for part in (slice(60), slice(60, None))
    )
    history = alk.fit_last_layer(
        model, train, validation=validation, patience=2, epochs=30, seed=0, verbose=0
    )
    watched = history.history["val_loss"]
    assert len(watched) == np.argmin(watched) + 3 < 30
    now = model.evaluate(validation, verbose=0, return_dict=True)["loss"]
    assert now == pytest.approx(min(watched), rel=1e-5)


def test_the_seed_decides_the_order_and_the_learning_rate_is_the_present_one(table):
    x, y, _ = table
    ends = []
    for seed, rate in ((1, 0.1), (1, 0.1), (2, 0.1), (1, 0.0)):
        keras.utils.set_random_seed(0)
        model = compiled(unsteady(), "mse", run_eagerly=EAGERLY)
        model.optimizer.learning_rate = rate
        rows = alk.pack_inputs(model, x, y)
        first = model.get_layer("last").get_weights()[0]
        alk.fit_last_layer(model, rows, epochs=1, batch_size=30, seed=seed, verbose=0)
        ends.append(model.get_layer("last").get_weights()[0] - first)
    np.testing.assert_array_equal(ends[0], ends[1])
    assert np.abs(ends[0] - ends[2]).max() > 1e-6
    assert not ends[3].any()


def test_it_computes_features_in_half_precision_as_the_model_does(table):
    x, y, _ = table
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(unsteady(), "mse", run_eagerly=EAGERLY)
    finally:
        keras.config.set_dtype_policy("float32")
    rows = alk.pack_inputs(model, x, y)
    before = model.evaluate(rows, verbose=0)[0]
    history = alk.fit_last_layer(model, rows, epochs=5, seed=0, verbose=0)
    assert model.get_layer("last").compute_dtype == "float16"
    after = model.evaluate(rows, verbose=0)[0]
    assert after < before and history.history["loss"][-1] < before


# Refused ---------------------------------------------------------------------------------


def nested():
    inner = of_inputs(lambda x: layers.Dense(1)(hidden(x)))
    return of_inputs(lambda x: layers.Activation("tanh")(inner(x)))


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x):
        return self.dense(x)


def subclassed():
    model = Subclassed()
    model(np.ones((1, 3), "float32"))
    return model


def frozen():
    predictor = unsteady()
    predictor.trainable = False
    return predictor


def shared_with_the_body():
    square = layers.Dense(3, name="square")
    return of_inputs(lambda x: square(layers.Dense(3, name="between")(square(x))))


class Tied(keras.layers.Layer):
    """Multiplies by the kernel of another layer."""

    def __init__(self, other, **kwargs):
        super().__init__(**kwargs)
        self.other = other

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.other.kernel))


def tied_weights():
    first = layers.Dense(3, name="first")
    return of_inputs(lambda x: Tied(first, name="tied")(first(x)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (frozen, "must come from a layer with trainable weights"),
        (nested, "inside another model"),
        (subclassed, "inside another model"),
        (shared_with_the_body, r"by themselves.*last=\['square'\], others=\['between'\]"),
        (tied_weights, r"by themselves.*last=\['tied'\], others=\['first'\]"),
    ],
)
def test_what_has_no_last_layer_of_its_own_is_refused(make, message, table):
    model = compiled(make(), "mse")
    outputs = model.outputs[0].shape[-1]
    y = np.repeat(table[1][:, None], outputs, axis=1)
    with pytest.raises(ValueError, match=message):
        alk.fit_last_layer(model, alk.pack_inputs(model, table[0], y), verbose=0)
