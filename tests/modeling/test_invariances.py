"""Padding, batch, and task order change no answer; parameters are randomised, so that no path is closed."""

import copy

import torch

from tests.conftest import (
    TASKS,
    assert_answers_close,
    build_model,
    encoder_inputs,
    random_batch,
    randomise,
    with_weights_of,
)

ROWS = [
    "Bob Smith came late",
    {"text": "a longer text about Alice and the weather of last week", "choices": ["one", "two words", "three"]},
    {"question": "who came?", "context": "It rained for days and days and days. In the end Bob came, and he stayed."},
]


def test_padding_changes_nothing():
    model, batch = randomise(build_model()), random_batch()
    ids, mask = batch["input_ids"], batch["attention_mask"]
    ids = ids * mask
    more = {
        "input_ids": torch.nn.functional.pad(ids, (0, 7), value=5),
        "attention_mask": torch.nn.functional.pad(mask, (0, 7)),
    }
    short, long = model(input_ids=ids, attention_mask=mask).logits, model(**more).logits
    for task in TASKS:
        found = long[task["name"]]
        if found.dim() == 3:
            found = found[:, :10] * mask.unsqueeze(-1)
            expected = short[task["name"]] * mask.unsqueeze(-1)
        else:
            expected = short[task["name"]]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_row_is_answered_alike_alone_and_in_a_batch(tokenizer):
    model = randomise(build_model(vocab_size=tokenizer.vocab_size))
    together = model.predict(ROWS, tokenizer=tokenizer)
    backwards = model.predict(ROWS[::-1], tokenizer=tokenizer, batch_size=2)[::-1]
    for row, answer, other in zip(ROWS, together, backwards):
        assert_answers_close(answer, other, 1e-5)
        assert_answers_close(answer, model.predict([row], tokenizer=tokenizer)[0], 1e-5)
    assert together[0].keys() == {"intent", "mood", "flags", "stars", "names"}
    assert together[1].keys() == {"intent", "mood", "flags", "stars", "names", "pick"}
    assert together[2].keys() == {"span"}


def test_all_tasks_of_a_text_share_one_encoder_row(tokenizer):
    model = randomise(build_model(vocab_size=tokenizer.vocab_size))
    seen = []
    model.encoder.register_forward_pre_hook(
        lambda module, given, named: seen.append(named["input_ids"].shape), with_kwargs=True
    )
    model.predict(["Bob came late", "He did not"], tokenizer=tokenizer)
    assert len(seen) == 1
    assert seen[0][0] == 2


def test_task_order_changes_nothing():
    model = randomise(build_model())
    permuted = with_weights_of(build_model(copy.deepcopy(TASKS[::-1])), model)
    expected = model(**encoder_inputs()).logits
    for name, logits in permuted(**encoder_inputs()).logits.items():
        torch.testing.assert_close(logits, expected[name], atol=1e-5, rtol=0)


def test_forward_changes_no_input():
    model, batch = randomise(build_model()), random_batch()
    before = copy.deepcopy(batch)
    model(**batch)
    for name, entries in batch["routing"].items():
        for key, tensor in entries.items():
            assert torch.equal(tensor, before["routing"][name][key])
    assert torch.equal(batch["input_ids"], before["input_ids"])


def test_a_task_reads_only_what_it_may():
    tasks = copy.deepcopy(TASKS)
    tasks[0]["reads"] = []
    tasks[1]["reads"] = ["flags"]
    model, ids = randomise(build_model(tasks)), random_batch()["input_ids"]
    before = model(ids).logits
    with torch.no_grad():
        for tensor in model.task_parameters("stars"):
            tensor.add_(1.0)
    after = model(ids).logits
    assert torch.equal(before["intent"], after["intent"])
    assert torch.equal(before["mood"], after["mood"])
    assert not torch.equal(before["flags"], after["flags"])


def test_dense_and_routed_logits_agree():
    model, batch = randomise(build_model()), random_batch()
    routed = model(**batch).entry_logits["single_label_classification"]
    dense = model(batch["input_ids"], batch["attention_mask"]).logits
    for row in range(8):
        name = TASKS[row % 2]["name"]
        torch.testing.assert_close(routed[row, : dense[name].shape[1]], dense[name][row], atol=1e-5, rtol=0)
