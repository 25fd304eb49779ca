"""Language models of random weights and a tokenizer, made on disk."""

from __future__ import annotations

from pathlib import Path

import torch

from pcm_ros.models.torchvision_shim import prepare_torchvision

WORDS = "the cat sat on a mat with 12 eggs and 7 more = << >> #### * + - / . ? Question: Answer:"


def _tokenizer(folder: Path) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([WORDS], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>").save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def make_model(kind: str, folder: Path, context: int = 256, width: int = 32, spread: float = 0.4) -> Path:
    """A folder in transformers' format; kind: "llama", "qwen2" or "gpt2"."""
    prepare_torchvision()
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(3)
    size = _tokenizer(folder)
    common = {"vocab_size": size, "eos_token_id": 0, "pad_token_id": 0, "bos_token_id": 0}
    shape = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=2, n_head=4, n_positions=context, **common))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape, **common, max_position_embeddings=context))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape, **common, max_position_embeddings=context, initializer_range=spread))
    model.save_pretrained(folder)
    return folder
