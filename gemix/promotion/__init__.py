"""Promotion of a registered classifier to champion: the gate, the ledger, the model card."""
