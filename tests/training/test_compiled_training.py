"""A compiled model is compiled once or twice for a run, and a run is the same with it."""

import random

import pytest
import torch
from datasets import Dataset

from hf_mtl import MultiTaskCollator, MultiTaskTrainer, MultiTaskTrainingArguments
from tests.conftest import TASKS, build_model

WORDS = ["a", "good", "bad", "day", "film", "meal", "in", "rome", "with", "anna", "and", "some", "more", "words"]
NAMES = ["intent", "mood", "stars", "names", "pick"]


def data() -> dict[str, Dataset]:
    """Rows of very different lengths, and of as many tasks as a batch has rows."""
    draw = random.Random(0)

    def words() -> list[str]:
        return draw.choices(WORDS, k=draw.randint(2, 14))

    return {
        "intent": Dataset.from_list([{"text": " ".join(words()), "label": index % 3} for index in range(40)]),
        "mood": Dataset.from_list([{"text": " ".join(words()), "label": index % 2} for index in range(24)]),
        "stars": Dataset.from_list([{"text": " ".join(words()), "label": draw.random() * 5} for _ in range(16)]),
        "names": Dataset.from_list(
            [
                {"tokens": tokens, "tags": [index % 3 for index, _ in enumerate(tokens)]}
                for tokens in (words() for _ in range(12))
            ]
        ),
        "pick": Dataset.from_list(
            [
                {"text": " ".join(words()), "choices": [" ".join(words()) for _ in range(2)], "label": index % 2}
                for index in range(12)
            ]
        ),
    }


def build(tmp_path, tokenizer, **arguments) -> MultiTaskTrainer:
    tasks = [task for task in TASKS if task["name"] in NAMES]
    specs = [{**task, **({"columns": {"label": "tags"}} if task["name"] == "names" else {})} for task in tasks]
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        num_train_epochs=1,
        logging_steps=1,
        **arguments,
    )
    model = build_model(tasks, vocab_size=tokenizer.vocab_size)
    held = {"mood": data()["mood"]}
    return MultiTaskTrainer(
        model, args, train_dataset=data(), eval_dataset=held, tasks=specs, processing_class=tokenizer
    )


def test_what_makes_up_the_numbers_changes_no_loss_and_no_gradient(tmp_path, tokenizer):
    trainer = build(tmp_path, tokenizer)
    rows = [trainer.train_dataset[place] for place in (0, 45, 70, 82, 95, 96)]
    sizes, results = [], []
    for fill in (False, True):
        batch = MultiTaskCollator(trainer.processor, fill=fill)(rows)
        sizes.append({name: len(entries["tasks"]) for name, entries in batch["routing"].items()})
        trainer.model.zero_grad()
        output = trainer.model.eval()(**batch)
        output.loss.backward()
        gradients = {name: tensor.grad for name, tensor in trainer.model.named_parameters() if tensor.grad is not None}
        results.append((output.loss, output.task_label_counts, gradients))
    assert set(sizes[1].values()) == {len(rows)} and set(sizes[0].values()) != {len(rows)}
    torch.testing.assert_close(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    for name, gradient in results[1][2].items():
        expected = results[0][2].get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_lengths_and_mixtures_of_a_run_recompile_a_model_twice_at_most(tmp_path, tokenizer):
    losses = []
    for compiled in (False, True):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        options = {"torch_compile": True, "torch_compile_backend": "eager"} if compiled else {}
        trainer = build(tmp_path, tokenizer, **options)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 1 <= graphs <= 3
    assert not torch._dynamo.utils.counters["graph_break"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(losses[0]) >= 12
    assert trainer.evaluate()["eval_mood_loss"] > 0
