"""Parts of the step `promote`: the evidence, and the aliases that follow from a decision."""
