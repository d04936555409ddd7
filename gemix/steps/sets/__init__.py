"""Steps that describe finished synthetic sets, and what a generator can make."""
