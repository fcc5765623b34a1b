"""Masks are drawn as published, by the seed, the draw and the row alone; rows that are held out are masked alike."""

import itertools

import numpy as np
import pytest
from datasets import Dataset

from hf_mtl import InputError, MultiTaskProcessor, TaskSpec
from hf_mtl.data.features import FeatureDataset
from hf_mtl.data.masked_pieces import PieceMasking
from tests.small_tokenizers import small_tokenizer

SPEC = TaskSpec(name="words", problem_type="masked_language_modeling")


def drawn(tokenizer, pieces=200, draws=300, seed=0, **settings):
    """A row of ordinary pieces between special ones as each draw masks it, and the row."""
    special = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    ordinary = sorted(set(range(1000, 1000 + pieces)))
    feature = {"sequences": [[special[0], *ordinary, special[1]]], "source": 3}
    masking = PieceMasking(tokenizer, TaskSpec(**{**SPEC.given, **settings}), seed)
    return [masking(feature, draw) for draw in range(draws)], feature["sequences"][0]


def test_of_the_pieces_that_are_to_be_told_80_10_10_are_masked_others_and_kept(tokenizer):
    """S0.15, S1.8: 15 % of the pieces, no special one; shares of 9,000 drawn pieces."""
    features, row = drawn(tokenizer)
    fates = {"masked": 0, "kept": 0, "other": 0}
    counts = np.zeros(len(row))
    for feature in features:
        ids = feature["sequences"][0]
        assert len(feature["masks"]) == 30
        assert [row[place] for place in feature["masks"]] == feature["masked_pieces"]
        for place, (new, old, label) in enumerate(zip(ids, row, feature["labels"])):
            assert label == (old if place in feature["masks"] else -100)
            if place not in feature["masks"]:
                assert new == old
                continue
            counts[place] += 1
            fates["masked" if new == tokenizer.mask_token_id else "kept" if new == old else "other"] += 1
            assert new == tokenizer.mask_token_id or new not in tokenizer.all_special_ids
    total = sum(fates.values())
    assert total == 9000
    # Four standard deviations of a share.
    for fate, share in (("masked", 0.8), ("other", 0.1), ("kept", 0.1)):
        assert abs(fates[fate] / total - share) < 4 * (share * (1 - share) / total) ** 0.5, fate
    assert counts[0] == counts[-1] == 0
    assert (abs(counts[1:-1] / 300 - 0.15) < 5 * (0.15 * 0.85 / 300) ** 0.5).all()


@pytest.mark.parametrize(
    ("pieces", "probability", "count"), [(1, 0.15, 1), (3, 0.15, 1), (20, 0.15, 3), (20, 0.5, 10), (20, 1.0, 20)]
)
def test_a_share_of_the_pieces_is_masked_and_one_at_least(tokenizer, pieces, probability, count):
    features, _ = drawn(tokenizer, pieces, draws=5, mlm_probability=probability)
    assert {len(feature["masks"]) for feature in features} == {count}


def test_a_text_without_ordinary_pieces_has_nothing_to_tell(tokenizer):
    masking = PieceMasking(tokenizer, SPEC, 0)
    row = [tokenizer.cls_token_id, tokenizer.mask_token_id, tokenizer.sep_token_id]
    feature = masking({"sequences": [row], "source": 0}, 0)
    assert (feature["sequences"], feature["masks"], feature["labels"]) == ([row], [], [-100] * 3)


def test_the_mask_follows_from_seed_draw_task_and_row(tokenizer):
    def masks(seed=1, draw=2, source=3, name="words"):
        feature = {"sequences": [[101, *range(1000, 1100), 102]], "source": source}
        return tuple(PieceMasking(tokenizer, TaskSpec(**{**SPEC.given, "name": name}), seed)(feature, draw)["masks"])

    assert masks() == masks()
    assert len({masks(), masks(seed=2), masks(draw=3), masks(source=4), masks(name="text")}) == 5


