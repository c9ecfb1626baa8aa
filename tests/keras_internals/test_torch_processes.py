"""Sums over torch's processes, and who writes; refused where Keras has no such training."""

import sys
import types

import keras
import pytest

from addloss_kit.keras_internals import torch_processes
from addloss_kit.keras_internals.replicas import (
    gather_over_replicas,
    is_first_process,
    sum_over_replicas,
    wait_for_all_processes,
)

over_replicas = pytest.mark.parametrize(
    "over_replicas", [sum_over_replicas, gather_over_replicas]
)


@pytest.fixture
def torch_with(monkeypatch):
    """A stand-in for torch; whether Keras trains on several processes is told, too."""

    def with_processes(
        processes, rank=0, is_initialized=True, is_available=True, is_trained_on=False
    ):
        torch = types.ModuleType("torch")
        torch.distributed = types.SimpleNamespace(
            is_available=lambda: is_available,
            is_initialized=lambda: is_initialized,
            get_world_size=lambda: processes,
            get_rank=lambda: rank,
            barrier=lambda: torch.waits.append(rank),
        )
        torch.waits = []
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
        name = "_keras_trains_on_several"
        monkeypatch.setattr(torch_processes, name, lambda: is_trained_on)
        return torch

    return with_processes


@over_replicas
def test_several_processes_are_refused_where_keras_does_not_train_on_them(
    torch_with, over_replicas
):
    torch_with(processes=2)

    with pytest.raises(NotImplementedError, match=r"not summed over torch's.*size\(\)=2"):
        over_replicas((1.0, 2.0))


@over_replicas
def test_a_model_that_is_split_over_processes_is_refused(
    torch_with, monkeypatch, over_replicas
):
    torch_with(processes=2, is_trained_on=True)
    split = object.__new__(keras.distribution.ModelParallel)
    monkeypatch.setattr(keras.distribution, "distribution", lambda: split)

    with pytest.raises(NotImplementedError, match="Received: distribution=ModelParallel"):
        over_replicas((1.0, 2.0))


@pytest.mark.parametrize(
    "state",
    [
        {"processes": 1},
        {"processes": 2, "is_initialized": False},
        {"processes": 2, "is_available": False},
    ],
)
@over_replicas
def test_a_single_process_is_left_alone(torch_with, over_replicas, state):
    torch_with(**state)

    assert over_replicas((1.0, 2.0)) == (1.0, 2.0)


@over_replicas
def test_a_symbolic_call_waits_for_no_other_process(torch_with, monkeypatch, over_replicas):
    # One process may build, load or export a model alone.
    torch_with(processes=2, is_trained_on=True)
    scope = "keras.src.backend.common.symbolic_scope.in_symbolic_scope"
    monkeypatch.setattr(scope, lambda: True)

    assert over_replicas((1.0, 2.0)) == (1.0, 2.0)


@pytest.mark.parametrize(("rank", "is_first"), [(0, True), (1, False)])
def test_the_process_of_rank_0_writes(torch_with, rank, is_first):
    torch_with(processes=2, rank=rank)

    assert is_first_process() is is_first


def test_a_process_without_others_writes(torch_with):
    torch_with(processes=1, is_initialized=False, rank=None)

    assert is_first_process() is True


@pytest.mark.parametrize(("processes", "waits"), [(1, []), (2, [1])])
def test_a_process_waits_only_for_others(torch_with, processes, waits):
    torch = torch_with(processes=processes, rank=1)

    wait_for_all_processes()

    assert torch.waits == waits
