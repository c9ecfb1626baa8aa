"""Each private name of another package does what `keras_internals` relies on.

One test per name, on that package alone: when it moves, the message names it.
"""

import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.keras_internals.masks import lost_mask, mask_of

IS_TORCH = keras.backend.backend() == "torch"


def a_graph():
    x = keras.Input((3,), name="x")
    layer = keras.layers.Dense(2, name="shared")
    first, second = layer(x), layer(2 * x)
    return x, layer, first, second


def a_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


class Endpoint(keras.layers.Layer):
    """Adds two losses."""

    def call(self, x):
        self.add_loss(keras.ops.mean(x))
        self.add_loss(keras.ops.sum(x))
        return x


def test_keras_history_tells_producer_call_and_position():
    _, layer, first, second = a_graph()

    message = "KerasTensor._keras_history"
    for number, tensor in enumerate((first, second)):
        assert hasattr(tensor, "_keras_history"), message
        operation, node_index, tensor_index = tensor._keras_history
        assert operation is layer, message
        assert (node_index, tensor_index) == (number, 0), message
        assert tensor._keras_history.operation is layer, message
        assert tensor._keras_history.tensor_index == 0, message


def test_inbound_nodes_hold_the_arguments_of_each_call():
    x, layer, first, _ = a_graph()

    message = "Operation._inbound_nodes"
    nodes = getattr(layer, "_inbound_nodes", None)
    assert nodes is not None and len(nodes) == 2, message
    assert nodes[0].input_tensors[0] is x, message
    assert nodes[0].arguments.args[0] is x, message
    assert nodes[0].arguments.kwargs == {}, message


def test_flatten_layers_goes_into_layers_and_begins_with_the_model():
    within = keras.layers.Dense(1)
    inner = keras.Sequential([keras.Input((3,)), within])
    model = keras.Sequential([keras.Input((3,)), inner])

    message = "Layer._flatten_layers"
    assert hasattr(model, "_flatten_layers"), message
    found = list(model._flatten_layers())
    assert found[0] is model, message
    assert any(layer is within for layer in found), message


def test_clearing_losses_clears_the_layer_s_losses():
    layer = Endpoint()
    layer(np.ones((2, 2), "float32"))

    message = "Layer._losses"
    assert len(layer.losses) == 2, message
    assert len(getattr(layer, "_losses", [])) == 2, message
    layer._losses.clear()
    assert layer.losses == [], message


def test_losses_may_be_a_list_of_another_kind():
    class Recorded(list):
        pass

    layer, mine = Endpoint(), Recorded()
    object.__setattr__(layer, "_losses", mine)
    layer(np.ones((2, 2), "float32"))

    assert layer._losses is mine, "Layer._losses"
    assert [float(loss) for loss in layer.losses] == [1.0, 4.0], "Layer._losses"


def test_loss_tracker_is_what_metrics_list_first_and_what_the_history_shows():
    class Constant(keras.metrics.Metric):
        def update_state(self, value, sample_weight=None):
            pass

        def result(self):
            return keras.ops.convert_to_tensor(7.0)

    model, tracker = a_model(), Constant(name="loss")
    object.__setattr__(model, "_loss_tracker", tracker)

    assert model.metrics[0] is tracker, "Trainer._loss_tracker"
    history = model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0).history
    assert history["loss"] == [7.0], "Trainer._loss_tracker"


def test_compile_loss_and_compile_metrics_are_what_compile_keeps():
    model = a_model()
    for name in ("_compile_loss", "_compile_metrics"):
        assert getattr(model, name, None) is not None, f"Trainer.{name}"
        setattr(model, name, None)

    names = [metric.name for metric in model.metrics]
    assert names == ["loss"], "Trainer._compile_loss, Trainer._compile_metrics"
    model.compile("sgd")
    for name in ("_compile_loss", "_compile_metrics"):
        assert getattr(model, name, "moved") is None, f"Trainer.{name}"


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Only TensorFlow has replicas."
)
def test_fit_builds_by_maybe_symbolic_build():
    asked = []

    class Model(keras.Model):
        def _maybe_symbolic_build(self, iterator=None, data_batch=None):
            asked.append(iterator)
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    message = "Trainer._maybe_symbolic_build"
    assert hasattr(keras.Model, "_maybe_symbolic_build"), message
    x = keras.Input((3,))
    model = Model(x, keras.layers.Dense(1)(x))
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    assert len(asked) == 1 and asked[0] is not None, message


