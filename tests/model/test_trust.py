"""Loading runs no code of the file, and says which file it refuses."""

import io
import json
import pickle
import zipfile

import keras
import numpy as np
import pytest
from keras import layers
from predictors import linear

import addloss_kit as alk


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A `.keras` file of a training with custom terms, metrics and an optimizer."""
    predictor = keras.Sequential([keras.Input((3,)), layers.Dense(50), layers.Dense(1)])
    model = alk.build_training_model(
        predictor,
        ["mse", alk.losses.GroupGap(2, error="huber")],
        metrics=[alk.metrics.GroupError(2)],
    )
    model.compile("adam")
    path = tmp_path_factory.mktemp("trust") / "saved.keras"
    model.save(path)
    return path


def rewritten(saved, path, edit):
    """A copy of an archive; `edit(name, content)` returns the new content or None."""
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = edit(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return path


def with_config(saved, path, change):
    def edit(name, content):
        if name != "config.json":
            return content
        config = json.loads(content)
        change(config)
        return json.dumps(config)

    return rewritten(saved, path, edit)


def layer_config(config, class_name):
    found = [x for x in config["config"]["layers"] if x["class_name"] == class_name]
    return found[0]


def refuse(path):
    """The message with which a file is refused; it names the file."""
    with pytest.raises(ValueError, match="could not be loaded") as caught:
        alk.load_training_model(path)
    assert f"filepath={path}" in str(caught.value)
    return str(caught.value)


def test_a_whole_file_is_loaded_with_its_optimizer(saved):
    model = alk.load_training_model(saved)
    assert isinstance(model, alk.TrainingModel)
    assert isinstance(model.optimizer, keras.optimizers.Adam)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.keras"):
        alk.load_training_model(tmp_path / "absent.keras")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused_by_name(share, saved, tmp_path):
    content = saved.read_bytes()
    path = tmp_path / "cut.keras"
    path.write_bytes(content[: int(share * len(content))])
    refuse(path)


@pytest.mark.parametrize("place", [0.05, 0.3, 0.6, 0.9])
def test_a_damaged_file_is_refused_by_name(place, saved, tmp_path):
    content = bytearray(saved.read_bytes())
    start = int(place * len(content))
    for i in range(start, start + 20):
        content[i] ^= 0xFF
    path = tmp_path / "damaged.keras"
    path.write_bytes(content)
    refuse(path)


@pytest.mark.parametrize(
    "content", [b"", b"hello", pickle.dumps([1]), b"\x89HDF\r\n\x1a\n"]
)
def test_a_file_of_another_kind_is_refused_by_name(content, tmp_path):
    path = tmp_path / "foreign.keras"
    path.write_bytes(content)
    refuse(path)


@pytest.mark.parametrize("missing", ["config.json", "model.weights.h5"])
def test_an_archive_that_lacks_a_part_is_refused_by_name(missing, saved, tmp_path):
    def edit(name, content):
        return None if name == missing else content

    refuse(rewritten(saved, tmp_path / "part.keras", edit))


def test_weights_cut_short_inside_a_whole_archive_are_refused_by_name(saved, tmp_path):
    def edit(name, content):
        return content[: len(content) // 2] if name.endswith(".h5") else content

    refuse(rewritten(saved, tmp_path / "inside.keras", edit))


def test_a_predictor_is_refused_where_a_training_is_wanted(tmp_path):
    path = tmp_path / "predictor.keras"
    linear(3, name=None).save(path)
    with pytest.raises(ValueError, match="predictor.keras, model=Sequential"):
        alk.load_training_model(path)


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_damaged_weights_are_refused_by_name(content, saved, tmp_path):
    path = tmp_path / "w.weights.h5"
    path.write_bytes(content)
    with pytest.raises(OSError, match="w.weights.h5"):
        alk.load_training_model(saved).load_weights(path)


# Hostile files ------------------------------------------------------------------------


@pytest.fixture
def trap(tmp_path):
    """A path that hostile code would create."""
    path = tmp_path / "trap"
    yield path
    assert not path.exists(), "Code of the file was run."


def test_a_lambda_layer_is_not_run(tmp_path, trap):
    def spring(x, trap=str(trap)):
        open(trap, "w").close()
        return x

    layer = layers.Lambda(lambda x: spring(x), output_shape=(3,))
    predictor = linear(3, 3, name=None)
    predictor.add(layer)
    trap.unlink(missing_ok=True)  # Building the model has called it.
    model = alk.build_training_model(predictor, "mse")
    trap.unlink(missing_ok=True)
    model.save(tmp_path / "lambda.keras")
    assert "Lambda" in refuse(tmp_path / "lambda.keras")


@pytest.mark.parametrize(
    "hostile",
    [
        {"module": "os", "class_name": "system", "config": {"command": "touch {}"}},
        {"module": "builtins", "class_name": "eval", "config": "open({!r}, 'w')"},
        {"module": "builtins", "class_name": "function", "config": "exec"},
        {
            "module": "subprocess",
            "class_name": "Popen",
            "config": {"args": ["touch", "{}"]},
        },
    ],
)
@pytest.mark.parametrize("where", ["layer", "term", "error", "metric"])
def test_a_config_calls_nothing_but_layers_and_losses(
    where, hostile, saved, tmp_path, trap
):
    text = json.dumps({**hostile, "registered_name": hostile["class_name"]})
    planted = json.loads(text.replace("{!r}", f"'{trap}'").replace("{}", str(trap)))

    def change(config):
        endpoint = layer_config(config, "LossEndpoint")["config"]
        terms = endpoint["bound_terms"]
        if where == "layer":
            layer_config(config, "Dense").update(planted)
        elif where == "term":
            terms[1]["term"] = planted
        elif where == "error":
            terms[1]["term"]["config"]["error"] = planted
        else:
            config["config"]["bound_metrics"][0]["metric"] = planted

    refuse(with_config(saved, tmp_path / "hostile.keras", change))


# The rest of the weights is missing, which Keras also says as a warning.
@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_pickled_weights_are_not_unpickled(saved, tmp_path, trap):
    class Spring:
        def __reduce__(self):
            return open, (str(trap), "w")

    weights = io.BytesIO()
    springs = np.empty(1, object)
    springs[0] = Spring()
    np.savez(weights, allow_pickle=True, **{"__root__": springs})

    def edit(name, content):
        return content if name != "model.weights.h5" else None

    path = rewritten(saved, tmp_path / "pickled.keras", edit)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model.weights.npz", weights.getvalue())
    assert "allow_pickle=False" in refuse(path)


def test_nothing_is_unpickled_on_the_way(saved, monkeypatch):
    def refuse_to_unpickle(*args, **kwargs):
        raise AssertionError("pickle was called")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse_to_unpickle)
    alk.load_training_model(saved)


def test_an_exported_predictor_is_loaded_in_safe_mode_too(tmp_path):
    # What serves a predictor is Keras alone: this holds what the docs rely on.
    predictor = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: 2 * x)])
    predictor.save(tmp_path / "lambda.keras")
    with pytest.raises(ValueError, match="arbitrary code execution"):
        keras.saving.load_model(tmp_path / "lambda.keras")
