"""Hundreds of damaged DICOM and NIfTI files: none stops prepare, none is passed over in silence."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1

from gemix.data.config import DataConfig
from gemix.data.prepare import QUARANTINE, prepare_serial
from gemix.data.shards.manifest import Manifest
from gemix.data.sources import open_source
from gemix.io.storage import Store
from tests.data.dicom_files import CANARY, CANARY_UID, CORONAL, SALT, assert_no_canary, write

GOOD = 10  # slices or volumes a class
SIDE = 32

Damage = Callable[[bytes], bytes]


def noise(rng, *shape) -> np.ndarray:
    return rng.integers(0, 2000, shape, dtype=np.int16)


def hounsfield_noise(rng, *shape) -> np.ndarray:
    return noise(rng, *shape) - np.int16(1000)


def damages(rng) -> Iterator[Damage]:
    """What can happen to any file: cut short, emptied, overwritten."""
    yield lambda data: b"<html><body>404 Not Found</body></html>"
    for share in rng.uniform(0, 0.95, 25):
        yield lambda data, share=share: data[: int(share * len(data))]
    for length in rng.integers(0, 600, 10):
        yield lambda data, length=length: rng.bytes(length)
        yield lambda data, length=length: bytes(length)
        yield lambda data: rng.bytes(140) + data[140:]


def flips(rng, first: int, last: int, count: int) -> Iterator[Damage]:
    """A bit flipped somewhere in a header: this may be harmless."""

    def flip(data: bytes, place: int, bit: int) -> bytes:
        return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]

    for place, bit in zip(rng.integers(first, last, count), rng.integers(8, size=count)):  # noqa: B905
        yield lambda data, place=int(place), bit=int(bit): flip(data, place, bit)


def tag_changes() -> Iterator[dict]:
    """Changes to a DICOM file's tags that leave nothing to learn from."""
    for syntax in (UID(f"{CANARY_UID}.5"), JPEGLosslessSV1, JPEG2000Lossless):
        yield {"syntax": syntax}
    for name in ("PixelData", "RescaleSlope", "RescaleIntercept", "SamplesPerPixel", "Rows"):
        yield {name: None}
    for name in ("ImageOrientationPatient", "SOPInstanceUID", "BitsStored"):
        yield {name: None}
    for side in (0, 1, 15, 33, 8193, 65535):
        yield {"Rows": side}
        yield {"Columns": side}
    yield {"Rows": 65535, "Columns": 65535}
    yield {"RescaleSlope": "-1e400"}
    for frames in (2, 999_999_999):
        yield {"NumberOfFrames": frames}
    for samples in (0, 3, 4):
        yield {"SamplesPerPixel": samples}
    for kind in ("MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL", CANARY):
        yield {"PhotometricInterpretation": kind}
    for bits in (0, 1, 8, 32, 64, 77):
        yield {"BitsAllocated": bits}
    for axes in (CORONAL, [0] * 6, [1, 0, 0, 1, 0, 0], [1, 0, 0], [9, 0, 0, 0, 9, 0]):
        yield {"ImageOrientationPatient": axes}
    yield {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    yield {"Modality": "MR"}
    yield {"PatientID": f"{CANARY}-nobody"}


def element_changes() -> Iterator[Damage]:
    """Elements of a DICOM file as no writer lets them pass."""

    def change(data: bytes, tag: bytes, vr: bytes, value: bytes | None) -> bytes:
        at = data.index(tag)
        end = at + 8 + int.from_bytes(data[at + 6 : at + 8], "little")
        value = data[at + 8 : end] if value is None else value
        return data[:at] + tag + vr + len(value).to_bytes(2, "little") + value + data[end:]

    for tag in (b"\x28\0\x53\x10", b"\x28\0\x52\x10"):  # slope, intercept
        for value in (b"nan ", b"inf ", CANARY.encode() + b" ", b"\0\xff\xfe\x80", b"1\\2 "):
            yield lambda data, tag=tag, value=value: change(data, tag, b"DS", value)
    for tag in (b"\x28\0\x10\0", b"\x28\0\0\1", b"\x20\0\x37\0"):  # rows, bits, orientation
        for vr in (b"ZZ", b"\0\0", b"SQ", b"OB", b"UT", b"AT"):
            yield lambda data, tag=tag, vr=vr: change(data, tag, vr, None)


def inflating(data: bytes) -> bytes:
    """A deflated DICOM file with 300 MiB of nothing behind its pixels."""
    start = 144 + int.from_bytes(data[140:144], "little")  # behind group 2 (DICOM PS3.10, 7.1)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(zlib.decompress(data[start:], -zlib.MAX_WBITS))
    packed += b"".join(packer.compress(bytes(2**20)) for _ in range(300))
    return data[:start] + packed + packer.flush()


def write_dicom(rng, folder: Path) -> tuple[int, int]:
    """Good and bad slices and their labels; how many there are of all, and of maybe harmless."""
    number = 0

    def plain(**changes) -> Path:
        nonlocal number
        number += 1
        changes = {"PatientID": f"{CANARY}-{number % 4}", "InstanceNumber": number} | changes
        return write(folder / f"{CANARY} {number:04d}", noise(rng, SIDE, SIDE), **changes)

    def spoil(path: Path, damage: Damage) -> None:
        path.write_bytes(damage(path.read_bytes()))

    labels = [f"{CANARY}-{patient},{'ab'[patient % 2]}" for patient in range(4)]
    for _ in range(2 * GOOD):
        plain()
    for changes in tag_changes():
        plain(**changes)
    for damage in (*damages(rng), *element_changes()):
        spoil(plain(), damage)
    spoil(plain(syntax=DeflatedExplicitVRLittleEndian), inflating)
    sure = number
    for damage in flips(rng, 132, 1200, 60):
        spoil(plain(), damage)
    (folder / "labels.csv").write_text("\n".join(["patient,class", *labels]))
    return number, number - sure


def header_changes() -> Iterator[dict]:
    """Changes to fields of a NIfTI header that leave nothing to learn from."""
    for dims in (
        [0] * 8,
        [-3, SIDE, SIDE, 2, 1, 1, 1, 1],
        [3, -SIDE, SIDE, 2, 1, 1, 1, 1],
        [3, SIDE, SIDE, -2, 1, 1, 1, 1],
        [3, SIDE, SIDE, 0, 1, 1, 1, 1],
        [3, SIDE, SIDE, 32767, 1, 1, 1, 1],
        [3, 32767, 32767, 32767, 1, 1, 1, 1],
        [3, 8192, 8192, 4, 1, 1, 1, 1],
        [7, SIDE, SIDE, 2, 32767, 32767, 32767, 32767],
        [32767, SIDE, SIDE, 2, 1, 1, 1, 1],
        [2, SIDE, SIDE, 1, 1, 1, 1, 1],
        [3, 8, SIDE, 2, 1, 1, 1, 1],
    ):
        yield {"dim": dims}
    for datatype in (0, 1, 32, 128, 77, 1792, -4):
        yield {"datatype": datatype}
    for value in (np.nan, np.inf, -np.inf):
        yield {"scl_slope": 1, "scl_inter": value}
        yield {"vox_offset": value}
        yield {"srow_x": value}
    yield {"scl_slope": np.inf}
    yield {"srow_z": 0}
    for offset in (-1, 0, 1e30):
        yield {"vox_offset": offset}
    for size in (0, -348, 349, 540):
        yield {"sizeof_hdr": size}


def volume(rng, dtype=np.int16, **fields) -> bytes:
    """Two slices with a name in every text of the header."""
    image = nib.Nifti1Image(
        hounsfield_noise(rng, SIDE, SIDE, 2).astype(dtype), np.diag([-1.0, -1, 1, 1])
    )
    data = image.to_bytes()
    header = nib.Nifti1Header(data[:348], check=False)
    texts = {name: CANARY for name in ("descrip", "aux_file", "intent_name", "db_name")}
    for name, value in (texts | fields).items():
        header[name] = value
    return header.binaryblock + data[348:]


def write_nifti(rng, folder: Path) -> tuple[set[str], int]:
    """Good and bad volumes; the names of the bad ones, and how many may be harmless."""
    bad: set[str] = set()
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for index in range(GOOD):
            (folder / name / f"good {index}.nii").write_bytes(volume(rng))
    files = [volume(rng, **fields) for fields in header_changes()]
    for value in (np.nan, np.inf):
        spoilt = hounsfield_noise(rng, SIDE, SIDE, 2).astype(np.float32)
        spoilt[3, 4] = value
        files.append(nib.Nifti1Image(spoilt, np.diag([-1.0, -1, 1, 1])).to_bytes())
    files += [damage(volume(rng)) for damage in damages(rng)]
    packed = [damage(gzip.compress(volume(rng))) for damage in damages(rng)]
    packed += [gzip.compress(damage(volume(rng))) for damage in damages(rng)]
    harmless = [damage(volume(rng)) for damage in flips(rng, 0, 352, 60)]
    harmless.append(gzip.compress(volume(rng)))  # packed, whatever it is called
    for kind, ending, many in (
        ("bad", "nii", files), ("packed", "nii.gz", packed), ("flip", "nii", harmless)
    ):  # fmt: skip
        for index, data in enumerate(many):
            name = f"{'ab'[index % 2]}/{kind} {index}.{ending}"
            (folder / name).write_bytes(data)
            bad |= {name} if kind != "flip" else set()
    return bad, len(harmless)


def prepared(source: str, root: Path, out: Path) -> tuple[Manifest, dict[str, str], Store]:
    """Reasons by item, of all that was set aside."""
    config = DataConfig(
        source=source, path=str(root), labels="labels.csv", resolution=16, max_bad_fraction=1
    )
    store = Store(out)
    manifest = prepare_serial(open_source(config), config, store)
    return manifest, {e["source"]: e["reason"] for e in store.read_json(QUARANTINE)}, store


def assert_nothing_leaks(store: Store) -> None:
    for name in store.list(recursive=True):
        assert_no_canary(name)
        assert_no_canary(store.read_bytes(name).decode("latin-1"))


def test_every_malformed_dicom_file_is_set_aside_or_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)
    total, harmless = write_dicom(np.random.default_rng(0), tmp_path / "scans")
    manifest, reasons, store = prepared("dicom", tmp_path / "scans", tmp_path / "out")
    counts = [re.match(r"left out (\d+) ", note) for note in manifest.origin["notes"]]
    left_out = sum(int(count[1]) for count in counts if count)
    assert total - harmless - 2 * GOOD >= 100
    assert manifest.images() + len(reasons) + left_out == total
    assert 2 * GOOD <= manifest.images() <= 2 * GOOD + harmless
    assert min(len(reasons), left_out) > 20
    assert all(10 < len(reason) < 300 for reason in reasons.values())
    assert_nothing_leaks(store)


def test_every_malformed_nifti_file_is_set_aside(tmp_path):
    bad, harmless = write_nifti(np.random.default_rng(1), tmp_path / "scans")
    manifest, reasons, store = prepared("nifti", tmp_path / "scans", tmp_path / "out")
    assert len(bad) >= 100
    assert bad <= {key.partition("#")[0] for key in reasons}
    assert 4 * GOOD <= manifest.images() <= 4 * GOOD + 2 * harmless
    left_out = sum(manifest.origin["left_out"].values())
    assert manifest.origin["found"] == manifest.images() + len(reasons) + left_out
    assert all(10 < len(reason) < 300 for reason in reasons.values())
    assert_nothing_leaks(store)