def dataset(tokenizer, seed=None, labelled=True):
    texts = [f"the number {at} stands between many other words" for at in range(9)]
    processor = MultiTaskProcessor(tokenizer, [SPEC.to_config()])
    rows = {"text": texts, "label": texts} if labelled else {"text": texts}
    seeds = {} if seed is None else {"seed": seed}
    return FeatureDataset(processor, {"words": SPEC}, {"words": Dataset.from_dict(rows)}, progress=False, **seeds)


def sequences(items):
    return [item["sequences"] for item in items]


def test_every_draw_masks_a_row_anew_and_a_data_set_alone_as_the_first_draw(tokenizer):
    """S0.15: a row of another draw is the same text with other masks; without draws rows are as in draw 0, always."""
    data = dataset(tokenizer, seed=5)
    places = np.arange(9)
    first, second = (sequences(data.__getitems__(data.at_draw(places, draw))) for draw in (0, 1))
    assert first == sequences(data) == sequences(dataset(tokenizer, seed=5))
    assert second != first
    assert sequences(data.__getitems__(data.at_draw(places, 1)[::-1])) == second[::-1]
    assert sequences(dataset(tokenizer)) == sequences(dataset(tokenizer)) != first
    with pytest.raises(IndexError):
        data[-1]


def test_rows_without_draws_are_asked_for_by_their_places(tokenizer):
    data = dataset(tokenizer, labelled=False)
    assert data.at_draw(np.arange(9), 7).tolist() == list(range(9))
    assert [item["entries"][0]["feature"]["masks"] for item in data] == [[]] * 9
    with pytest.raises(IndexError):
        data[9]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"columns": {"text": "a", "label": "b"}}, "learns from its text alone; leave 'label' out of its `columns`"),
        ({"local_columns": {"label": "b"}}, "leave 'label' out of its `local_columns`"),
        ({"labels": ["a", "b"]}, "has no labels; leave `labels` out"),
        ({"source": "reviews"}, "source='reviews' cannot be shared"),
        ({"mlm_probability": 0.0}, "mlm_probability=0.0 of task 'words'; expected a number > 0, at most 1"),
        ({"mlm_probability": 1.5}, "mlm_probability=1.5"),
        ({"mlm_probability": "all"}, "mlm_probability='all'"),
        ({"metrics": ["accuracy"]}, "use some of \\['masked_accuracy', 'perplexity'\\]"),
        ({"metrics": ["perplexity"]}, "Add one of \\['masked_accuracy'\\]"),
        ({"class_weights": [1.0]}, "`class_weights` make no sense"),
    ],
    ids=str,
)
def test_values_that_it_cannot_have_are_named(values, said):
    with pytest.raises(InputError, match=said):
        TaskSpec(**{**SPEC.given, **values}).check()


def test_a_task_that_others_share_is_named():
    from hf_mtl.tasks import join_sources

    other = TaskSpec(name="mood", problem_type="single_label_classification", source="words")
    with pytest.raises(InputError, match="source='words' cannot be shared"):
        join_sources([SPEC, other])


@pytest.mark.parametrize("kind", ["GPT-2", "Llama"])
def test_a_tokenizer_without_a_mask_is_named(kind):
    with pytest.raises(InputError, match="The task words masks word pieces, and the tokenizer .* has no mask token"):
        MultiTaskProcessor(small_tokenizer(kind), [SPEC.to_config()])


def test_every_piece_of_the_vocabulary_may_stand_in_anothers_place():
    tokenizer = small_tokenizer("WordPiece")
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    masking = PieceMasking(tokenizer, TaskSpec(**{**SPEC.given, "mlm_probability": 1.0}), 0)
    ordinary = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    row = sorted(ordinary)
    ids = {piece for draw in range(100) for piece in masking({"sequences": [row], "source": 0}, draw)["sequences"][0]}
    assert ids == ordinary | {tokenizer.mask_token_id}
    assert list(itertools.islice(masking.pieces, 3)) == row[:3]
