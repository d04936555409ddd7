"""One self-contained HTML page that says what ran and whether it helped."""
