from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from worldmodels.artifacts import filled, read_facts, read_tensors
from worldmodels.protocols import UserError

LAYER = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}


def test_tensors_and_facts_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(LAYER, path, {"worldmodels": json.dumps({"kind": "a"})})
    file = read_tensors(path, "make it again")
    assert torch.equal(file.tensors["weight"], LAYER["weight"])
    assert read_facts(file, dict, path, "make it again") == {"kind": "a"}
    with pytest.raises(UserError, match=r"x\.safetensors holds .*; it must be a list"):
        read_facts(file, list, path, "make it again")
    layer = filled(lambda: nn.Linear(2, 3), file.tensors, path, "make it again")
    assert torch.equal(layer.weight, LAYER["weight"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is damaged"),
        (b"\xff" * 7 + b"\x7f", "is damaged"),  # a header of 2^63 bytes
        ((2).to_bytes(8, "little") + b"{}", "was not written by worldmodels"),
        ((8).to_bytes(8, "little") + b"[" * 8, "is damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"x\.safetensors {message}.*; make it again"):
        read_facts(read_tensors(path, "make it again"), dict, path, "make it again")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.ones(3, 2)}, "lacks the tensor 'bias'"),
        ({**LAYER, "more": torch.ones(1)}, "unknown tensor 'more'"),
        ({**LAYER, "bias": torch.ones(4)}, r"'bias' has shape \(4,\).* needs \(3,\)"),
        ({**LAYER, "bias": torch.full((3,), torch.inf)}, "'bias' has numbers that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named(tensors: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        filled(lambda: nn.Linear(2, 3), tensors, Path("x.pt"), "make it again")


def test_no_network_is_made_that_its_file_does_not_fill() -> None:
    with pytest.raises(UserError, match=r"needs \(1000000, 1000000\)"):  # 4 TB
        filled(lambda: nn.Linear(10**6, 10**6), LAYER, Path("x.pt"), "make it again")
