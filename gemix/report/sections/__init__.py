"""One section of the page a file: what it reads and draws, beside its template."""
