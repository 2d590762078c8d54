#!/usr/bin/env python3
"""A Hugging Face tokenizer folder from a GGUF, for clients that count or make tokens themselves.

usage: make_tokenizer.py MODEL.gguf FOLDER

Reads the file's byte-level BPE (tokens, merges, control tokens) with PyPI `gguf` and writes tokenizer.json with PyPI
`tokenizers`, tokenizer_config.json and config.json. Knows the pre-tokenizer `smollm`: each digit alone, then GPT-2's
pattern.
"""
import json
import sys
from pathlib import Path

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL = 3  # tokenizer.ggml.token_type of special tokens


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    fields = GGUFReader(sys.argv[1]).fields

    def field(name):
        if name not in fields:
            sys.exit(f"make_tokenizer: {sys.argv[1]} has no {name}")
        return fields[name].contents()

    if (kind := (field("tokenizer.ggml.model"), field("tokenizer.ggml.pre"))) != ("gpt2", "smollm"):
        sys.exit(f"make_tokenizer: {kind} is not known: only gpt2 with the pre-tokenizer smollm")
    texts, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    control = [text for text, kind in zip(texts, types) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in control])

    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    context = field("llama.context_length")
    end = texts[field("tokenizer.ggml.eos_token_id")]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context, "eos_token": end,
                "bos_token": texts[field("tokenizer.ggml.bos_token_id")], "clean_up_tokenization_spaces": False,
                "chat_template": field("tokenizer.chat_template")}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": len(texts),
              "max_position_embeddings": context}
    (folder / "config.json").write_text(json.dumps(config, indent=1))


if __name__ == "__main__":
    main()
