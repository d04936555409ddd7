"""Pickles that are damaged or mean harm are refused, and nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from gemix.core.errors import CheckpointError
from gemix.gan.importers.network_pickle import read_network_pickle
from gemix.gan.importers.restricted_unpickler import MAX_OPCODES
from gemix.gan.importers.stylegan2 import import_networks
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.discriminator import Discriminator
from gemix.gan.models.generator import Generator
from tests.public_pickle import EasyDict, PublicModule, dump, public_networks

ARCHITECTURE = Architecture(
    resolution=8,
    img_channels=1,
    label_dim=3,
    z_dim=4,
    w_dim=4,
    mapping_layers=1,
    d_mapping_layers=1,
    channel_base=32,
    channel_max=8,
)


@pytest.fixture
def content() -> dict[str, object]:
    return public_networks(Generator(ARCHITECTURE), Discriminator(ARCHITECTURE))


def imported(data: bytes) -> Architecture:
    return import_networks(read_network_pickle(data))[0]


class Evil:
    """Leaves a file where it is run."""

    def __init__(self, path: os.PathLike[str]):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Storage:
    """Bytes in the place of a tensor's numbers."""

    def __init__(self, data: bytes):
        self.data = data

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.data,)


def saved(content: object, zip_format: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zip_format)
    return stream.getvalue()


THREE_NUMBERS = saved(torch.arange(3.0)._typed_storage())


class RawTensor:
    """A tensor of any description, by default over a storage of three numbers."""

    def __init__(self, offset=0, size=(3,), stride=(1,), storage=None):
        storage = Storage(THREE_NUMBERS) if storage is None else storage
        self.arguments = (storage, offset, size, stride, False, {})

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


@pytest.mark.parametrize("place", ["top", "state", "tensor", "legacy storage", "zip storage"])
def test_a_payload_is_refused_and_not_run(content, tmp_path, place):
    mark = tmp_path / "was-run"
    evil = Evil(mark)
    pickle.loads(pickle.dumps(evil))
    assert mark.exists()  # so the payload works
    mark.unlink()
    if place == "top":
        content["augment_pipe"] = evil
    elif place == "state":
        content["G_ema"].state["_forward_hooks"] = {0: evil}
    elif place == "tensor":
        content["G"].state["_buffers"] = {"w": evil}
    else:
        content["G"].state["w"] = Storage(saved(evil, zip_format=place == "zip storage"))
    message = "plain numbers" if "storage" in place else r"system', which.*nothing in it was run"
    with pytest.raises(CheckpointError, match=message):
        imported(dump(content))
    assert not mark.exists()


def test_the_source_code_in_the_file_is_ignored(content, tmp_path, monkeypatch):
    mark = tmp_path / "was-run"
    monkeypatch.setattr("tests.public_pickle.SOURCE", f"open({str(mark)!r}, 'w').close()")
    data = dump(content)
    assert str(mark).encode() in data
    assert imported(data) == ARCHITECTURE
    assert not mark.exists()


@pytest.mark.parametrize("name", ["builtins eval", "builtins getattr", "torch load", "os system"])
def test_no_other_name_is_found(name):
    module, function = name.split()
    with pytest.raises(CheckpointError, match=rf"asks for '{module}\.{function}'"):
        imported(f"c{module}\n{function}\n(S'1'\ntR.".encode())


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
PARAMETER = b"ctorch._utils\n_rebuild_parameter\n"
MODULE = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
EASY = b"cdnnlib.util\nEasyDict\n"


@pytest.mark.parametrize(
    "commands",
    [
        TENSOR + b"(N}S'content'\nI1\nstb.",
        TENSOR + b"(N}S'__defaults__'\n)stb.",
        TENSOR + b"}S'content'\nI1\nsb.",
        EASY + b"(N}S'__new__'\nI1\nstb.",
        EASY + b"}S'__new__'\nI1\nsb.",
        EASY + b")R(N}S'pop'\nI1\nstb.",
        EASY + b")R}S'pop'\nI1\nsb.",
        MODULE + b"(N}S'__init__'\nI1\nstb.",
        b"ccollections\nOrderedDict\n}S'__init__'\nI1\nsb.",
        b"cbuiltins\nset\n(N}S'__setstate__'\nI1\nstb.",
        EASY + b"}\x85R.",  # a copy of another dictionary
        EASY + b"}\x85\x81.",
        b"ccollections\nOrderedDict\n(]tR.",
        PARAMETER + b"(I1\ntR.",
        TENSOR + b"(I1\nI0\n(I1\nt(I1\ntI00\nNtR.",
        MODULE + b"(tR.",
        MODULE + b"(I1\ntR}S'content'\nI1\nsb.",
        b"}S'G_ema'\n" + MODULE + b"(I1\ntRs.",
        b"cdnnlib.util\nEasyDict.fromkeys\n.",
        b"cnumpy\nload\n.",
        b"Pstorage\n.",  # a persistent id
        b"\x82\x01.",  # the extension registry
    ],
)
def test_stand_ins_can_be_neither_changed_nor_misused(content, commands):
    with pytest.raises(CheckpointError):
        imported(commands)
    assert imported(dump(content)) == ARCHITECTURE  # the next file finds the reader as it was


