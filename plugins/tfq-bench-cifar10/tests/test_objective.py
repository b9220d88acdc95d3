"""What a training step sees and minimizes."""

import pytest
import torch

from tfq_bench_cifar10.network import NETWORKS, alphas_cumprod, build_trainable
from tfq_bench_cifar10.objective import draw, make_loss, snr_weight


@pytest.fixture
def images():
    """Sixteen images of noise."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture
def labels():
    """Classes of the sixteen."""
    return torch.arange(16) % 10


def fresh(network):
    """The network as a training starts it, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_trainable(network).train()


def batch_of(images, labels, size=4, label_dropout=0.0):
    """One batch, always the same."""
    generator = torch.Generator().manual_seed(1)
    return draw(images, labels, size, label_dropout=label_dropout, generator=generator)


def test_the_loss_of_a_fixed_batch_falls(network, images, labels):
    """Eight steps of AdamW on one batch take a third off the loss of a fresh network."""
    module = fresh(network)
    loss = make_loss(network, module, kind="epsilon", device="cpu")
    batch = batch_of(images, labels, label_dropout=0.1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    found = []
    for _ in range(8):
        value = loss(*batch)
        found.append(value.item())
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert found[-1] < 2 / 3 * found[0]


@pytest.mark.parametrize("name", ["conditional", "dit"])
def test_the_table_of_classes_is_trained(images, labels, name):
    """What the network is told of a class of the batch gets a gradient, that of others none."""
    network = NETWORKS[name]
    module = fresh(network)
    if name == "dit":  # it starts as the identity, through which no gradient comes
        for gate in (module.proj_out_1, module.proj_out_2):
            torch.nn.init.ones_(gate.weight)
    x, t, noise, _ = batch_of(images, labels)
    loss = make_loss(network, module, kind="epsilon", device="cpu")
    loss(x, t, noise, torch.tensor([0, 3, 10, 3])).backward()
    if name == "dit":
        embedder = module.transformer_blocks[0].norm1.emb.class_embedder
        table = embedder.embedding_table.weight.grad
    else:
        table = module.class_tokens.grad.flatten(1)
    assert [0, 3, 10] == table.abs().sum(dim=1).nonzero().flatten().tolist()


def test_the_plain_loss_is_the_error_of_the_noise(images, labels):
    """A network that says nothing has the loss of the noise itself."""
    network = NETWORKS["dit"]  # starts with an output of zero
    x, t, noise, told = batch_of(images, labels)
    loss = make_loss(network, fresh(network), kind="epsilon", device="cpu")(x, t, noise, told)
    assert pytest.approx(noise.double().square().mean().item(), rel=1e-5) == loss.item()


def test_the_weighted_loss_counts_each_image_by_its_noise(images, labels):
    """min(SNR, 5) / SNR times each image's error; DDPM's loss is the same with weights of one."""
    network = NETWORKS["dit"]
    x, _, noise, told = batch_of(images, labels)
    t = torch.tensor([0, 10, 300, 999])
    signal = alphas_cumprod()[t]
    ratio = signal / (1.0 - signal)
    weight = torch.minimum(ratio, torch.tensor(5.0, dtype=torch.float64)) / ratio
    expected = (noise.double().square().mean(dim=(1, 2, 3)) * weight).mean().item()
    loss = make_loss(network, fresh(network), kind="min-snr", device="cpu")(x, t, noise, told)
    assert pytest.approx(expected, rel=1e-5) == loss.item()


def test_min_snr_lowers_only_the_weight_of_little_noise():
    """The weight is min(SNR, 5) / SNR: small at t = 0, one where the noise is strong."""
    weight = snr_weight(alphas_cumprod())
    assert pytest.approx(5.0 / (0.9999 / 1e-4), rel=1e-5) == weight[0].item()
    assert weight[-1].item() == 1.0


def test_a_batch_holds_the_images_with_their_labels(labels):
    """Each drawn image has its own label; half are flipped; values lie in [-1, 1]."""
    marked = torch.zeros(16, 3, 32, 32, dtype=torch.uint8)
    marked[:, 0, :, 0] = 255  # the left column tells whether an image is flipped
    marked[:, 1] = labels.to(torch.uint8).view(-1, 1, 1)
    x, t, noise, told = batch_of(marked, labels, size=400)
    assert torch.equal(told, x[:, 1, 0, 0].add(1.0).mul(127.5).round().to(torch.int64))
    flipped = x[:, 0, 0, -1] == 1.0
    assert 150 < int(flipped.sum()) < 250
    assert torch.equal(~flipped, x[:, 0, 0, 0] == 1.0)
    assert (-1.0, 1.0) == (x.min().item(), x.max().item())
    assert 0 <= int(t.min()) < 50
    assert 950 < int(t.max()) <= 999
    assert pytest.approx(1.0, abs=0.01) == noise.std().item()


def test_a_tenth_of_the_labels_is_dropped(images, labels):
    """Dropped labels say "no class"; all else of the batch is as without dropout."""
    kept = batch_of(images, labels, size=2000)
    dropped = batch_of(images, labels, size=2000, label_dropout=0.1)
    assert 150 < int((dropped[3] == 10).sum()) < 250
    assert torch.equal(kept[3][dropped[3] != 10], dropped[3][dropped[3] != 10])
    for expected, found in zip(kept[:3], dropped[:3], strict=True):
        assert torch.equal(expected, found)
