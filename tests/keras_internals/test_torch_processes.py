"""Sums over torch's processes do not exist, so they are refused."""

import sys
import types

import keras
import pytest

from addloss_kit.keras_internals.replicas import gather_over_replicas, sum_over_replicas


def torch_with(monkeypatch, processes, is_initialized=True, is_available=True):
    torch = types.ModuleType("torch")
    torch.distributed = types.SimpleNamespace(
        is_available=lambda: is_available,
        is_initialized=lambda: is_initialized,
        get_world_size=lambda: processes,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")


@pytest.mark.parametrize("over_replicas", [sum_over_replicas, gather_over_replicas])
def test_several_processes_are_refused(monkeypatch, over_replicas):
    torch_with(monkeypatch, processes=2)

    with pytest.raises(NotImplementedError, match=r"not summed over torch's.*size\(\)=2"):
        over_replicas((1.0, 2.0))


@pytest.mark.parametrize(
    "state",
    [
        {"processes": 1},
        {"processes": 2, "is_initialized": False},
        {"processes": 2, "is_available": False},
    ],
)
@pytest.mark.parametrize("over_replicas", [sum_over_replicas, gather_over_replicas])
def test_a_single_process_is_left_alone(monkeypatch, over_replicas, state):
    torch_with(monkeypatch, **state)

    assert over_replicas((1.0, 2.0)) == (1.0, 2.0)