def test_fit_marks_its_own_evaluations_by_use_cached_eval_dataset():
    given = []

    class Model(keras.Model):
        def evaluate(self, *args, **kwargs):
            given.append(sorted(kwargs))
            return super().evaluate(*args, **kwargs)

    x = keras.Input((3,))
    model = Model(x, keras.layers.Dense(1)(x))
    model.compile("sgd", "mse")
    rows = np.ones((4, 3)), np.ones((4, 1))
    model.fit(*rows, validation_data=rows, verbose=0)

    assert len(given) == 1
    assert "_use_cached_eval_dataset" in given[0], "_use_cached_eval_dataset"


def test_fn_is_the_function_that_a_metric_averages():
    metric = keras.metrics.MeanAbsoluteError()
    function = getattr(metric, "_fn", None)
    assert getattr(function, "__name__", "") == "mean_absolute_error", "_fn"


def test_fn_kwargs_are_what_a_loss_calls_its_function_with():
    loss = keras.losses.CosineSimilarity(axis=1)
    assert getattr(loss, "_fn_kwargs", {}).get("axis") == 1, "_fn_kwargs"
    loss = keras.losses.Huber(delta=0.3)
    assert getattr(loss, "_fn_kwargs", {}).get("delta") == 0.3, "_fn_kwargs"


def test_get_keras_mask_gives_the_mask_of_an_output():
    try:
        from keras.src.backend.common.masking import get_keras_mask
    except ImportError as error:
        pytest.fail(f"get_keras_mask: {error}")
    rows = np.array([[[1.0], [0.0]]], "float32")

    masked = keras.layers.Masking()(rows)

    mask = keras.ops.convert_to_numpy(get_keras_mask(masked))
    np.testing.assert_array_equal(mask, [[True, False]], "get_keras_mask")
    assert get_keras_mask(keras.ops.convert_to_tensor(rows)) is None, "get_keras_mask"


def test_set_keras_mask_sets_the_mask_that_get_keras_mask_gives():
    try:
        from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
    except ImportError as error:
        pytest.fail(f"set_keras_mask: {error}")
    tensor = keras.ops.ones((1, 2, 1))

    set_keras_mask(tensor, keras.ops.convert_to_tensor([[True, False]]))

    mask = keras.ops.convert_to_numpy(get_keras_mask(tensor))
    np.testing.assert_array_equal(mask, [[True, False]], "set_keras_mask")


@pytest.mark.filterwarnings(
    "ignore:.*was passed an input with a mask attached to it:UserWarning"
)
@pytest.mark.parametrize("supports_masking", [True, False])
def test_a_recurrent_layer_computes_the_mask_that_supports_masking_sets(supports_masking):
    # No private name, but what `lost_mask` makes up for: from Keras 3.16 on the attribute
    # is false, and `compute_mask` still tells what the mask of the output should be.
    masked = keras.layers.Masking()(keras.Input((3, 2)))
    lstm = keras.layers.LSTM(2, return_sequences=True)
    lstm.supports_masking = supports_masking
    output = lstm(masked)

    mask = mask_of(masked)
    assert isinstance(mask, keras.KerasTensor)
    assert mask_of(output) is (mask if supports_masking else None)
    assert lstm.compute_mask(masked, mask) is mask
    assert lost_mask(output) is (None if supports_masking else mask)


def test_the_litert_converter_raises_converter_error():
    tf = pytest.importorskip("tensorflow")
    try:
        from tensorflow.lite.python.convert_phase import ConverterError
    except ImportError as error:
        pytest.fail(f"convert_phase.ConverterError: {error}")
    # An operation that LiteRT does not have.
    function = tf.function(
        lambda x: tf.raw_ops.Betainc(a=x, b=x, x=x), [tf.TensorSpec((2,), tf.float32)]
    )
    concrete = function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())

    with pytest.raises(Exception) as caught:
        converter.convert()

    assert caught.type is ConverterError, "convert_phase.ConverterError"


