from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gemix.data.config import DataConfig
from gemix.data.preprocessing.preprocess import preprocess
from gemix.data.scan import InvalidImageError, ScanFiltered
from gemix.data.sources.nifti.source import NiftiSource
from tests.data.nifti_files import patch, save, slices_of, volume, write_archive

ALL_AXES = ["LPS", "RAS", "LAS", "RPI", "SAL", "PIR", "ASR"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "scans")


@pytest.mark.parametrize("axes", ALL_AXES)
def test_anterior_is_up_and_right_is_left_however_it_is_stored(root, axes):
    save(root / "a" / "p1.nii.gz", volume(), axes)
    source = NiftiSource(str(root))
    loaded = [source.load(item) for item in slices_of(source, "a/p1.nii.gz")]
    np.testing.assert_array_equal([scan.pixels for scan in loaded], volume())
    assert all(scan.is_hounsfield and scan.box is None for scan in loaded)
    assert loaded[0].pixels.dtype == np.float32


def test_an_oblique_volume_is_cut_along_the_nearest_axis(root):
    angle = np.deg2rad(20)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    save(root / "a" / "p1.nii.gz", volume(), affine=tilt @ np.diag([-1, -1, 1, 1]))
    source = NiftiSource(str(root))
    pixels = [source.load(item).pixels for item in slices_of(source, "a/p1.nii.gz")]
    np.testing.assert_array_equal(pixels, volume())


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_slope_intercept_and_limits(root, kind):
    values = volume() % 251
    values[0, 0, :2] = 0, 255
    save(root / "b" / "p2.nii", values, dtype=np.uint8, kind=kind)
    patch(root / "b" / "p2.nii", kind, scl_slope=20.5, scl_inter=-1100)
    source = NiftiSource(str(root))
    pixels = source.load(slices_of(source, "b/p2.nii")[0]).pixels
    expected = (values[0] * 20.5 - 1100).clip(-1024, 3071)
    np.testing.assert_allclose(pixels, expected, rtol=1e-6)
    assert (pixels.min(), pixels.max()) == (-1024, 3071)


def test_big_endian_and_one_frame_are_read(root):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    lps = volume().transpose(2, 1, 0)[..., None]
    image = nib.Nifti1Image(lps, np.diag([-1.0, -1, 1, 1]), header)
    assert image.shape == (32, 24, 3, 1)
    (root / "b" / "p2.nii").write_bytes(image.to_bytes())
    assert (root / "b" / "p2.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    source = NiftiSource(str(root))
    items = slices_of(source, "b/p2.nii")
    np.testing.assert_array_equal([source.load(i).pixels for i in items], volume())


def test_extensions_are_skipped_unread(root):
    image = nib.Nifti1Image(volume().transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe" * 20))
    data = bytearray(image.to_bytes())
    data[352:356] = (-16).to_bytes(4, "little", signed=True)  # a size that cannot be
    (root / "b" / "p2.nii").write_bytes(data)
    source = NiftiSource(str(root))
    items = slices_of(source, "b/p2.nii")
    np.testing.assert_array_equal([source.load(i).pixels for i in items], volume())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_slice_that_is_not_finite_is_bad_and_its_neighbours_are_not(root, bad):
    values = volume().astype(np.float32)
    values[1, 3, 4] = bad
    save(root / "b" / "p2.nii", values, dtype=np.float32)
    source = NiftiSource(str(root))
    first, second, third = slices_of(source, "b/p2.nii")
    with pytest.raises(InvalidImageError, match="1 of 768 pixels are NaN or infinite"):
        source.load(second)
    np.testing.assert_array_equal(source.load(first).pixels, volume()[0])
    np.testing.assert_array_equal(source.load(third).pixels, volume()[2])


def test_slices_that_pad_a_volume_are_left_out_and_a_blank_volume_is_bad(root):
    values = volume()
    values[2] = -2000
    save(root / "b" / "p2.nii", values)
    save(root / "b" / "p3.nii", np.full_like(values, 7))
    source = NiftiSource(str(root))
    *others, last = slices_of(source, "b/p2.nii")
    with pytest.raises(ScanFiltered, match=r"^blank$"):
        preprocess(source.load(last), DataConfig())
    np.testing.assert_array_equal([source.load(item).pixels for item in others], volume()[:2])
    for item in slices_of(source, "b/p3.nii"):
        with pytest.raises(InvalidImageError, match="all of its voxels have one value"):
            source.load(item)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"dim": [3, 2000, 2000, 200, 1, 1, 1, 1]}, r"2000 x 2000 x 200 voxels are 3200000000 "),
        ({"dim": [3, 8, 24, 3, 1, 1, 1, 1]}, "slices of 8 x 24 pixels; sides from 16 to 8192"),
        ({"dim": [3, 9000, 24, 3, 1, 1, 1, 1]}, "slices of 9000 x 24 pixels"),
        ({"dim": [4, 32, 24, 1, 3, 1, 1, 1]}, "shape 32 x 24 x 1 x 3; one volume"),
        ({"dim": [2, 32, 24, 1, 1, 1, 1, 1]}, "shape 32 x 24; one volume"),
        ({"dim": [3, 32, 24, 0, 1, 1, 1, 1]}, "shape 32 x 24 x 0; one volume"),
        ({"datatype": 128, "bitpix": 24}, "data type RGB"),
        ({"datatype": 32, "bitpix": 64}, "data type complex64"),
        ({"datatype": 77}, "damaged NIfTI header.*77"),
        ({"scl_slope": np.inf}, "scl_slope is infinite"),
        ({"vox_offset": -np.inf}, "damaged NIfTI header.*infinity"),
        ({"scl_slope": 1, "scl_inter": np.inf}, "damaged NIfTI header.*intercept inf"),
        ({"vox_offset": 0, "magic": b"ni1"}, "voxels at byte 0"),
        ({"srow_x": 0}, "affine has no inverse"),
        ({"srow_x": np.nan}, "damaged NIfTI header"),
    ],
)
def test_a_header_that_cannot_be_used_is_one_bad_image(root, fields, reason):
    patch(root / "b" / "p2.nii", **fields)
    source = NiftiSource(str(root))
    listing = source.list()
    (item,) = [item for item in listing.items if item.key == "b/p2.nii"]
    assert item.class_index == 1
    assert any("1 volumes cannot be cut" in note for note in listing.notes)
    with pytest.raises(InvalidImageError, match=reason):
        source.load(item)
    assert len(listing.items) == 7


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no NIfTI header"),
        (b"x" * 600, "no NIfTI header"),
        (gzip.compress(b"y" * 600, mtime=0)[:15], "no NIfTI header"),
    ],
)
def test_no_volume_at_all_is_a_bad_image(root, data, reason):
    for name in ("b/junk.nii", "b/junk2.nii.gz"):
        (root / name).write_bytes(data)
    source = NiftiSource(str(root))
    items = {item.key: item for item in source.list().items}
    for name in ("b/junk.nii", "b/junk2.nii.gz"):
        with pytest.raises(InvalidImageError):
            source.load(items[name])
    with pytest.raises(InvalidImageError, match=reason):
        source.load(items["b/junk.nii"])


