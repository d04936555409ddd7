"""Distances, KID, FID and neighbourhoods against closed forms, brute force and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.neighbors import NearestNeighbors

from gemix.evaluation.image_quality import kid as kernel
from gemix.evaluation.image_quality import nearest_neighbors as distances
from gemix.evaluation.image_quality.base import ImageMetricError
from gemix.evaluation.image_quality.fid import Gaussian, frechet_distance
from gemix.evaluation.image_quality.kid import kid, real_kernel_means
from gemix.evaluation.image_quality.nearest_neighbors import nearest, radii
from gemix.evaluation.image_quality.prdc import prdc, real_radii


def normal(rows: int, width: int = 8, *, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator) + shift


@pytest.fixture(params=[4096, 17], ids=["one block", "many blocks"])
def block_rows(request, monkeypatch):
    monkeypatch.setattr(distances, "_ROWS", request.param)
    monkeypatch.setattr(kernel, "_ROWS", request.param)


def test_nearest_rows_are_those_of_scikit_learn(block_rows):
    a, b = normal(50, seed=1), normal(70, seed=2)
    expected, rows = NearestNeighbors(n_neighbors=4).fit(b.numpy()).kneighbors(a.numpy())
    found, found_rows = nearest(a, b, 4)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    assert (found_rows.numpy() == rows).all()


def test_fewer_rows_than_neighbors_give_fewer_columns():
    assert nearest(normal(3), normal(2), 5)[0].shape == (3, 2)


def test_a_copy_is_at_distance_nil_even_far_from_the_origin(block_rows):
    b = normal(60, 64, shift=1000.0)
    found, rows = nearest(b[[5, 40]], b, 1)
    assert found.max() == 0 < radii(b, 1).min()
    assert rows[:, 0].tolist() == [5, 40]


def test_radii_leave_the_row_itself_out(block_rows):
    x = torch.tensor([[0.0], [1.0], [3.0], [3.0]])
    assert radii(x, 2).tolist() == [[1, 3], [1, 2], [0, 2], [0, 2]]


def test_fid_of_gaussians_has_its_closed_form():
    scales = torch.tensor([1.0, 2.0, 0.5])
    a = Gaussian(mean=torch.zeros(3).double(), factor=torch.eye(3).double())
    b = Gaussian(mean=torch.tensor([1.0, 0, 2]).double(), factor=torch.diag(scales).double())
    assert frechet_distance(a, b) == pytest.approx(5 + ((1 - scales) ** 2).sum().item())


@pytest.mark.parametrize("rows", [400, 6], ids=["full rank", "fewer rows than dimensions"])
def test_fid_is_that_of_the_matrix_root(rows):
    a, b = normal(rows, seed=1), normal(rows, seed=2, shift=0.3) * torch.linspace(0.5, 2, 8)
    covariances = [np.cov(x.double().numpy(), rowvar=False) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1] + 1e-12 * np.eye(8)).real
    means = (a.double().mean(0) - b.double().mean(0)).square().sum().item()
    expected = means + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(Gaussian.of(a), Gaussian.of(b)) == pytest.approx(expected, rel=1e-4)


def test_fid_of_a_set_and_itself_is_nil_whatever_its_rank():
    for rows in (5, 8, 9, 300):
        x = Gaussian.of(normal(rows) * 100)
        assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8 * 100**2)


def test_chunks_of_a_covariance_add_up(monkeypatch):
    x = normal(100, seed=3, shift=5)
    whole = Gaussian.of(x)
    monkeypatch.setattr("gemix.evaluation.image_quality.fid._ROWS", 7)
    parts = Gaussian.of(x)
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.factor @ parts.factor.T, whole.factor @ whole.factor.T)
    expected = torch.from_numpy(np.cov(x.double().numpy(), rowvar=False))
    torch.testing.assert_close(parts.factor @ parts.factor.T, expected)


def test_kid_is_the_unbiased_estimate_over_all_pairs(block_rows):
    x, y = normal(40, seed=1).double(), normal(50, seed=2, shift=0.5).double()
    cubic = lambda a, b: (a @ b.T / 8 + 1) ** 3  # noqa: E731
    xx, yy = cubic(x, x), cubic(y, y)
    expected = (
        (xx.sum() - xx.trace()) / (40 * 39) + (yy.sum() - yy.trace()) / (50 * 49)
    ) - 2 * cubic(x, y).mean()
    assert kid(x, y).value == pytest.approx(expected.item(), rel=1e-9)


def test_kid_is_unbiased_and_its_error_covers_it():
    found = [kid(normal(200, seed=s), normal(150, seed=100 + s)) for s in range(40)]
    values = np.array([kid.value for kid in found])
    scatter = values.std(ddof=1)
    assert abs(values.mean()) < 3 * scatter / len(values) ** 0.5
    errors = np.array([kid.error for kid in found])
    # alike sets: never too small; parts scatter more than the whole
    assert scatter < errors.mean() < 6 * scatter


def test_the_error_of_a_kid_between_different_sets_is_its_scatter():
    found = [kid(normal(300, seed=s), normal(300, seed=900 + s, shift=1.0)) for s in range(40)]
    scatter = np.std([kid.value for kid in found], ddof=1)
    assert np.mean([kid.error for kid in found]) == pytest.approx(scatter, rel=0.5)


def test_precision_recall_density_coverage_by_brute_force(block_rows):
    real, fake = normal(60, 3, seed=1), normal(45, 3, seed=2, shift=0.7) * 0.6
    pairs = torch.cdist(real.double(), fake.double())
    within = lambda x, k: torch.cdist(x.double(), x.double()).sort(1).values[:, k]  # noqa: E731
    found = prdc(real, fake, real_radii(real))
    inside = pairs < within(real, 5)[:, None]
    assert found.precision == pytest.approx(
        (pairs < within(real, 3)[:, None]).any(0).double().mean().item()
    )
    assert found.recall == pytest.approx((pairs < within(fake, 3)).any(1).double().mean().item())
    assert found.density == pytest.approx(inside.sum().item() / (5 * 45))
    assert found.coverage == pytest.approx(inside.any(1).double().mean().item())
    assert 0.1 < found.recall < found.precision < 1  # a small set inside the large one


@pytest.mark.parametrize("other", [50, 130])
def test_the_error_of_kid_is_finite_for_every_number_of_images(other):
    for count in range(50, 131):
        one, two = normal(count, seed=count), normal(other, seed=1, shift=0.2)
        for found in (kid(one, two), kid(two, one)):
            assert np.isfinite(found.value) and np.isfinite(found.error) and found.error > 0, count


def test_the_blocks_of_kid_differ_by_one_row_at_most():
    """Its error is that of ten estimates from 55 = 5 x 6 + 5 x 5 rows."""
    x, y = normal(55, seed=1), normal(64, seed=2, shift=0.5)
    bounds_x = np.cumsum([0, *[6] * 5, *[5] * 5])
    bounds_y = np.cumsum([0, *[7] * 4, *[6] * 6])
    parts = [
        squared_mmd(x[bounds_x[i] : bounds_x[i + 1]], y[bounds_y[i] : bounds_y[i + 1]])
        for i in range(10)
    ]
    assert kid(x, y).error == pytest.approx(np.std(parts, ddof=1) / 10**0.5)
    assert kid(x, y).value == pytest.approx(squared_mmd(x, y))


def squared_mmd(x: torch.Tensor, y: torch.Tensor) -> float:
    """The unbiased estimate with the cubic kernel, from whole matrices."""
    xx, yy, xy = (
        ((a.double() @ b.double().T) / a.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))
    )
    own = ((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (xx, yy))
    return (sum(own) - 2 * xy.mean()).item()


def test_what_depends_on_the_real_images_alone_may_be_kept():
    real, fake = normal(55, seed=1), normal(64, seed=2, shift=0.5)
    assert kid(real, fake, real_kernel_means(real)) == kid(real, fake)


def test_too_few_images_for_kid_are_told():
    with pytest.raises(ImageMetricError, match=r"needs 20 or more.*metrics\.images"):
        kid(normal(60), normal(19))


@pytest.mark.parametrize("width", [2, 8, 512])
@pytest.mark.parametrize("shift", [0.0, 0.37, 1000.0])
def test_ties_of_exact_copies_count_as_inside(width, shift, block_rows):
    real = normal(60, width, shift=shift)
    found = prdc(real, real.clone().flip(0), real_radii(real))
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    # a copy of each of the five nearest, and of the image itself
    assert found.density == pytest.approx(6 / 5, abs=1e-12)


def test_density_counts_ties_as_fractions_say():
    """Integers: distances and ties are exact in any arithmetic."""
    rng = np.random.default_rng(0)
    real = torch.from_numpy(rng.integers(0, 3, (80, 3))).float()
    fake = torch.from_numpy(rng.integers(0, 4, (70, 3))).float()
    pairs = (real[:, None] - fake).square().sum(-1)
    within = lambda x, k: (x[:, None] - x).square().sum(-1).sort(1).values[:, k]  # noqa: E731
    inside = pairs <= within(real, 5)[:, None]
    for shift in (0.0, 1000.0):
        found = prdc(real + shift, fake + shift, real_radii(real + shift))
        assert found.density == inside.sum().item() / (5 * 70)
        assert found.coverage == inside.any(1).double().mean().item()
        precise = (pairs <= within(real, 3)[:, None]).any(0)
        assert found.precision == precise.double().mean().item()
        assert found.recall == (pairs <= within(fake, 3)).any(1).double().mean().item()


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e4])
def test_constant_images_are_inside_each_other_and_nothing_else_is(value):
    real = torch.full((60, 512), value)
    same = prdc(real, real.clone()[:50], real_radii(real))
    assert (same.precision, same.recall, same.coverage, same.density) == (1, 1, 1, 60 / 5)
    other = prdc(real, real[:50] + 1, real_radii(real))
    assert (other.precision, other.recall, other.coverage, other.density) == (0, 0, 0, 0)
