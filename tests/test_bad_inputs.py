"""Every bad input of the table is refused as it says, and leaves no trace."""

import builtins
import warnings

import bad_inputs
import keras
import numpy as np
import pytest
from keras import layers, ops

import addloss_kit as alk
from addloss_kit import functional, losses, metrics
from addloss_kit.cli import main

ROWS = [
    pytest.param(row, id=f"{entry}-{row.id}")
    for entry, rows in bad_inputs.ENTRIES.items()
    for row in rows
]


class Unregistered(losses.LossTerm):
    """A term that no later process could find."""

    def totals(self, y_true, y_pred):
        error = ops.abs(y_true - y_pred)
        return ops.sum(error), ops.sum(ops.ones_like(error))


class Subclassed(keras.Model):
    """A model without a graph."""

    def call(self, x):
        return x


def predictor(outputs=1, activation=None):
    inputs = keras.Input((2,), name="x")
    return keras.Sequential([inputs, layers.Dense(outputs, activation)], name="predictor")


def two_outputs():
    x = keras.Input((2,), name="x")
    outputs = {name: layers.Dense(1, name=name)(x) for name in ("price", "sold")}
    return keras.Model(x, outputs)


def leaky_model():
    x, ids = keras.Input((2,), name="x"), keras.Input((1,), name="group_ids")
    y_pred = layers.Dense(1)(layers.Concatenate()([x, ids]))
    return alk.add_loss(keras.Model([x, ids], y_pred), ops.mean(y_pred))


def functional_model():
    x, y = keras.Input((2,), name="x"), keras.Input((1,), name="y")
    return keras.Model([x, y], layers.Dense(1)(x))


def frozen():
    model = predictor()
    model.trainable = False
    return model


def nested():
    x = keras.Input((2,), name="x")
    return keras.Model(x, layers.Activation("relu")(predictor()(x)))


def tied():
    x, square = keras.Input((2,), name="x"), layers.Dense(2)
    return keras.Model(x, square(layers.Dense(2)(square(x))))


def stream(batch):
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(batch)


def iter_once(batch):
    yield batch


def parquet_file(folder):
    try:
        import pyarrow.parquet
    except ImportError:
        return None
    path = folder / "rows.parquet"
    columns = {"x0": np.ones(4), "x1": np.ones(4), "y": np.ones(4), "sex": [*"fmfm"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def trained(*args, **kwargs):
    model = alk.build_training_model(*args, **kwargs)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.build_optimizer()
    return model


def write_files(folder, model):
    """Files of every wrong kind."""
    model.save(folder / "model.keras")
    (folder / "truncated.keras").write_bytes((folder / "model.keras").read_bytes()[:400])
    (folder / "text.keras").write_text("no model")
    model.save_weights(folder / "model.weights.h5")
    alk.export_inference_model(model, folder / "predictor.keras")

    @keras.saving.register_keras_serializable("shop")
    def own_loss(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    trained(predictor(), own_loss).save(folder / "foreign.keras")
    # As in a process that has not imported its module.
    keras.saving.get_custom_objects().pop("shop>own_loss")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The names of the table that all rows share; made once, as models take a while."""
    keras.utils.set_random_seed(0)
    x, y, ids = np.ones((4, 2)), np.ones(4), np.array([0, 1, 0, 1])
    base = functional_model()
    models = {
        "model": trained(predictor(), "mse"),
        "weighted": trained(predictor(), "mse", sample_weight=True),
        "grouped": trained(predictor(), ["mse", losses.GroupGap(2)]),
        "classes": trained(predictor(3, "softmax"), "sparse_categorical_crossentropy"),
        "one_hot": trained(predictor(3, "softmax"), "categorical_crossentropy"),
        "binary": trained(predictor(1, "sigmoid"), "binary_crossentropy"),
        "two": trained(two_outputs(), {"price": "mse", "sold": "mae"}),
        "by_element": trained(predictor(3), losses.WeightedMSE()),
        "frozen": trained(frozen(), "mse"),
        "nested": trained(nested(), "mse"),
        "tied": trained(tied(), "mse"),
        "unregistered": trained(predictor(), Unregistered()),
    }
    files = tmp_path_factory.mktemp("files")
    write_files(files, models["model"])
    return models, {
        "alk": alk, "keras": keras, "layers": layers, "ops": ops, "np": np,
        "losses": losses, "metrics": metrics, "functional": functional,
        "x": x, "y": y, "ids": ids, "files": files, **models,
        "predictor": predictor, "two_outputs": two_outputs, "subclassed": Subclassed,
        "base": base, "functional_model": functional_model, "leaky": leaky_model(),
        "value": ops.mean(ops.square(base.outputs[0] - base.inputs[1])),
        "packed": alk.pack_inputs(models["model"], x, y),
        "with_ids": alk.pack_inputs(models["grouped"], x, y, group_ids=ids),
        "other_rows": alk.pack_inputs(models["grouped"], 2 * x, 2 * y, group_ids=ids),
        "stream": stream, "iter_once": iter_once, "parquet": parquet_file(files),
        "build": lambda weight: models["grouped"],
        "cli": lambda *arguments: main(arguments),
    }  # fmt: skip


def state(models):
    """All weights, counters and optimizers' variables."""
    return {
        f"{name}: {variable.path} {number}": ops.convert_to_numpy(variable)
        for name, model in models.items()
        for number, variable in enumerate([*model.variables, *model.optimizer.variables])
    }


def errors(row):
    return tuple(getattr(builtins, name) for name in row.error.split("|"))


@pytest.mark.parametrize("row", ROWS)
def test_it_is_refused_with_the_message_and_leaves_no_trace(row, shared, tmp_path, capsys):
    models, names = shared
    if "parquet" in row.given:
        pytest.importorskip("pyarrow")
    names = {**names, "folder": tmp_path}
    before = state(models)
    if row.error == "UserWarning":
        with pytest.warns(UserWarning, match=row.pattern):
            eval(row.given, names)
    elif row.error == "SystemExit":
        with pytest.raises(SystemExit) as caught:
            eval(row.given, names)
        assert caught.value.code == 2
        assert row.message in capsys.readouterr().err
    else:
        with warnings.catch_warnings(), pytest.raises(errors(row), match=row.pattern) as e:
            warnings.simplefilter("ignore", DeprecationWarning)
            eval(row.given, names)
        assert type(e.value) in errors(row)
        assert len(str(e.value)) < 700
    now = state(models)
    assert now.keys() == before.keys()
    for name, former in before.items():
        np.testing.assert_array_equal(now[name], former, err_msg=name)
    assert list(tmp_path.rglob("*")) == []


def test_the_table_is_large_and_its_rows_differ():
    rows = [row for rows in bad_inputs.ENTRIES.values() for row in rows]
    assert len(rows) >= 120
    assert len({row.id for row in rows}) == len({row.given for row in rows}) == len(rows)


def test_every_public_entry_point_is_in_the_table():
    given = " ".join(row.given for rows in bad_inputs.ENTRIES.values() for row in rows)
    made_by_others = {"LossEndpoint", "SymbolicLoss", "FunctionLoss", "Field"}
    lenient = {"align_weight", "row_mean", "safe_sqrt"}  # They refuse nothing.
    for module in (alk, losses, metrics, functional):
        for name in set(module.__all__) - made_by_others - lenient:
            assert name in given, f"{name} has no bad input"


def test_the_page_is_the_table():
    assert bad_inputs.PAGE.read_text(encoding="utf-8") == bad_inputs.page(), (
        "run `python tests/bad_inputs.py`"
    )
