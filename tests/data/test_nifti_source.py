from __future__ import annotations

import gzip
import pickle

import boto3
import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from gemix.data.config import DataConfig
from gemix.data.phantom import render_slice
from gemix.data.prepare import prepare_here
from gemix.data.scan import BadImage
from gemix.data.sources.nifti import NiftiSource
from gemix.errors import DataError
from gemix.storage import Store

ALL_AXES = ["LPS", "RAS", "LAS", "RPI", "SAL", "PIR", "ASR"]


def volume(slices=3, height=24, width=32, seed=0):
    """Values [slices, height, width] that all differ, as whole HU: up is anterior."""
    values = np.arange(slices * height * width, dtype=np.int16) + seed - 1000
    return values.reshape(slices, height, width)


def save(path, slices, axes="LPS", dtype=np.int16, affine=None, kind=nib.Nifti1Image):
    """Stores [slices, H, W] (inferior first, anterior up, right on the left) along `axes`."""
    lps = np.ascontiguousarray(slices.transpose(2, 1, 0)).astype(dtype)
    turn = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(axes))
    stored = nib.orientations.apply_orientation(lps, turn)
    placed = np.diag([-1.0, -1, 1, 1]) @ inv_ornt_aff(turn, lps.shape)
    image = kind(stored, placed if affine is None else affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = image.to_bytes()
    path.write_bytes(gzip.compress(data) if path.suffix.lower() == ".gz" else data)


def patch(path, kind=nib.Nifti1Image, **fields):
    """Changes header fields of a file as it lies there, unchecked."""
    data, size = path.read_bytes(), kind.header_class.sizeof_hdr
    header = kind.header_class(data[:size], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + data[size:])


@pytest.fixture
def root(tmp_path):
    """Two classes, one volume of three slices in one, two in the other."""
    save(tmp_path / "scans" / "a" / "p1.nii.gz", volume())
    save(tmp_path / "scans" / "b" / "p2.nii", volume(seed=1))
    save(tmp_path / "scans" / "b" / "deep" / "p10.NII.GZ", volume(seed=2))
    return tmp_path / "scans"


def slices_of(source, name):
    return [i for i in source.list().items if i.key.startswith(f"{name}#")]


def test_slices_are_items_and_volumes_are_patients(root):
    (root / "notes.txt").write_text("x")
    listing = NiftiSource(str(root)).list()
    assert listing.classes == ("a", "b")
    assert [item.key for item in listing.items[:3]] == [
        f"a/p1.nii.gz#slice-000{i}" for i in range(3)
    ]
    assert [item.class_index for item in listing.items] == [0] * 3 + [1] * 6
    groups = {item.key.partition("#")[0]: item.group for item in listing.items}
    assert groups == {
        "a/p1.nii.gz": "a/p1",
        "b/p2.nii": "b/p2",
        "b/deep/p10.NII.GZ": "b/deep/p10",
    }
    assert any("9 slices of 3 volumes" in note for note in listing.notes)
    assert any("left out 1 files" in note for note in listing.notes)


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


def test_a_volume_without_orientation_is_noted(root):
    patch(root / "b" / "p2.nii", qform_code=0, sform_code=0)
    notes = NiftiSource(str(root)).list().notes
    assert any("1 volumes do not say how the patient lay" in note for note in notes)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_slice_that_is_not_finite_is_bad_and_its_neighbours_are_not(root, bad):
    values = volume().astype(np.float32)
    values[1, 3, 4] = bad
    save(root / "b" / "p2.nii", values, dtype=np.float32)
    source = NiftiSource(str(root))
    first, second, third = slices_of(source, "b/p2.nii")
    with pytest.raises(BadImage, match="1 of 768 pixels are NaN or infinite"):
        source.load(second)
    np.testing.assert_array_equal(source.load(first).pixels, volume()[0])
    np.testing.assert_array_equal(source.load(third).pixels, volume()[2])


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
    with pytest.raises(BadImage, match=reason):
        source.load(item)
    assert len(listing.items) == 7


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no NIfTI header"),
        (b"x" * 600, "no NIfTI header"),
        (gzip.compress(b"y" * 600)[:15], "no NIfTI header"),
    ],
)
def test_no_volume_at_all_is_a_bad_image(root, data, reason):
    for name in ("b/junk.nii", "b/junk2.nii.gz"):
        (root / name).write_bytes(data)
    source = NiftiSource(str(root))
    items = {item.key: item for item in source.list().items}
    for name in ("b/junk.nii", "b/junk2.nii.gz"):
        with pytest.raises(BadImage):
            source.load(items[name])
    with pytest.raises(BadImage, match=reason):
        source.load(items["b/junk.nii"])