def test_onnxruntime_raises_the_classes_of_its_pybind_state(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    for name in ("Fail", "InvalidArgument", "InvalidGraph", "NotImplemented"):
        kind = getattr(state, name, None)
        assert kind is not None, f"onnxruntime_pybind11_state.{name}"
        assert issubclass(kind, Exception), f"onnxruntime_pybind11_state.{name}"
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("NoSuchOperation", ["x"], ["y"])]
    ends = [[helper.make_tensor_value_info(name, kind, [1])] for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", *ends),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    with pytest.raises(Exception) as caught:
        onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
    classes = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented)
    assert issubclass(caught.type, classes), "onnxruntime_pybind11_state"


def test_a_subclass_with_args_and_kwargs_is_revived_as_a_functional_model():
    # No private name, but the one signature that every Keras from 3.8 on takes.
    model = alk.build_training_model(
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), "mse"
    )

    config = model.get_config()
    assert "layers" in config, "the signature of `TrainingModel.__init__`"
    revived = type(model).from_config(config)

    assert [t.name for t in revived.inputs] == [t.name for t in model.inputs]


def test_setting_train_function_and_test_function_replaces_the_steps():
    # Public names, and what the compiled loop rests on.
    if IS_TORCH:
        pytest.skip("There is no compiled loop on torch.")
    calls, model = [], a_model()
    model.make_train_function()
    model.make_test_function()
    for name in ("train_function", "test_function"):
        inner = getattr(model, name)

        def spy(*args, _inner=inner, _name=name):
            calls.append(_name)
            return _inner(*args)

        setattr(model, name, spy)
    rows = np.ones((4, 3)), np.ones((4, 1))
    model.fit(*rows, validation_data=rows, verbose=0)
    assert calls == ["train_function", "test_function"]


def test_in_symbolic_scope_is_true_while_keras_infers_shapes():
    try:
        from keras.src.backend.common.symbolic_scope import in_symbolic_scope
    except ImportError as error:
        pytest.fail(f"in_symbolic_scope: {error}")
    seen = []

    class Spy(keras.layers.Layer):
        def call(self, x):
            seen.append(in_symbolic_scope())
            return x

    layer = Spy()
    layer(keras.Input((2,)))
    layer(np.ones((1, 2)))

    # A trial call or several, then the real one.
    assert all(seen[:-1]) and len(seen) > 1 and not seen[-1], "in_symbolic_scope"


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX's own")
def test_get_jax_state_returns_the_lists_that_were_asked_for_in_their_order():
    model = a_model()
    model.train_on_batch(np.ones((2, 3)), np.ones((2, 1)))

    message = "Trainer._get_jax_state"
    assert hasattr(model, "_get_jax_state"), message
    names = (
        "trainable_variables",
        "non_trainable_variables",
        "optimizer_variables",
        "metrics_variables",
    )
    state = model._get_jax_state(**dict.fromkeys(reversed(names), True))
    expected = [
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    ]
    for found, variables in zip(state, expected, strict=True):
        assert len(found) == len(variables), message
    # What `jax_state_sync` reads.
    model._jax_state = {"trainable_variables": [0 * v for v in state[0]]}
    model._jax_state_synced = False
    model.jax_state_sync()
    assert not np.any(keras.ops.convert_to_numpy(model.trainable_variables[0])), message


def test_variant_tensor_and_inputs_make_a_dataset_with_the_elements_of_another():
    tf = pytest.importorskip("tensorflow")

    class Same(tf.data.Dataset):
        def __init__(self, dataset):
            self.dataset = dataset
            super().__init__(getattr(dataset, "_variant_tensor", None))

        @property
        def element_spec(self):
            return self.dataset.element_spec

        def _inputs(self):
            return [self.dataset]

    given = tf.data.Dataset.range(3)
    assert hasattr(given, "_variant_tensor"), "tf.data.Dataset._variant_tensor"
    assert hasattr(given, "_inputs"), "tf.data.Dataset._inputs"
    batched = Same(given).batch(2)
    assert [x.numpy().tolist() for x in batched] == [[0, 1], [2]], "tf.data.Dataset._inputs"
