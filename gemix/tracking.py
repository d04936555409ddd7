"""MLflow: one run a job, written through a client that any process can hold."""
