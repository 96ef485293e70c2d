"""Make the nano model's tokenizer: byte-level BPE with Qwen's splitting and tags. Knows nothing of the model itself.

Every byte has a token, so no input can fail; merges are learnt on the grammar of texts.py until each of its words is
one token; box tags and coordinates are added tokens.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from penguin_ros.training.texts import COORDINATE_TOKENS, vocabulary_texts

SPECIAL_TOKENS = ('<|endoftext|>', '<|im_start|>', '<|im_end|>', '<image>')
ADDED_TOKENS = ('<think>', '</think>', '<box>', '</box>', *COORDINATE_TOKENS)

# The public tokenizer's splitting (Qwen family): contractions, words with one leading mark, single digits, punctuation.
QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
              r'\s*[\r\n]+|\s+(?!\S)|\s+')
# Merges are learnt with a stricter split: no mark but a blank may join a word, so `,Time` stays `,` and `Time`
# however the two are handed over.
LEARNING_SPLIT = r' ?\p{L}+|\p{N}|[^\s\p{L}\p{N}]|\s*[\r\n]+|\s+'


def _byte_level(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior='isolated', invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def build_tokenizer() -> Tokenizer:
    """The nano tokenizer, the same on every call."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _byte_level(LEARNING_SPLIT)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, min_frequency=1, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(vocabulary_texts(), trainer)
    tokenizer.pre_tokenizer = _byte_level(QWEN_SPLIT)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in ADDED_TOKENS])
    return tokenizer
