"""From a classifier's outputs to a class: temperature scaling, and a rule of decision."""
