#!/usr/bin/env python3
"""Encodes seeded random texts with independent tokenisers into tests/data/vocabulary_goldens.json, which vocabulary_test
compares with: PyPI `tokenizers` over the vocabularies and merges of .cache/vocabularies (scripts/setup --tests), with the
patterns of the models' own tokenizer.json, and PyPI `sentencepiece` over their scores. Also trains two small
SentencePiece models, with and without byte tokens, whose pieces, scores and ids become tests/data/spm_goldens.json. Run
again after a change here, in a virtual environment with gguf==0.19.0 tokenizers==0.23.3 sentencepiece==0.2.3 protobuf:
    python tests/text/make_tokenizer_goldens.py [COUNT]"""
import json
import pathlib
import random
import sys
import tempfile
import unicodedata

import gguf
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import Regex, models, pre_tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA, CACHE = ROOT / "tests" / "data", ROOT / ".cache" / "vocabularies"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
PROSE = ("It is a truth universally acknowledged that a server which answers must first have read what it was asked and "
         "that whoever reads the same words twice had better remember them than compute them over and over again")
WORDS = PROSE.split()[:30] + ["Hello", "world", "the", "it's", "IT'S", "they'LL", "don't", "we've", "I'D", "'\u017f", "'tis", "x=1;", "return",
         "na\u00efve", "caf\u00e9", "stra\u00dfe", "\u4f60\u597d", "\u3053\u3093", "\ud55c\uad6d", "\u0645\u0631\u062d", "\u0928\u092e\u0938\u094d\u0924\u0947",
         "\u0420\u0443\u0441", "\U0001f469\u200d\U0001f4bb", "\U0001f44d\U0001f3fd", "\u2581", "\u2581a", "<0x41>", "<s>", "</s>", "<unk>",
         "12345", "007", "3.14", "\uff11\uff12", "\u2167", "\u00bd", "!!!", "...", "--", "()", "{}", "//", "\\n", "#include"]
SPACES = [" ", " ", " ", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "\u0085", "\u2028", ""]


def assigned(rng):
    while True:
        character = chr(rng.choice([rng.randrange(0x20, 0x250), rng.randrange(0x250, 0x3000), rng.randrange(0x3000, 0xd800),
                                    rng.randrange(0xf900, 0x1fb00)]))
        if unicodedata.category(character) not in ("Cn", "Cs", "Co"):
            return character


def texts(count, seed, words=0.7):
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(1, 12)):
            parts.append(rng.choice(SPACES))
            parts.append(rng.choice(WORDS) if rng.random() < words else "".join(assigned(rng) for _ in range(rng.randrange(1, 4))))
        made.append("".join(parts) + rng.choice(SPACES))
    return made


def read(name):
    fields = gguf.GGUFReader(CACHE / f"ggml-vocab-{name}.gguf").fields
    values = lambda key: [fields[key].parts[index] for index in fields[key].data]
    return {"tokens": [bytes(token).decode() for token in values("tokenizer.ggml.tokens")],
            "types": [int(kind[0]) for kind in values("tokenizer.ggml.token_type")],
            "merges": [tuple(bytes(merge).decode().split(" ")) for merge in values("tokenizer.ggml.merges")]
                      if "tokenizer.ggml.merges" in fields else [],
            "scores": [float(score[0]) for score in values("tokenizer.ggml.scores")]
                      if "tokenizer.ggml.scores" in fields else []}


def byte_level(name, pattern, ignore_merges=False):
    vocabulary = read(name)
    ids = {token: index for index, token in enumerate(vocabulary["tokens"]) if vocabulary["types"][index] == 1}
    tokenizer = tokenizers.Tokenizer(models.BPE(ids, vocabulary["merges"], ignore_merges=ignore_merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    tokenizer.pre_tokenizer = level if pattern is None else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), level])
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def sentence_piece(vocabulary):
    """As Llama's: no normalisation, a space in front."""
    model = proto.ModelProto()
    model.trainer_spec.model_type = proto.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = 6 in vocabulary["types"]
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.add_dummy_prefix = True
    for token, score, kind in zip(vocabulary["tokens"], vocabulary["scores"], vocabulary["types"]):
        model.pieces.add(piece=token, score=score, type=kind)
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString()).encode


def trained(corpus, byte_fallback):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "corpus"
        path.write_text("\n".join(text.replace("\n", " ").replace("\r", " ") for text in corpus))
        sentencepiece.SentencePieceTrainer.train(
            input=str(path), model_prefix=folder + "/m", model_type="bpe", vocab_size=600, character_coverage=0.98,
            byte_fallback=byte_fallback, normalization_rule_name="identity", remove_extra_whitespaces=False,
            minloglevel=2, num_threads=1, max_sentence_length=100000)
        model = proto.ModelProto()
        model.ParseFromString(pathlib.Path(folder + "/m.model").read_bytes())
    vocabulary = {"tokens": [p.piece for p in model.pieces], "scores": [p.score for p in model.pieces],
                  "types": [p.type for p in model.pieces]}
    return vocabulary


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    samples = texts(count, 1)
    encoders = {"gpt-2": byte_level("gpt-2", None), "llama-bpe": byte_level("llama-bpe", LLAMA3, ignore_merges=True),
                "qwen2": byte_level("qwen2", QWEN2), "llama-spm": sentence_piece(read("llama-spm"))}
    document = {"texts": samples, "ids": {name: [encode(text) for text in samples] for name, encode in encoders.items()}}
    (DATA / "vocabulary_goldens.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")

    corpus = texts(3000, 2, words=1)
    small = []
    for byte_fallback in (True, False):
        vocabulary = trained(corpus, byte_fallback)
        encode = sentence_piece(vocabulary)
        small.append(vocabulary | {"ids": [encode(text) for text in samples]})
    (DATA / "spm_goldens.json").write_text(json.dumps({"texts": samples, "models": small}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
