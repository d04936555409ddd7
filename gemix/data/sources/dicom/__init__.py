"""CT series in DICOM files."""
