"""The digital phantom as a source: no files, no patient data, the same on every machine."""

from __future__ import annotations

from gemix.data.config import PhantomConfig
from gemix.data.map_fn import MapFn, serial_map
from gemix.data.phantom import CLASSES, render_slice
from gemix.data.scan import Scan
from gemix.data.sources.base import Listing
from gemix.data.sources.scan_refs import ScanRef, ScanRefs

_SMALLEST, _LARGEST = 96, 256  # pixels a side of a rendered slice


class PhantomSource:
    """Slices of the digital phantom.

    They are rendered at twice the resolution of the images, up to 256 pixels, since the phantom has
    no finer detail, and then cropped and resized as scans are.

    Args:
        phantom: number of patients and slices, seed.
        resolution: side of the images, in pixels.
    """

    def __init__(self, phantom: PhantomConfig, resolution: int):
        self.config = phantom
        self.size = min(_LARGEST, max(_SMALLEST, 2 * resolution))

    def list(self, map_fn: MapFn = serial_map) -> Listing:
        """See :class:`gemix.data.sources.base.Source`."""
        per_class, slices = self.config.patients_per_class, self.config.slices_per_patient
        items = ScanRefs.of(
            ScanRef(
                key=f"{name}/patient-{patient:05d}/slice-{index:03d}",
                class_index=class_index,
                group=_patient(self.config.seed, patient),
            )
            for class_index, name in enumerate(CLASSES)
            for patient in range(class_index * per_class, (class_index + 1) * per_class)
            for index in range(slices)
        )
        note = f"{len(items)} phantom slices of {per_class * len(CLASSES)} patients"
        return Listing(classes=CLASSES, items=items, listed=len(items), notes=(note,))

    def load(self, item: ScanRef) -> Scan:
        """See :class:`gemix.data.sources.base.Source`."""
        name, patient, index = item.key.split("/")
        number = int(patient.removeprefix("patient-"))
        place = int(index.removeprefix("slice-"))
        pixels = render_slice(self.config, name, number, place, self.size)
        return Scan(pixels=pixels, is_hounsfield=True)


def _patient(seed: int, number: int) -> str:
    """Return the key of a patient, who is another one with each seed.

    Those of seed 0 have had names without it from the start, on which their splits depend.
    """
    name = f"patient-{number:05d}"
    return name if seed == 0 else f"phantom-{seed}-{name}"
