"""Checks of the doctor: answers and tags of the rows that the model is not taught, or never gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..data.features import FeatureDataset
from ..tasks import LABEL_FIELD, TaskSpec

if TYPE_CHECKING:
    from ..training.trainer import MultiTaskTrainer


@dataclass(frozen=True)
class Finding:
    """Something that a run should not begin with.

    Args:
        check: The check that found it.
        subject: The task or part that it concerns.
        what: What was found.
        advice: What to do.
    """

    check: str
    subject: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.what}. {self.advice}"


def truncated(trainer: "MultiTaskTrainer") -> list[Finding]:
    """Rows that are cut off at the task's length."""
    findings = []
    for split, spec, data in _tasks(trainer):
        columns = zip(data.features[spec.name]["source"], data.features[spec.name]["truncated"])
        count = len({source for source, is_cut in columns if is_cut})
        if count:
            size, most = len(data.rows[spec.name]), trainer.processor.max_length(spec)
            is_windowed = spec.problem.inputs == "windows"
            name, limit = ("questions", f"half of {most}") if is_windowed else ("rows", f"{most}")
            what = f"{count:,} of {size:,} {split} {name} ({count / size:.1%}) are longer than {limit} word pieces"
            advice = (
                "They are cut: neither the encoder nor its tokenizer reads more. Take one that does."
                if most < spec.setting("max_length")
                else "They are cut; give the task's row a larger max_length if its label stands in what is lost."
            )
            if "audio" in spec.input_fields:
                what = f"{count:,} of {size:,} {split} rows ({count / size:.1%}) are longer than the encoder reads"
                advice = "They are cut; give shorter sounds, or an encoder and a processor that read more."
            findings.append(Finding("truncated", spec.name, what, advice))
    return findings


def answers_in_no_window(trainer: "MultiTaskTrainer") -> list[Finding]:
    """Answers of a context that stand whole in none of its windows, or for which the tokenizer has no word piece."""
    findings = []
    for split, spec, data in _tasks(trainer, "windows"):
        answers = data.rows[spec.name][LABEL_FIELD][:]
        columns = zip(data.features[spec.name]["source"], data.features[spec.name]["labels"])
        labelled = {source for source, label in columns if list(label) != [0, 0]}
        with_answer = [place for place, answer in enumerate(answers) if answer["text"]]
        lost = [place for place in with_answer if place not in labelled]
        if lost:
            most = trainer.processor.max_length(spec)
            what = (
                f"{len(lost):,} of {len(with_answer):,} {split} answers fit in no window of {most} word pieces or "
                f"have no word piece, such as {answers[lost[0]]['text'][0]!r}, and count as no answer"
            )
            advice = "Give the task's row a larger max_length or stride, or leave these rows out."
            findings.append(Finding("answers_in_no_window", spec.name, what, advice))
    return findings


def long_answers(trainer: "MultiTaskTrainer") -> list[Finding]:
    """Answers that are longer than those the task gives."""
    findings = []
    for split, spec, data in _tasks(trainer, "windows"):
        columns = zip(data.features[spec.name]["source"], data.features[spec.name]["labels"])
        lengths = {source: last - first + 1 for source, (first, last) in columns if (first, last) != (0, 0)}
        limit = spec.setting("max_answer_length")
        count = sum(length > limit for length in lengths.values())
        if count:
            what = (
                f"{count:,} of {len(lengths):,} {split} answers are longer than max_answer_length="
                f"{limit} word pieces (the longest has {max(lengths.values()):,}) and are never given"
            )
            advice = f"Give the task's row max_answer_length: {max(lengths.values())}."
            findings.append(Finding("long_answers", spec.name, what, advice))
    return findings


def words_without_pieces(trainer: "MultiTaskTrainer") -> list[Finding]:
    """Words that the tokenizer drops, or joins with the word before, whose tags are not learned."""
    findings = []
    for split, spec, data in _tasks(trainer, "words"):
        features = data.features[spec.name]
        columns = list(zip(features["words_read"], features["positions"]))
        words = sum(words_read for words_read, _ in columns)
        lost = words - sum(len({place for place in positions if place >= 0}) for _, positions in columns)
        if lost:
            what = (
                f"{lost:,} of {words:,} {split} words have no word piece of their own, so their tags are not learned"
            )
            advice = "Clean these words, or take an encoder whose tokenizer reads them."
            findings.append(Finding("words_without_pieces", spec.name, what, advice))
    return findings


def _tasks(trainer: "MultiTaskTrainer", inputs: str | None = None) -> Iterator[tuple[str, TaskSpec, FeatureDataset]]:
    """Each split's tasks (with inputs of one kind) that are tokenised."""
    for split, data in (("training", trainer.train_dataset), ("validation", trainer.eval_dataset)):
        if isinstance(data, FeatureDataset):
            for name in data.features:
                if inputs in (None, trainer.specs[name].problem.inputs):
                    yield split, trainer.specs[name], data
