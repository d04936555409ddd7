"""Small pickles that would take for ever or all memory are refused before they do."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import pytest
import torch

from gemix.core.errors import CheckpointError
from gemix.gan.importers.torch_storage import MAGIC
from gemix.gan.models.discriminator import Discriminator
from gemix.gan.models.generator import Generator
from tests.gan.test_hostile_pickles import (
    ARCHITECTURE,
    MODULE,
    TENSOR,
    RawTensor,
    Storage,
    imported,
    saved,
)
from tests.public_pickle import PublicModule, dump, public_networks

# a tuple that holds itself twice, eighty times over: 2**80 parts to hash or to write out
DOUBLED = b")q\x00" + 80 * b"h\x00h\x00\x86q\x00"
NESTED = b"(" + DOUBLED + b"1h\x00"
LOAD = b"ctorch.storage\n_load_from_bytes\n"


@pytest.fixture
def content() -> dict[str, object]:
    return public_networks(Generator(ARCHITECTURE), Discriminator(ARCHITECTURE))


@pytest.mark.parametrize(
    "commands",
    [
        b"}" + NESTED + b"Ns.",
        b"}(" + NESTED + b"Nu.",
        b"\x8f(" + NESTED + b"\x90.",
        b"(" + NESTED + b"\x91.",
        b"cbuiltins\nset\n]" + NESTED + b"a\x85R.",
        b"ccollections\nOrderedDict\n)R" + NESTED + b"Ns.",
        b"ccollections\nOrderedDict\n]" + NESTED + b"N\x86a\x85R.",
        b"cdnnlib.util\nEasyDict\n)\x81" + NESTED + b"Ns.",
    ],
)
def test_tuples_that_nest_are_never_hashed(commands):
    with pytest.raises(CheckpointError):
        imported(commands)


@pytest.mark.parametrize(
    "commands",
    [
        NESTED + b"(tR.",
        TENSOR + NESTED + NESTED + b"\x86R.",
        TENSOR + LOAD + b"C\x00\x85RK\x00" + NESTED + NESTED + b"tR.",
        b"}S'G_ema'\n" + MODULE + b"}S'state'\n" + NESTED + b"s\x85Rs.",
        b"}S'G_ema'\n" + NESTED + b"s.",
        NESTED + b"}S'a'\n" + NESTED + b"sb.",
        b"c" + b"x" * 10_000 + b"\nname\n.",
    ],
)
def test_what_is_wrong_is_not_written_out_at_length(commands):
    with pytest.raises(CheckpointError) as error:
        imported(commands)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("zipped", [False, True])
def test_a_storage_is_no_pickle_to_hide_in(content, zipped):
    hidden = DOUBLED + b"}h\x00Ns."
    if zipped:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", hidden)
        data = stream.getvalue()
    else:
        data = pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + hidden
    content["G_ema"].state["extra"] = Storage(data)
    with pytest.raises(CheckpointError, match="plain numbers"):
        imported(dump(content))


def test_numbers_are_read_once(content):
    numbers = saved(torch.zeros(250_000)._typed_storage())
    content["many"] = [Storage(numbers)]
    assert imported(dump(content)) == ARCHITECTURE
    content["many"] = [Storage(numbers) for _ in range(40)]
    assert len(dump(content)) < 2 * len(numbers)  # and 40 times that in memory
    with pytest.raises(CheckpointError, match="again and again"):
        imported(dump(content))


def test_a_tuple_nested_too_deep_to_hash_is_refused():
    for deep in (b"}" + b")" + 2000 * b"\x85" + b"Ns.", b"}(" + 2000 * b"N" + b"tNs."):
        with pytest.raises(CheckpointError, match="more than 1000 elements"):
            imported(deep)


def test_lengths_beyond_the_end_of_the_file_are_refused():
    for code in (b"\x8e", b"\x8d"):  # BINBYTES8 and BINUNICODE8
        with pytest.raises(CheckpointError):
            imported(code + struct.pack("<Q", 2**40) + b"x.")


def test_a_file_above_the_limit_is_refused_unread(content, monkeypatch):
    data = dump(content)
    monkeypatch.setattr("gemix.gan.importers.network_pickle.MAX_BYTES", len(data) - 1)
    with pytest.raises(CheckpointError, match=r"GiB; network pickles above .* are refused"):
        imported(data)


@pytest.mark.parametrize("dimensions", [9, 100_000])
def test_tensors_have_few_dimensions(content, dimensions):
    ones = (1,) * dimensions
    content["G_ema"].state["extra"] = RawTensor(size=ones, stride=ones)
    with pytest.raises(CheckpointError, match=r"invalid tensor|more than 1000 elements"):
        imported(dump(content))


@pytest.mark.parametrize("number", [2**100, 10**5000], ids=["LONG1", "LONG4"])
def test_integers_are_short(content, number):
    content["G_ema"].state["conv_clamp"] = number
    with pytest.raises(CheckpointError, match=r"conv_clamp of 101 bits|opcode LONG4"):
        imported(dump(content))


@pytest.mark.parametrize("name", ["a" * 100, "a.b", "", "\x1b[2J", "b\n"])
def test_names_are_names(content, name):
    content["G_ema"].state["_modules"][name] = None
    with pytest.raises(CheckpointError, match="no name of anything"):
        imported(dump(content))


def test_modules_are_not_endless(content):
    module = content["G_ema"]
    for _ in range(40):
        module = PublicModule({"_parameters": {}, "_buffers": {}, "_modules": {"a": module}})
    with pytest.raises(CheckpointError, match="20 deep"):
        imported(dump({"G_ema": module}))


def test_a_generator_of_endless_blocks_is_refused(content):
    blocks = content["G_ema"].state["_modules"]["synthesis"].state["_modules"]
    size = torch.Size((8, 8, 1, 1))
    for exponent in range(3, 70):
        weight = torch.nn.Parameter(torch.zeros(size), False)
        conv = PublicModule({"_parameters": {"weight": weight}, "_buffers": {}, "_modules": {}})
        torgb = PublicModule(
            {"_parameters": {"weight": weight + 0}, "_buffers": {}, "_modules": {}}
        )
        modules = {"conv1": conv, "torgb": torgb}
        state = {"_parameters": {}, "_buffers": {}, "_modules": modules}
        blocks[f"b{2**exponent}"] = PublicModule(state)
    with pytest.raises(CheckpointError, match="imports up to"):
        imported(dump({"G_ema": content["G_ema"]}))


def test_a_bound_without_bounds_is_refused(content):
    def set_bound(module: PublicModule) -> None:
        if "conv_clamp" in module.state:
            module.state["conv_clamp"] = float("inf")
        for child in module.state["_modules"].values():
            set_bound(child)

    for name in ("G", "D", "G_ema"):
        set_bound(content[name])
    with pytest.raises(CheckpointError, match="conv_clamp"):
        imported(dump(content))


def test_other_commands_are_named():
    with pytest.raises(CheckpointError, match="opcode DUP"):
        imported(b"}2.")
