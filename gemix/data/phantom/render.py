"""Rendering of one axial slice of the phantom, from the outside in."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage

from gemix.core.rng import Stream, sample_rng
from gemix.data.config import PhantomConfig
from gemix.data.phantom.canvas import Canvas, ellipse, smooth_max, smooth_noise
from gemix.data.phantom.lesions import CLASSES, draw_confounders, draw_disease, paint_lesions
from gemix.data.phantom.patient import LUNG_HEIGHT, Patient
from gemix.data.phantom.vessels import draw_tree, paint_tree
from gemix.data.scan import HIGHEST_HU, LOWEST_HU

_SHAPE = 2.3  # exponent of the superellipses of body and rib cage
_PATIENT, _VESSELS, _CONFOUNDERS, _DISEASE, _FIRST_SLICE = range(5)  # steps of a patient's stream


def render_slice(
    config: PhantomConfig, class_name: str, patient: int, index: int, size: int
) -> np.ndarray:
    """Render one slice of one patient.

    The anatomy is a function of (seed, patient) alone: with a conspicuity of 0 a patient looks the
    same in every class.

    Args:
        class_name: one of `CLASSES`.
        patient: number of the patient, 0 or more, counted through all classes.
        index: number of the slice, 0 to slices_per_patient - 1, from the head down.
        size: side in pixels.

    Returns:
        float32 [size, size], Hounsfield units, -1024 to 3071, as a scanner stores them.
    """
    if class_name not in CLASSES:
        raise ValueError(f"class {class_name!r}: one of {CLASSES} is wanted")
    rng = [sample_rng(config.seed, Stream.PHANTOM, patient, step) for step in range(_FIRST_SLICE)]
    person = Patient.draw(rng[_PATIENT]).scanned(
        noise=config.noise,
        field_of_view=config.field_of_view,
        contrast_agent=config.contrast_agent,
    )
    tree = draw_tree(rng[_VESSELS], person)
    lesions = draw_confounders(rng[_CONFOUNDERS], person)
    lesions += draw_disease(rng[_DISEASE], person, class_name, config.conspicuity)
    noise = sample_rng(config.seed, Stream.PHANTOM, patient, _FIRST_SLICE + index)
    offset = (index + noise.uniform(0.1, 0.9)) / config.slices_per_patient - 0.5
    z = person.focus + 0.17 * offset

    canvas = Canvas(size, person.fov, person.rotation, person.shift)
    _paint_table(canvas, person)
    _paint_wall(canvas, person, z)
    lungs = _paint_lungs(canvas, person, z)
    paint_tree(canvas, tree, person, z, lungs)
    paint_lesions(canvas, lesions, person, z, lungs)
    _paint_mediastinum(canvas, person, z, lungs)
    _paint_bones(canvas, person, z)
    return _scan(canvas, person, noise)


def _paint_table(canvas: Canvas, patient: Patient) -> None:
    """Paint a curved board under the patient, which does not turn with the body."""
    axis = (np.arange(canvas.size, dtype=np.float32) + 0.5) * canvas.pixel - canvas.fov / 2
    top = patient.body[1] + patient.shift[1] + patient.table
    for drop, curve, thickness, value in ((0, 1 / 1500, 2.2, -250), (22, 1 / 4000, 2.8, -420)):
        curved = axis[:, None] - (top + drop - axis[None, :] ** 2 * curve)
        edge = np.abs(axis[None, :]) - 0.46 * canvas.fov
        canvas.blend(canvas.cover(np.maximum(np.abs(curved) - thickness / 2, edge)), value)


def _paint_wall(canvas: Canvas, patient: Patient, z: float) -> None:
    """Paint skin, fat and the muscles of the chest wall."""
    x, y, (width, depth) = canvas.x, canvas.y, patient.body
    body = ellipse(x, y, 0, 0, width, depth, power=_SHAPE)
    for side in (-1, 1) if patient.breasts > 0.15 and 0.4 < z < 0.8 else ():
        bulge = 0.54 * depth + 26 * patient.breasts
        breast = ellipse(x, y, side * 0.44 * width, -0.5 * depth, 0.42 * width, bulge)
        body = -smooth_max(-body, -breast, 10)
    canvas.blend(canvas.cover(body), 20)
    canvas.blend(canvas.cover(body + 2.0), -100 + 8 * smooth_noise(patient.pattern(1, z), len(x)))
    inner = (width - 1.1 * patient.fat, depth - 0.85 * patient.fat)
    muscle = ellipse(x, y, 0, 0, *inner, power=_SHAPE)
    streaks = smooth_noise(np.tile(patient.pattern(0, z), (2, 2)), len(x))
    canvas.blend(canvas.cover(muscle), patient.muscle + 6 * streaks)
    # the fat plane between the muscle layers outside the ribs
    rib_cage = ellipse(x, y, 0, 0, *patient.cavity_at(z), power=_SHAPE)
    plane = canvas.cover(np.abs(rib_cage - 12 - 1.5 * streaks) - 0.9)
    canvas.blend(plane * np.clip(0.45 + 0.35 * streaks, 0, 0.8) * canvas.cover(muscle + 3), -70)


def _paint_lungs(canvas: Canvas, patient: Patient, z: float) -> np.ndarray:
    """Paint both lungs, without vessels, and return their coverage [size, size]."""
    x, y, (width, depth) = canvas.x, canvas.y, patient.cavity_at(z)
    rib_cage = ellipse(x, y, 0, 0, width, depth, power=_SHAPE)
    canvas.blend(canvas.cover(rib_cage - 1), patient.mediastinal_fat)
    neighbour = -_middle(canvas, patient, z)
    if z > 0.76:  # the dome of the liver below the right lung
        grown = (z - 0.76) * LUNG_HEIGHT
        dome = ellipse(x, y, -0.5 * width, -0.1 * depth, 12 + 2.0 * grown, 8 + 1.8 * grown)
        neighbour = np.maximum(neighbour, -dome)
        canvas.blend(canvas.cover(dome) * canvas.cover(rib_cage - 1), 60)
    lungs = canvas.cover(smooth_max(rib_cage + 2.5, neighbour, 7))
    depth_share = y / depth
    texture = smooth_noise(patient.pattern(0, z), len(x))
    fine = smooth_noise(np.tile(patient.pattern(1, z), (4, 4)), len(x))
    dependent = 26 * depth_share + 90 * np.clip((rib_cage + 11) / 11, 0, 1) * (y > 0.3 * depth)
    air = patient.lung + dependent + patient.lung_texture * (texture + 0.6 * fine)
    canvas.blend(lungs, air)
    return lungs


def _middle(canvas: Canvas, patient: Patient, z: float) -> np.ndarray:
    """Return the signed distance to septum, vessels' root, hila and spine between the lungs."""
    x, y, depth = canvas.x, canvas.y, patient.cavity_at(z)[1]
    hx, hy, rx, ry, angle = patient.heart_at(z)
    lean = 3.0 * float(patient.patterns[0, 0, 0, 0])
    distance = np.abs(x - lean) - 4 - 14 * np.clip(y / depth + 0.35, 0, 0.7)
    for part in (
        (lean, -1.02 * depth, 15, 0.2 * depth),
        (-8, -0.28 * depth, 26, 0.3 * depth),
        (0, 0.12 * depth, 23, 0.24 * depth),
        (22, 0.42 * depth, patient.aorta + 1, patient.aorta + 1),
        (0, 0.74 * depth, 27, 0.36 * depth),
        (hx, hy, rx + 2, ry + 3, angle),
    ):
        distance = -smooth_max(-distance, -ellipse(x, y, *part), 8)
    return distance


