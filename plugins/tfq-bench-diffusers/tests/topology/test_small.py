"""Small networks of each family, and of families never met, against what they really compute."""

import re

import pytest
import torch

from tfq_bench.quant import find_layer
from tfq_bench_diffusers.topology import diffusers_topology
from tfq_bench_diffusers.topology.trace import trace_network


def outputs(network, inputs, names):
    """What each named layer gives, all its calls in one tensor, in the order of first calls."""
    seen = {}
    handles = [
        find_layer(network, name).register_forward_hook(
            lambda _, __, output, name=name: seen.setdefault(name, []).append(output.flatten())
        )
        for name in names
    ]
    network(**inputs)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(rows) for name, rows in seen.items()}


def leaves(inputs, prefix=""):
    """Each tensor of nested arguments by its dotted path."""
    for key, value in inputs.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def exchanged(inputs, others, path):
    """`inputs` with the tensor at one path taken from `others`."""
    key, _, rest = path.partition(".")
    if not rest:
        return {**inputs, key: others[key]}
    return {**inputs, key: exchanged(inputs[key], others[key], rest)}


def test_order_is_that_of_a_real_run(small):
    """Forward hooks fire in the topology's order, and every layer that runs is listed."""
    network, inputs = small.build("cpu"), small.values()
    expected = [layer.name for layer in diffusers_topology(network, inputs).layers]
    assert expected == list(outputs(network, inputs, sorted(expected)))
    weighted = (torch.nn.Conv2d, torch.nn.Linear)
    assert sorted(expected) == sorted(
        name for name, module in network.named_modules() if isinstance(module, weighted)
    )


def test_layers_depend_on_what_was_followed_to_them(small):
    """Changing one input changes exactly the layers that were found to depend on it."""
    network, inputs = small.build("cpu"), small.values()
    layers = trace_network(network, inputs).layers
    before, others = outputs(network, inputs, layers), small.values(seed=1)
    for path, value in leaves(inputs):
        assert not torch.equal(value, dict(leaves(others))[path])
        after = outputs(network, exchanged(inputs, others, path), layers)
        changed = {name for name in layers if not torch.equal(before[name], after[name])}
        assert {name for name, layer in layers.items() if path in layer.inputs} == changed, path


def test_it_takes_no_weights_and_leaves_the_network_alone(small):
    """A network with weights and its twin on the meta device have one topology."""
    network, inputs = small.build("cpu"), small.values()
    before = {name: (id(p), p.clone()) for name, p in network.named_parameters()}
    found = diffusers_topology(network, inputs)
    assert diffusers_topology(small.build("meta"), inputs) == found
    after = dict(network.named_parameters())
    assert {name: key for name, (key, _) in before.items()} == {
        name: id(parameter) for name, parameter in after.items()
    }
    assert all(torch.equal(value, after[name]) for name, (_, value) in before.items())
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in network.modules()]
    assert not any(post or pre for post, pre in hooks)


def test_blocks_are_modules_with_one_output_per_call(small):
    """What block reconstruction hooks: a tensor, or a tuple that starts with the only one."""
    network, inputs = small.build("cpu"), small.values()
    seen = {}
    for block in diffusers_topology(network, inputs).blocks:
        network.get_submodule(block.name).register_forward_hook(
            lambda _, __, output, name=block.name: seen.setdefault(name, output)
        )
    network(**inputs)
    for name, output in seen.items():
        one = output if isinstance(output, torch.Tensor) else output[0]
        assert isinstance(one, torch.Tensor), name
        assert isinstance(output, torch.Tensor) or len(output) == 1, name


def test_multiply_accumulates_are_those_of_a_real_run(small):
    """Output elements times the weights behind each, over all calls of a layer."""
    network, inputs = small.build("cpu"), small.values()
    topology = diffusers_topology(network, inputs)
    made = outputs(network, inputs, [layer.name for layer in topology.layers])
    for layer in topology.layers:
        per_output = find_layer(network, layer.name).weight[0].numel()
        assert per_output * made[layer.name].numel() == layer.macs


