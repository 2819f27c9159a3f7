"""What a new run starts from: random weights, the co-expression of genes, or a trained model."""

from dataclasses import replace
from typing import Any

from .._errors import InputError
from ..checkpoints import Model
from ..encoder import Config, Encoder
from ..settings import logger
from .corpus import Corpus
from .initialise import start_from_coexpression
from .model import Pretraining, make_model
from .recipes import Recipe
from .recipes import recipe as make_recipe

_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
)


def recipe_for(recipe: str | Recipe, start: Model | None, changes: dict[str, Any]) -> Recipe:
    """The recipe with its changes, and with the sizes of the model that it starts from."""
    if start is None:
        return make_recipe(recipe, **changes)
    config = start.config
    sizes = {name: getattr(config, name) for name in _SIZES}
    for name in sizes.keys() & changes.keys():
        if changes[name] != sizes[name]:
            raise InputError(
                f"Found {name}={changes[name]!r}, but the model to start from has "
                f"{sizes[name]!r}. Leave it out."
            )
    longest = config.max_position_embeddings
    if changes.get("max_length", 0) > longest:
        raise InputError(
            f"Found max_length={changes['max_length']:,}, but the model to start from takes at "
            f"most {longest:,} tokens."
        )
    fitted = min(make_recipe(recipe).max_length, longest)
    return make_recipe(recipe, **({"max_length": fitted} | sizes | changes))


def check_vocabulary(start: Model | None, corpus: Corpus) -> None:
    """Refuse a model whose tokens mean something else than those of the corpus."""
    if start is not None and start.vocabulary.sha256 != corpus.vocabulary.sha256:
        raise InputError(
            f"Model {start.name!r} has another vocabulary ({start.vocabulary.n_tokens:,} tokens) "
            f"than the corpus ({corpus.vocabulary.n_tokens:,} tokens). Give it that of the corpus "
            "with scmix.pretrain.extend_vocabulary(model, corpus.vocabulary), or build the corpus "
            "with vocabulary=model.vocabulary."
        )


def new_model(corpus: Corpus, recipe: Recipe, start: Model | None) -> Pretraining:
    """A model before its first step, without what the corpus has to say (`first_values`)."""
    model = make_model(corpus.vocabulary, recipe)
    if start is None:
        return model
    return _with_encoder(model, start, recipe)


def first_values(model: Pretraining, corpus: Corpus, recipe: Recipe, start: Model | None) -> None:
    """Set, at the start of a new run, what is read off the corpus."""
    if recipe.init != "random" and start is None:
        n = start_from_coexpression(
            model.encoder,
            corpus,
            by_rank=recipe.init == "coexpression_by_rank",
            max_genes=recipe.max_length,
            seed=recipe.seed,
        )
        logger.info("Started %s genes from their co-expression.", f"{n:,}")
    model.start(corpus)


def _with_encoder(model: Pretraining, start: Model, recipe: Recipe) -> Pretraining:
    config: Config = replace(
        start.config,
        hidden_dropout_prob=recipe.hidden_dropout_prob,
        attention_probs_dropout_prob=recipe.attention_probs_dropout_prob,
    )
    encoder = Encoder(config, pooler=model.encoder.has_pooler)
    weights = model.encoder.state_dict() | start.encoder.state_dict()
    encoder.load_state_dict(weights)
    model.encoder = encoder
    return model