def _paint_mediastinum(canvas: Canvas, patient: Patient, z: float, lungs: np.ndarray) -> None:
    """Paint heart, great vessels, oesophagus and airways."""
    hx, hy, rx, ry, angle = patient.heart_at(z)
    blood, depth, aorta = patient.blood, patient.cavity_at(z)[1], patient.aorta
    if z > 0.40:
        canvas.ellipse(hx, hy, rx + 4, ry + 4, patient.mediastinal_fat, angle, 2)
        canvas.ellipse(hx, hy, rx, ry, 48, angle, 2)
    if z > 0.56 and blood > 80:  # contrast in the chambers
        canvas.ellipse(hx + 0.36 * rx, hy + 0.25 * ry, 0.42 * rx, 0.45 * ry, blood, angle, 6)
        canvas.ellipse(hx - 0.42 * rx, hy - 0.25 * ry, 0.38 * rx, 0.5 * ry, blood, angle, 6)
    if z < 0.62:  # ascending aorta, superior vena cava, trunk of the pulmonary artery
        canvas.ellipse(-7, -0.33 * depth, 1.25 * aorta, 1.2 * aorta, blood, softness=2)
        canvas.ellipse(-27, -0.22 * depth, 8, 10, blood, softness=2)
    if 0.40 < z < 0.56:
        canvas.ellipse(17, -0.36 * depth, 13, 15, blood, 0.5, 2)
        canvas.capsule((16, -0.25 * depth), (-34, 0.02 * depth), 8, blood)
        canvas.capsule((18, -0.3 * depth), (40, 0.02 * depth), 8, blood)
    if z < 0.37:  # the arch, from ascending to descending
        canvas.capsule((-6, -0.3 * depth), (20, 0.3 * depth), 1.1 * aorta, blood)
    canvas.ellipse(22, 0.42 * depth, 0.95 * aorta, 0.95 * aorta, blood, softness=2)
    canvas.ellipse(3, 0.27 * depth, 7, 5, 35, softness=2)
    if z < 0.42:
        canvas.ellipse(-3, 0.06 * depth, 10.5, 10.5, 40, softness=2)
        canvas.ellipse(-3, 0.06 * depth, 8, 8.5, -985)
    elif z < 0.58:
        apart = 13 + (z - 0.42) * 150
        for side in (-1, 1):
            canvas.ellipse(side * apart - 2, 0.1 * depth, 7.5, 6.5, 30, side * 0.5)
            canvas.ellipse(side * apart - 2, 0.1 * depth, 6, 5, -985, side * 0.5)
    for spot in 22 * patient.patterns[1, 0, :5, :2]:  # bronchi of the lobes, cut across
        bx, by = 56 * np.sign(spot[0]) + 0.5 * spot[0], 0.15 * depth + spot[1] + 60 * (z - 0.5)
        canvas.ellipse(bx, by, 3.0, 2.7, -350, clip=lungs)
        canvas.ellipse(bx, by, 1.9, 1.7, -960, clip=lungs)