@pytest.mark.parametrize("name", ["small-ddpm", "scale-shift", "small-sd", "small-sdxl"])
def test_splits_are_where_the_up_stages_concatenate(example, name):
    """The same as from the stored states that each up stage receives."""
    network, inputs = example(name).build("cpu"), example(name).values()
    received = {}

    def remember(index):
        def hook(_, args, kwargs):
            stored = kwargs.get("res_hidden_states_tuple", args[1] if len(args) > 1 else ())
            received[index] = [state.shape[1] for state in stored]

        return hook

    for index, stage in enumerate(network.up_blocks):
        stage.register_forward_pre_hook(remember(index), with_kwargs=True)
    network(**inputs)
    expected = {
        f"up_blocks.{index}.resnets.{place}.conv_shortcut": resnet.in_channels
        - received[index][-1 - place]
        for index, stage in enumerate(network.up_blocks)
        for place, resnet in enumerate(stage.resnets)
    }
    found = diffusers_topology(example(name).build("cpu"), inputs)
    splits = {layer.name: layer.split for layer in found.layers if layer.split is not None}
    assert expected == splits
    assert {"shortcut"} == {found.layer(one).role for one in splits}


def test_roles_and_blocks_of_a_plain_unet_are_those_of_its_names(topology_of):
    """What its authors called the modules tells the same."""
    patterns = {
        r"conv_in": "input",
        r"conv_out": "output",
        r"time_embedding\..*": "time-mlp",
        r".*\.time_emb_proj": "time-projection",
        r".*\.conv_shortcut": "shortcut",
        r".*\.(down|up)samplers\..*": "resample",
        r".*\.attentions\..*": "attention",
        r".*\.resnets\.\d+\.conv[12]": "conv",
    }
    for layer in topology_of("small-ddpm").layers:
        role = next(role for pattern, role in patterns.items() if re.fullmatch(pattern, layer.name))
        unit = re.fullmatch(r"(.*\.(?:resnets|attentions)\.\d+)\..*", layer.name)
        assert (role, unit.group(1) if unit else layer.name) == (layer.role, layer.block)


@pytest.mark.parametrize("name", ["scale-shift", "class-timestep", "class-projection"])
def test_only_the_embedding_can_be_tabulated_when_a_class_is_added_to_it(topology_of, name):
    """Projections read timestep and class; the layers of the class are a condition."""
    topology = topology_of(name)
    assert ("time_embedding.linear_2",) == topology.time_features
    assert all(one.endswith(".time_emb_proj") for one in topology.time_projections)
    condition = [layer.name for layer in topology.layers if layer.role == "condition"]
    embedding = ["class_embedding.linear_1", "class_embedding.linear_2"]
    assert ([] if name == "scale-shift" else embedding) == condition


def test_nothing_can_be_tabulated_when_a_condition_enters_before_the_first_layer(topology_of):
    """A guidance scale is added to the sinusoid; the time MLP is still one."""
    topology = topology_of("guided")
    assert () == topology.time_features
    assert ("time_embedding.linear_1", "time_embedding.linear_2") == topology.time_mlp
    assert "condition" == topology.layer("time_embedding.cond_proj").role


def test_residual_blocks_outside_of_lists_are_blocks(topology_of):
    """Skip stages hold one; their side branches read the state or make the output."""
    topology = topology_of("skip")
    assert "down_blocks.0.resnet_down" in [block.name for block in topology.blocks]
    assert "input" == topology.layer("down_blocks.0.skip_conv").role
    assert "output" == topology.layer("up_blocks.0.skip_conv").role


def test_layers_of_blocks_with_two_streams_stand_alone(topology_of):
    """Learned by its first output alone, a joint block would forget the picture."""
    topology = topology_of("two-streams")
    assert all(block.layers == (block.name,) for block in topology.blocks)
    assert "attention" == topology.layer("transformer_blocks.0.attn.add_k_proj").role
    assert ("time_text_embed.timestep_embedder.linear_2",) == topology.time_features
    assert () == topology.attention
