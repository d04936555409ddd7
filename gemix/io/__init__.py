"""Files: one view of local disks and S3, the layout of a work directory, typed results."""
