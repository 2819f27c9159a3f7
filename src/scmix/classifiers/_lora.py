"""LoRA adapters through peft: small matrices trained in place of the weights they adapt."""

from typing import Any

from ._network import Network
from ._recipes import Recipe


def add_adapters(network: Network, recipe: Recipe) -> None:
    """Give every dense layer that is to be trained an adapter, and freeze its own weights.

    Dense layers are those after attention and of the feed-forward part; queries, keys and values
    are computed in one product and stay as they are.
    """
    peft = _peft()
    layers = network.encoder.bert.encoder.layer
    chosen = [
        i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters())
    ]
    network.encoder.requires_grad_(False)
    config = peft.LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=[
            f"encoder.bert.encoder.layer.{i}.{name}.dense"
            for i in chosen
            for name in ("attention.output", "intermediate", "output")
        ],
    )
    trained = [p for p in network.parameters() if p.requires_grad]
    peft.inject_adapter_in_model(config, network)
    for parameter in trained:
        parameter.requires_grad_(True)


def merge_adapters(network: Network) -> None:
    """Add the adapters to the weights and remove them."""
    tuners = _peft().tuners.tuners_utils
    for name, module in list(network.named_modules()):
        if isinstance(module, tuners.BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, module.get_base_layer())
    network.requires_grad_(False)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            "lora_rank above 0 needs the package peft: pip install 'scmix[lora]'."
        ) from error
    return peft
