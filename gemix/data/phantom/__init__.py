"""A seeded digital chest phantom: axial CT slices in Hounsfield units, without patient data."""

from gemix.data.phantom.lesions import CLASSES
from gemix.data.phantom.render import render_slice

__all__ = ["CLASSES", "render_slice"]
