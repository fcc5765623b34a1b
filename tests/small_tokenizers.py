"""Tokenizers of every kind, trained on a few words; each gives its own account of where pieces stand."""

import json
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXT = (
    "The race, was held in Amsterdam on a Monday ... and Bob\u200b won 5 km é (café) naïve U.S. state-of-the-art "
    "cafe\u0301 दिल्ली में 北京 👍🏽 a  b\nI x"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
byte_level = pre_tokenizers.ByteLevel
roberta = processors.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=True, add_prefix_space=True)


def _train(tokenizer: Tokenizer, trainer) -> Tokenizer:
    tokenizer.train_from_iterator([TEXT, TEXT.replace(" ", "  ")] * 10, trainer)
    return tokenizer


def _wordpiece() -> Tokenizer:
    own = Tokenizer(models.WordPiece(unk_token="<unk>"))
    own.normalizer = normalizers.BertNormalizer(lowercase=True)
    own.pre_tokenizer, own.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=False)
    _train(own, trainers.WordPieceTrainer(vocab_size=130, special_tokens=SPECIAL, show_progress=False))
    own.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    return own


def _byte_level(before, after, vocab_size=330) -> Tokenizer:
    own = Tokenizer(models.BPE())
    own.pre_tokenizer, own.decoder, own.post_processor = before, decoders.ByteLevel(), after
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=byte_level.alphabet(), show_progress=False
    )
    return _train(own, trainer)


def _unigram() -> Tokenizer:
    own = Tokenizer(models.Unigram())
    own.normalizer = normalizers.NFKC()
    own.pre_tokenizer, own.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    options = {"vocab_size": 90, "special_tokens": SPECIAL, "unk_token": "<unk>", "show_progress": False}
    return _train(own, trainers.UnigramTrainer(**options))


def _t5() -> Tokenizer:
    own = _unigram()
    end = [("</s>", 2)]
    own.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B:1 </s>:1", end)
    return own


def _llama() -> Tokenizer:
    """Pieces of one byte where a character is unknown; the blanks are put in by the normalizer."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    options = {"vocab_size": 380, "show_progress": False, "limit_alphabet": 20}
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    model = json.loads(_train(trained, trainers.BpeTrainer(special_tokens=pieces, **options)).to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    # A new one, to which the bytes are no special pieces.
    own = Tokenizer(models.BPE(model["vocab"], merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    own.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    own.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    own.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s>:1 $B:1", [("<s>", 1)])
    return own


def _characters() -> Tokenizer:
    own = Tokenizer(models.WordLevel(unk_token="<unk>"))
    own.pre_tokenizer, own.decoder = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"), decoders.Fuse()
    return _train(own, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))


BUILD = {
    "WordPiece": _wordpiece,
    "RoBERTa": lambda: _byte_level(byte_level(add_prefix_space=False), roberta),
    "GPT-2": lambda: _byte_level(byte_level(add_prefix_space=False), processors.ByteLevel(trim_offsets=False)),
    "bytes": lambda: _byte_level(byte_level(add_prefix_space=False), processors.ByteLevel(trim_offsets=False), 260),
    "RobBERT": lambda: _byte_level(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Whitespace(), byte_level(add_prefix_space=True), pre_tokenizers.Punctuation()]
        ),
        roberta,
    ),
    "Unigram": _unigram,
    "T5": _t5,
    "Llama": _llama,
    "characters": _characters,
}
# Those that put no piece of their own beside a text's.
BARE = ("GPT-2", "bytes", "Unigram", "characters")


@cache
def small_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer of `BUILD`."""
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=BUILD[name](), model_input_names=["input_ids", "attention_mask"], **names
    )
