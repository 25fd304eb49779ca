"""Tiny random pipelines in diffusers' folder format, made and loaded by the code that makes and loads real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from pcm_ros.models.torchvision_shim import prepare_torchvision

WORDS = ("a", "red", "blue", "mug", "bowl", "left", "of", "two")


def make_pipeline(folder: Path, decoder: str = "AutoencoderKL", prediction: str = "epsilon", text: str = "CLIPTextModel") -> Path:
    """A text-to-image pipeline of 32 pixels; decoder "" works on pixels; text "SentenceTokens" is the embedded encoder."""
    prepare_torchvision()
    import diffusers

    torch.manual_seed(3)
    channels = 4 if decoder else 3
    diffusers.UNet2DConditionModel(
        sample_size=16 if decoder else 32,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=384 if text == "SentenceTokens" else 16,
        attention_head_dim=4,
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", decoder] if decoder else [None, None],
        "text_encoder": ["pcm_ros" if text == "SentenceTokens" else "transformers", text],
    }
    if decoder == "AutoencoderKL":
        kind = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
        diffusers.AutoencoderKL(
            down_block_types=kind[0], up_block_types=kind[1], block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4
        ).save_pretrained(folder / "vae")
    elif decoder == "AutoencoderTiny":
        diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)
        ).save_pretrained(folder / "vae")
    diffusers.DDIMScheduler(
        beta_schedule="scaled_linear" if prediction == "epsilon" else "squaredcos_cap_v2", prediction_type=prediction, clip_sample=False
    ).save_pretrained(folder / "scheduler")
    if text == "CLIPTextModel":
        _text_encoder(folder)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _text_encoder(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(("<pad>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=12).save_pretrained(
        folder / "tokenizer"
    )
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        eos_token_id=0,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
