"""A problem type of another package: classes in an order, learned by the squared earth mover's distance."""

import dataclasses

import torch

from hf_mtl.modeling.label_checks import IGNORED_LABEL, class_labels
from hf_mtl.modeling.problem_heads import SingleLabelHead, register_problem_type
from hf_mtl.modeling.problem_types import PROBLEM_TYPES


class OrdinalHead(SingleLabelHead):
    """sum_k (F_k - G_k)^2 of the distribution functions of what is predicted and true (Hou et al. 2016, equation 3);
    the answer is the median.
    """

    problem_type = "ordinal_classification"

    def loss_sums(self, logits, entries):
        labels = class_labels(entries, self.tasks, self._sizes(entries["tasks"]), logits.shape)
        predicted = logits.softmax(dim=-1).cumsum(dim=-1)
        true = (torch.arange(logits.shape[1], device=logits.device) >= labels.unsqueeze(1)).to(logits.dtype)
        return (predicted - true).square().sum(dim=1).masked_fill(labels == IGNORED_LABEL, 0.0)

    @staticmethod
    def decode(task, logits, row, features):
        scores = torch.from_numpy(logits[0][: task.num_outputs]).softmax(dim=0)
        median = int((scores.cumsum(dim=0) < 0.5).sum())
        return {
            "label": task.label_names[median],
            "score": float(scores[median]),
            "scores": dict(zip(task.label_names, scores.tolist())),
        }

    @staticmethod
    def summary(answer):
        return f"about {answer['label']}"


register_problem_type(
    dataclasses.replace(PROBLEM_TYPES["single_label_classification"], name="ordinal_classification"), OrdinalHead
)
