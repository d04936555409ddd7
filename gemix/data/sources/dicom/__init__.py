"""Read CT series from DICOM files."""
