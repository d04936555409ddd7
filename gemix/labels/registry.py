"""The label samplers by name, as ``synthesis.methods`` lists them: one line each."""

from __future__ import annotations

from gemix.labels.base import LabelSampler
from gemix.labels.dirichlet import dirichlet_labels
from gemix.labels.dirichlet_pair import dirichlet_pair_labels
from gemix.labels.onehot import onehot_labels
from gemix.labels.pair_path import pair_path_labels
from gemix.labels.softmax import softmax_labels

SAMPLERS: dict[str, LabelSampler] = {
    "softmax": softmax_labels,
    "dirichlet": dirichlet_labels,
    "dirichlet_pair": dirichlet_pair_labels,
    "pair_path": pair_path_labels,
    "onehot": onehot_labels,
}
