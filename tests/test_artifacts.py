"""Checkpoints come back exactly, run no code, and no damaged bit goes unseen."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from worldmodels import runs
from worldmodels.protocols import UserError


def test_checkpoint_round_trip_of_all_that_resuming_needs(tmp_path: Path) -> None:
    rng, generator = np.random.default_rng(3), torch.Generator().manual_seed(3)
    rng.normal(size=5)
    torch.rand(5, generator=generator)
    state: dict[str, Any] = {
        "weight": torch.randn(2, 3).to(torch.bfloat16),
        "array": np.arange(6.0).reshape(2, 3),
        "flags": np.array([True, False]),
        "scalar": np.float64(0.5),
        "rng": rng.bit_generator.state,
        "generator": generator.get_state(),
        "nested": {"step": 7, "names": ["a", None], "pair": (1, 2.5)},
        "blob": b"\x00\xff",
    }
    runs.save_checkpoint(tmp_path / "c.pt", state)
    back = runs.load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(back["weight"], state["weight"])
    np.testing.assert_array_equal(back["array"], state["array"])
    np.testing.assert_array_equal(back["flags"], state["flags"])
    assert (back["scalar"], back["nested"], back["blob"]) == (0.5, state["nested"], b"\x00\xff")
    again = np.random.default_rng()
    again.bit_generator.state = back["rng"]
    assert again.normal() == rng.normal()
    twin = torch.Generator()
    twin.set_state(back["generator"])
    assert torch.equal(torch.rand(3, generator=twin), torch.rand(3, generator=generator))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "uint32", "float32", "float64"])
def test_arrays_keep_their_type_and_their_order_in_memory(
    tmp_path: Path, order: Any, dtype: str
) -> None:
    array = np.array(np.arange(24).reshape(2, 3, 4) % 5, dtype, order=order).transpose(1, 0, 2)
    tensor = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)
    runs.save_checkpoint(tmp_path / "c", {"a": array, "t": tensor, "none": array[:0]})
    back = runs.load_checkpoint(tmp_path / "c")
    assert (back["a"].dtype, back["a"].strides) == (array.dtype, array.strides)
    np.testing.assert_array_equal(back["a"], array)
    assert (back["t"].stride(), back["t"].dtype) == (tensor.stride(), tensor.dtype)
    assert back["none"].shape == (0, 2, 4)
    back["a"][:] = 0  # it may be written into


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("aé{", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers(-9, 9) | st.text("ab", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_plain_values_come_back_with_their_types(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "plain"
    runs.save_checkpoint(path, {"value": value})
    back = runs.load_checkpoint(path)["value"]
    assert back == value and repr(back) == repr(value)


def test_an_optimiser_continues_exactly(tmp_path: Path) -> None:
    def steps(model: nn.Module, optimiser: torch.optim.Optimizer, count: int) -> None:
        for number in range(count):
            optimiser.zero_grad()
            model(torch.full((2, 3), float(number))).square().mean().backward()
            optimiser.step()

    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimiser = torch.optim.Adam(model.parameters())
    steps(model, optimiser, 2)
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
    runs.save_checkpoint(tmp_path / "c", state)
    steps(model, optimiser, 2)
    other = nn.Linear(3, 2)
    again = torch.optim.Adam(other.parameters())
    kept = runs.load_checkpoint(tmp_path / "c")
    other.load_state_dict(kept["model"])
    again.load_state_dict(kept["optimiser"])
    steps(other, again, 2)
    assert torch.equal(model.weight, other.weight)


def test_every_flipped_bit_and_every_cut_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "memory.pt"
    runs.save_checkpoint(file, {"weight": torch.ones(8), "step": 3, "name": "M"}, "memory")
    data = file.read_bytes()
    assert b"memory" in data[:200]  # the kind is in the header
    for at in range(len(data)):
        for bit in (1, 32):
            changed = bytearray(data)
            changed[at] ^= bit
            file.write_bytes(changed)
            with pytest.raises(UserError, match=r"memory\.pt"):
                runs.load_checkpoint(file)
    for size in (0, 7, 8, 100, len(data) - 1):
        file.write_bytes(data[:size])
        with pytest.raises(UserError, match=r"memory\.pt is damaged \(.+\); delete it"):
            runs.load_checkpoint(file)


def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.mkdir, (tmp_path / "harm",)

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"evil\.pt is a pickle"):
        runs.load_checkpoint(tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"raw\.pt is damaged"):
        runs.load_checkpoint(tmp_path / "raw.pt")
    assert not (tmp_path / "harm").exists()


def test_a_former_format_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "z.safetensors"  # latents, as earlier versions wrote them
    save_file({"mu": torch.zeros(2, 3)}, path, {"worldmodels": '{"kind": "latents"}'})
    with pytest.raises(UserError, match=r"has the format of an earlier .*; delete it and"):
        runs.load_checkpoint(path)


def test_what_no_checkpoint_holds_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pt does not exist"):
        runs.load_checkpoint(tmp_path / "none.pt")
    for value, place in (
        (object(), "state['x'][0] is of <class 'object'>"),
        (np.array(["a"]), "state['x'][0] is an array of <U1"),
        ({(1,): 2}, "state['x'][0] has the key (1,)"),
    ):
        with pytest.raises(TypeError, match=re.escape(place)):
            runs.save_checkpoint(tmp_path / "x", {"x": [value]})
    assert not (tmp_path / "x").exists()