def _paint_bones(canvas: Canvas, patient: Patient, z: float) -> None:
    """Paint spine, ribs, breastbone and shoulder blades: a dense shell about the marrow."""
    (width, depth), bone = patient.cavity_at(z), patient.bone
    cortex, marrow = 560 * bone, 190 * bone
    back = 0.6 * depth
    level = np.cos(2 * np.pi * z * LUNG_HEIGHT / 24)  # vertebra or disc
    canvas.ellipse(0, back, 18, 14.5, cortex if level > -0.6 else 120)
    canvas.ellipse(0, back, 16, 12.5, marrow if level > -0.6 else 95)
    for side in (-1, 1):
        canvas.capsule((side * 13, back + 13), (side * 14, back + 26), 3.5, 0.8 * cortex)
        canvas.capsule((side * 14, back + 24), (side * 33, back + 31), 4.2, 0.8 * cortex)
        canvas.capsule((side * 15, back + 24), (side * 31, back + 30), 2.2, marrow)
        canvas.capsule((side * 13, back + 27), (0, back + 36), 3, 0.8 * cortex)
    canvas.capsule((0, back + 34), (0, back + 48), 3, 0.8 * cortex)
    canvas.ellipse(0, back + 21.5, 9.5, 8.5, 30)
    canvas.ellipse(0, -depth - 4, 20, 6.5, 0.8 * cortex)
    canvas.ellipse(0, -depth - 4, 17, 4.2, marrow)
    if z < 0.5:
        for side in (-1, 1):
            start, end = (side * (width + 15), 0.32 * depth), (side * 0.7 * width, 0.92 * depth)
            canvas.capsule(start, end, 3.2, 0.8 * cortex)
            canvas.capsule(start, end, 1.4, marrow)
    phase = (patient.rib_phase + z * LUNG_HEIGHT / 26) % 1
    for side in (-1, 1):
        for rib in range(6):
            # from the spine (about 70 degrees) forward to the breastbone
            angle = np.radians(74 - 29 * (rib + phase))
            half = np.radians(5.5 + 2.5 * np.cos(angle))
            arc = np.linspace(angle - half, angle + half, 4)
            around = np.sign([np.cos(arc), np.sin(arc)])
            around *= np.abs([np.cos(arc), np.sin(arc)]) ** (2 / _SHAPE)
            points = [(side * (width + 4) * u, (depth + 4) * v) for u, v in around.T]
            shell, core = (cortex, marrow) if angle > np.radians(-62) else (130, 110)
            for radius, value in ((4.1, shell), (2.2, core)):
                for start, end in itertools.pairwise(points):
                    canvas.capsule(start, end, radius, value)


def _scan(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Add the scanner's blur and noise, which is correlated and stronger inside the body."""
    blurred = ndimage.gaussian_filter(canvas.hu, 0.45)
    grain = ndimage.gaussian_filter(rng.standard_normal(canvas.hu.shape, dtype=np.float32), 0.55)
    inside = 0.45 + 0.55 * np.exp(
        -((canvas.x / patient.body[0]) ** 2) - (canvas.y / patient.body[1]) ** 2
    )
    noisy = blurred + (2.0 * patient.noise) * grain * inside
    return np.clip(noisy, LOWEST_HU, HIGHEST_HU).astype(np.float32)