@pytest.mark.parametrize("name", ["a/p1.nii.gz", "b/p2.nii"])
def test_a_truncated_volume_is_bad_slice_by_slice(root, name):
    data = (root / name).read_bytes()
    (root / name).write_bytes(data[: len(data) * 3 // 4])
    source = NiftiSource(str(root))
    items = slices_of(source, name)
    assert len(items) == 3
    for item in items:
        with pytest.raises(BadImage, match="copy it again"):
            source.load(item)


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
    with pytest.raises(BadImage, match=r"p2\.nii"):
        copy.load(second)


def test_a_volume_that_shrank_after_listing_is_a_bad_image(root):
    source = NiftiSource(str(root))
    last = slices_of(source, "b/p2.nii")[-1]
    save(root / "b" / "p2.nii", volume(slices=2))
    with pytest.raises(BadImage, match="only 2 slices"):
        source.load(last)


def test_what_holds_for_every_source(root):
    source = NiftiSource(str(root))
    listing = source.list()
    assert len({item.key for item in listing.items}) == len(listing.items) == listing.listed
    assert pickle.loads(pickle.dumps(source)).list() == listing


def test_a_class_without_a_usable_volume_is_named(root):
    (root / "a" / "p1.nii.gz").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"a: none of its 1 volumes can be used \(a/p1\.nii\.gz: "):
        NiftiSource(str(root)).list()


def test_folders_that_are_no_classes_are_named(root, tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*no such folder"):
        NiftiSource(str(tmp_path / "nowhere")).list()
    with pytest.raises(DataError, match=r"no class folders.*1 files lie loose: \.gz \(1\)"):
        NiftiSource(str(root / "a")).list()
    (root / "hollow").mkdir()
    with pytest.raises(DataError, match=r"hollow: no volume.*it is empty"):
        NiftiSource(str(root)).list()
    (root / "hollow" / "x.dcm").write_bytes(b"x")
    with pytest.raises(DataError, match=r"hollow: no volume.*only \.dcm \(1\)"):
        NiftiSource(str(root)).list()
    one = tmp_path / "one"
    save(one / "a" / "p.nii", volume())
    with pytest.raises(DataError, match="only one class, 'a'"):
        NiftiSource(str(one)).list()


def test_realistic_volumes_become_shards(tmp_path):
    config = DataConfig(source="nifti", path="unused", resolution=32, max_bad_fraction=0.1)
    phantom = config.phantom
    for number, name in enumerate(["normal"] * 4 + ["cancer"] * 4):
        stack = [render_slice(phantom, name, number, place, 64) for place in range(3)]
        save(tmp_path / "raw" / name / f"p{number}.nii.gz", np.stack(stack), "RAS")
    (tmp_path / "raw" / "normal" / "broken.nii").write_bytes(b"junk")
    source = NiftiSource(str(tmp_path / "raw"))
    scan = source.load(source.list().items[0])
    assert scan.pixels.min() < -900
    manifest = prepare_here(source, config, Store(str(tmp_path / "out")))
    assert manifest.images() == 24
    assert manifest.origin["reasons"][0]["source"] == "normal/broken.nii"


@pytest.mark.slow
def test_a_bucket_is_the_same_as_a_disk(root, bucket):
    (root / "b" / "junk.nii").write_bytes(b"junk")
    client = boto3.client("s3")
    for path in root.rglob("*.*"):
        name = f"in/{path.relative_to(root).as_posix()}"
        client.upload_file(str(path), bucket.removeprefix("s3://"), name)
    local, remote = NiftiSource(str(root)), NiftiSource(f"{bucket}/in")
    listing = local.list()
    assert remote.list() == listing
    for item in listing.items:
        if "#" in item.key:
            np.testing.assert_array_equal(remote.load(item).pixels, local.load(item).pixels)
