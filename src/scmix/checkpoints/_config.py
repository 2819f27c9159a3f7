"""config.json: what an encoder needs from it, and nothing that could mean something else.

Keys that `transformers` writes for every BERT are accepted where they hold a harmless value; any
other key is refused, because a model that needs it would be computed wrongly without it.
"""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from .._errors import IncompatibleModelError, ModelFileError

ARCHITECTURE = "BertForMaskedLM"
CLASSIFIER = "BertForSequenceClassification"

_SIZES = {  # largest sensible value; the files themselves must then have these sizes
    "vocab_size": 1_000_000,
    "hidden_size": 16_384,
    "num_hidden_layers": 256,
    "num_attention_heads": 1_024,
    "intermediate_size": 131_072,
    "max_position_embeddings": 1_000_000,
}
_OPTIONAL = {  # the values that transformers assumes where a file is silent
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def _among(*allowed: object) -> Callable[[object], bool]:
    return lambda value: any(value is a or (value == a and type(value) is type(a)) for a in allowed)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short_text(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 1_000)


def _bool(value: object) -> bool:
    return isinstance(value, bool)


def _token_id(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _labels(value: object) -> bool:
    return isinstance(value, dict)


_HARMLESS: dict[str, Callable[[object], bool]] = {
    "model_type": _among("bert"),
    "position_embedding_type": _among("absolute"),
    "is_decoder": _among(False),
    "is_encoder_decoder": _among(False),
    "add_cross_attention": _among(False),
    "tie_word_embeddings": _among(True),
    "chunk_size_feed_forward": _among(0),
    "pruned_heads": _among({}),
    "torchscript": _among(False),
    "use_bfloat16": _among(False),
    "tf_legacy_loss": _bool,
    "classifier_dropout": lambda value: value is None or _number(value),
    "architectures": lambda value: value is None or isinstance(value, list),
    "transformers_version": _short_text,
    "torch_dtype": _short_text,
    "dtype": _short_text,
    "_name_or_path": _short_text,
    "_attn_implementation_autoset": _bool,
    "attn_implementation": _short_text,
    "finetuning_task": _short_text,
    "problem_type": _short_text,
    "gradient_checkpointing": _bool,
    "use_cache": _bool,
    "output_attentions": _bool,
    "output_hidden_states": _bool,
    "return_dict": _bool,
    "bos_token_id": _token_id,
    "eos_token_id": _token_id,
    "sep_token_id": _token_id,
    "cls_token_id": _token_id,
    "decoder_start_token_id": _token_id,
    "id2label": _labels,
    "label2id": _labels,
}


def to_json(settings: dict, classes: list[str] | None = None) -> dict:
    """The contents of a config.json from an encoder's settings, and the classes of its one head."""
    numbered = {str(i): name for i, name in enumerate(classes or [])}
    head = {"id2label": numbered, "label2id": {name: int(i) for i, name in numbered.items()}}
    return {
        "architectures": [ARCHITECTURE if classes is None else CLASSIFIER],
        "model_type": "bert",
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "dtype": "float32",  # what transformers loads the weights as, also when stored as float16
        **settings,
        **({} if classes is None else head),
    }


def from_json(content: dict, path: Path, *, classifier: bool = False) -> dict:
    """The encoder's settings in a config.json, checked one by one; a classifier may have a head."""
    _refuse_code(content, path)
    _check_harmless(content, path)
    _check_architecture(content, path, [[CLASSIFIER]] if classifier else [])
    missing = [name for name in (*_SIZES, "hidden_act") if name not in content]
    if missing:
        raise ModelFileError(
            f"{path} says nothing about {', '.join(missing)}; a BERT configuration must. "
            "Copy the model again."
        )
    settings = {name: content[name] for name in (*_SIZES, "hidden_act")}
    settings |= {name: content.get(name, value) for name, value in _OPTIONAL.items()}
    _check_settings(settings, path)
    return settings


def tensor_shapes(settings: dict, *, pooler: bool) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a `BertForMaskedLM` with these settings."""
    width, inner = settings["hidden_size"], settings["intermediate_size"]
    n_tokens = settings["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (n_tokens, width),
        "bert.embeddings.position_embeddings.weight": (settings["max_position_embeddings"], width),
        "bert.embeddings.token_type_embeddings.weight": (settings["type_vocab_size"], width),
        **_norm("bert.embeddings.LayerNorm", width),
        **_dense("cls.predictions.transform.dense", width, width),
        **_norm("cls.predictions.transform.LayerNorm", width),
        "cls.predictions.bias": (n_tokens,),
    }
    for index in range(settings["num_hidden_layers"]):
        shapes |= _layer_shapes(f"bert.encoder.layer.{index}", width, inner)
    return shapes | (_dense("bert.pooler.dense", width, width) if pooler else {})


def redundant_shapes(settings: dict) -> dict[str, tuple[int, ...]]:
    """What some versions of transformers save besides: tied copies, and counted positions."""
    n_positions = settings["max_position_embeddings"]
    return {
        "cls.predictions.decoder.weight": (settings["vocab_size"], settings["hidden_size"]),
        "cls.predictions.decoder.bias": (settings["vocab_size"],),
        "bert.embeddings.position_ids": (1, n_positions),
        "bert.embeddings.token_type_ids": (1, n_positions),
    }


def _layer_shapes(layer: str, width: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {
        **_dense(f"{layer}.attention.self.query", width, width),
        **_dense(f"{layer}.attention.self.key", width, width),
        **_dense(f"{layer}.attention.self.value", width, width),
        **_dense(f"{layer}.attention.output.dense", width, width),
        **_norm(f"{layer}.attention.output.LayerNorm", width),
        **_dense(f"{layer}.intermediate.dense", inner, width),
        **_dense(f"{layer}.output.dense", width, inner),
        **_norm(f"{layer}.output.LayerNorm", width),
    }


def _dense(name: str, n_out: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _refuse_code(content: dict, path: Path) -> None:
    found = [name for name in ("auto_map", "custom_pipelines", "custom_code") if name in content]
    if found:
        raise ModelFileError(
            f"{path} asks for code of its own ({found[0]}); scmix never runs code of a model. "
            f"Expected a plain {ARCHITECTURE}."
        )


def _check_harmless(content: dict, path: Path) -> None:
    known = {*_SIZES, "hidden_act", *_OPTIONAL, *_HARMLESS}
    unknown = sorted(content.keys() - known)
    if unknown:
        close = get_close_matches(unknown[0], known, n=1)
        raise ModelFileError(
            f"{path} has the unknown key {unknown[0][:80]!r}"
            + (f" (did you mean {close[0]!r}?)" if close else "")
            + f"; expected keys of transformers.BertConfig. If {ARCHITECTURE}.from_pretrained "
            "opens the model, save it anew with save_pretrained."
        )
    for name, is_harmless in _HARMLESS.items():
        if name in content and not is_harmless(content[name]):
            raise IncompatibleModelError(
                f"{path} has {name} = {str(content[name])[:80]!r}, which the encoder of scmix does "
                f"not compute. Expected a {ARCHITECTURE} with absolute positions."
            )


def _check_architecture(content: dict, path: Path, others: list[list[str]]) -> None:
    if content.get("model_type") != "bert":
        raise IncompatibleModelError(
            f'{path} does not say "model_type": "bert"; scmix loads BERT encoders only.'
        )
    architectures = content.get("architectures") or [ARCHITECTURE]
    if architectures not in ([ARCHITECTURE], *others):
        raise IncompatibleModelError(
            f"{path} describes {str(architectures)[:80]}, expected [{ARCHITECTURE!r}]. "
            "Load the pretrained model that this one was made from."
        )


def _check_settings(settings: dict, path: Path) -> None:
    bounds = {name: (1, highest) for name, highest in _SIZES.items()}
    bounds |= {"type_vocab_size": (1, 1_000), "pad_token_id": (0, _SIZES["vocab_size"] - 1)}
    for name, (lowest, highest) in bounds.items():
        value = settings[name]
        if type(value) is not int or not lowest <= value <= highest:
            raise _wrong_value(name, value, f"an integer from {lowest:,} to {highest:,}", path)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if not _number(settings[name]) or not 0 <= settings[name] < 1:
            raise _wrong_value(name, settings[name], "a number from 0 to below 1", path)
    for name in ("initializer_range", "layer_norm_eps"):
        if not _number(settings[name]) or not 0 < settings[name] <= 10:
            raise _wrong_value(name, settings[name], "a number above 0, at most 10", path)
    if not isinstance(settings["hidden_act"], str):
        raise _wrong_value("hidden_act", settings["hidden_act"], "a name", path)
    if settings["hidden_size"] % settings["num_attention_heads"]:
        expected = f"a divisor of hidden_size = {settings['hidden_size']}"
        raise _wrong_value("num_attention_heads", settings["num_attention_heads"], expected, path)


def _wrong_value(name: str, value: object, expected: str, path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path} has {name} = {str(value)[:80]!r}, expected {expected}. Copy the model again."
    )