@pytest.mark.parametrize("name", ["a/p1.nii.gz", "b/p2.nii"])
def test_a_truncated_volume_is_bad_slice_by_slice(root, name):
    data = (root / name).read_bytes()
    (root / name).write_bytes(data[: len(data) * 3 // 4])
    source = NiftiSource(str(root))
    items = slices_of(source, name)
    assert len(items) == 3
    for item in items:
        with pytest.raises(InvalidImageError, match="copy it again"):
            source.load(item)


def test_first_bytes_tell_whether_a_file_is_packed(root):
    packed, plain = root / "a" / "p1.nii.gz", root / "b" / "p2.nii"
    packed.write_bytes(gzip.decompress(packed.read_bytes()))
    plain.write_bytes(gzip.compress(plain.read_bytes()))
    source = NiftiSource(str(root))
    for name, seed in (("a/p1.nii.gz", 0), ("b/p2.nii", 1)):
        loaded = [source.load(item).pixels for item in slices_of(source, name)]
        np.testing.assert_array_equal(loaded, volume(seed=seed))


def test_a_packed_header_behind_a_long_comment_is_read(root):
    path = root / "a" / "p1.nii.gz"
    data = path.read_bytes()
    comment = bytes([*data[:3], 16, *data[4:10]]) + b"x" * 600 + b"\0"  # RFC 1952, FCOMMENT
    path.write_bytes(comment + data[10:])
    source = NiftiSource(str(root))
    loaded = [source.load(item).pixels for item in slices_of(source, "a/p1.nii.gz")]
    np.testing.assert_array_equal(loaded, volume())


def test_no_more_is_decompressed_than_the_header_asks_for(root):
    data = gzip.decompress((root / "a" / "p1.nii.gz").read_bytes())
    noise = np.random.default_rng(0).bytes(10**6)
    # the end is missing, so that whoever reads on would fail
    (root / "a" / "p1.nii.gz").write_bytes(gzip.compress(data + noise)[: -(10**5)])
    source = NiftiSource(str(root))
    items = slices_of(source, "a/p1.nii.gz")
    np.testing.assert_array_equal(source.load(items[2]).pixels, volume()[2])


def test_a_volume_is_decoded_once_for_its_slices_and_not_pickled(root):
    source = NiftiSource(str(root))
    first, second, _ = slices_of(source, "b/p2.nii")
    small = len(pickle.dumps(source))
    source.load(first)
    assert len(pickle.dumps(source)) == small
    (root / "b" / "p2.nii").unlink()
    np.testing.assert_array_equal(source.load(second).pixels, volume(seed=1)[1])
    copy = pickle.loads(pickle.dumps(source))
    with pytest.raises(InvalidImageError, match=r"p2\.nii"):
        copy.load(second)


def test_a_volume_that_shrank_after_listing_is_a_bad_image(root):
    source = NiftiSource(str(root))
    last = slices_of(source, "b/p2.nii")[-1]
    save(root / "b" / "p2.nii", volume(slices=2))
    with pytest.raises(InvalidImageError, match="only 2 slices"):
        source.load(last)
