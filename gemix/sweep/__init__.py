"""The search for T, b and N: the space, the objective and a durable study, without Ray."""