@pytest.mark.parametrize(
    "tensor",
    [
        RawTensor(size=(10**6, 10**6), stride=(0, 0)),
        RawTensor(size=(4,)),
        RawTensor(offset=1),
        RawTensor(offset=-1),
        RawTensor(size=(-3,)),
        RawTensor(stride=(-1,)),
        RawTensor(size=(2, 2), stride=(1, 2)),
        RawTensor(size=(3,), stride=(1, 1)),
        RawTensor(size=(2**62, 2**62), stride=(1, 1)),
        RawTensor(size=(1.0,)),
        RawTensor(size="3"),
        RawTensor(size=3),
        RawTensor(storage=torch.ones(3)),
    ],
)
def test_tensors_stay_within_their_storage(content, tensor):
    content["G_ema"].state["extra"] = RawTensor()
    assert imported(dump(content)) == ARCHITECTURE
    content["G_ema"].state["extra"] = tensor
    with pytest.raises(CheckpointError):
        imported(dump(content))


def test_tensors_do_not_multiply_a_storage(content):
    storage = Storage(saved(torch.zeros(50_000)._typed_storage()))
    many = {f"x{number}": RawTensor(size=(50_000,), storage=storage) for number in range(100)}
    content["G_ema"].state["_buffers"] = many
    with pytest.raises(CheckpointError, match="more tensors than it holds numbers"):
        imported(dump(content))


def test_a_compressed_storage_is_refused(content):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    content["G_ema"].state["extra"] = Storage(packed.getvalue())
    with pytest.raises(CheckpointError, match="compressed"):
        imported(dump(content))


@pytest.mark.parametrize("numel", [4, 2**40, 2**62])
def test_a_storage_that_claims_more_than_it_holds_is_refused(content, numel):
    lied = THREE_NUMBERS.replace(b"cpuq\x03K\x03", b"cpuq\x03\x8a\x08" + struct.pack("<q", numel))
    assert lied != THREE_NUMBERS
    content["G_ema"].state["extra"] = Storage(lied)
    with pytest.raises(CheckpointError, match="plain numbers"):
        imported(dump(content))


@pytest.mark.parametrize("stored", [torch.ones(3), [1], {"a": torch.ones(3)._typed_storage()}])
def test_only_storages_are_taken_for_storages(content, stored):
    content["G_ema"].state["extra"] = Storage(saved(stored))
    with pytest.raises(CheckpointError, match="plain numbers"):
        imported(dump(content))


@pytest.mark.parametrize(
    "data",
    [b"Nr" + struct.pack("<I", 2**31) + b".", b"Np1000000000\n.", b"N" * (MAX_OPCODES + 2) + b"."],
    ids=["memo", "memo in text", "stack"],
)
def test_a_memo_or_a_stack_without_bounds_is_refused(data):
    with pytest.raises(CheckpointError, match="pickle opcodes"):
        imported(data)


def test_networks_that_are_no_trees_are_refused(content):
    module = content["G_ema"]
    for _ in range(80):  # as a tree it would have 2**80 leaves
        children = {"a": module, "b": module}
        module = PublicModule({"_parameters": {}, "_buffers": {}, "_modules": children})
    with pytest.raises(CheckpointError, match="trees"):
        imported(dump(content | {"G_ema": module}))
    with_itself = b"(}S'state'\n}S'_parameters'\n}sS'_buffers'\n}sS'_modules'\n}p1\nsstRp2\n"
    with pytest.raises(CheckpointError, match="trees"):
        imported(b"}S'G_ema'\n" + MODULE + with_itself + b"sg1\nS'x'\ng2\ns0.")


def test_sizes_that_the_weights_do_not_have_are_refused_unbuilt(content):
    mapping = content["G_ema"].state["_modules"]["mapping"].state["_modules"]["fc0"]
    wide = RawTensor(size=(1, 2**20), stride=(0, 1), storage=Storage(saved(_zeros(2**20))))
    mapping.state["_parameters"]["weight"] = wide
    content["G_ema"].state["_modules"]["mapping"].state["_buffers"]["w_avg"] = RawTensor(
        size=(2**20,), storage=Storage(saved(_zeros(2**20)))
    )
    with pytest.raises(CheckpointError, match="do not fit"):  # built, it would take 4 TiB
        imported(dump({"G_ema": content["G_ema"]}))


def _zeros(count: int) -> torch.storage.TypedStorage:
    return torch.zeros(count)._typed_storage()


def test_damaged_files_are_refused(content):
    data = dump(content)
    for end in np.linspace(0, len(data) - 1, 12).astype(int):
        with pytest.raises(CheckpointError):
            imported(data[:end])
    rng, refused = np.random.default_rng(0), 0
    for _ in range(40):
        damaged = bytearray(data)
        for place in rng.integers(len(data), size=20):
            damaged[place] = rng.integers(256)
        try:
            imported(bytes(damaged))
        except CheckpointError:
            refused += 1
    assert refused > 20  # what remains differs in names that do not matter, or in numbers


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        b"\x89PNG\r\n\x1a\n",
        saved({"G_ema": 3}, zip_format=True),
        pickle.dumps([1]),
        pickle.dumps({"G_ema": 3}),
    ],
)
def test_what_is_no_network_pickle_is_refused(data):
    with pytest.raises(CheckpointError):
        imported(data)


def test_a_pickle_without_networks_and_one_of_tensorflow_are_named():
    with pytest.raises(CheckpointError, match="no generator G_ema"):
        imported(dump({"training_set_kwargs": EasyDict()}))
    with pytest.raises(CheckpointError, match=r"TensorFlow.*legacy\.py"):
        imported(b"cdnnlib.tflib.network\nNetwork\n.")
