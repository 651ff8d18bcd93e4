"""Panels that the pictures of several methods share, and shapes at the defaults of their classes."""

from drawing import Arrow, Node, Panel, freeze, loss, net, output, source, store

SMALL, LARGE = "1×32×32", "1×64×64"
GP = "mean C(x̃) − mean C(x) + 10·GP"


def wgan_gan(shape: str, latent_dim: int, pool: bool = False, critic_loss: str = GP) -> Panel:
    """A WGAN-GP's training, with or without a fake pool."""
    nodes = {
        "z": source("z", (0, 0), "~ N(0, I)"),
        "G": net("generator", (1, 0), "generator", "G"),
        "C": net("critic", (2.15, 0), "critic", "C"),
        "x": source("x", (2.15, 1), "normal"),
        "critic_loss": loss("critic loss", (3.7, 0), critic_loss),
        "generator_loss": loss("generator loss", (3.75, 1), "−mean C(x̃)"),
    }
    arrows = [
        Arrow("z", "G", shape=str(latent_dim)),
        Arrow("G", "C", "x̃", shape),
        Arrow("x", "C", shape=shape, leave="top", enter="bottom"),
        Arrow("C", "critic_loss", shift=(-7, -7)),
        Arrow("C", "generator_loss", shift=(9, 0), lane=2.72),
    ]
    if pool:
        nodes["pool"] = store("fake pool", (1, 1), "uint8, on disk", width=110)
        arrows.append(Arrow("G", "pool", shape="64 every 100", leave="bottom", enter="top"))
    title = "generator and critic, WGAN-GP" + (", fill the pool" if pool else "")
    return Panel("gan", title, nodes, arrows)


def gan_and_discriminator(shape: str, latent_dim: int) -> Panel:
    """A DCGAN's training."""
    nodes = {
        "z": source("z", (0, 0), "~ N(0, I)"),
        "G": net("generator", (1, 0), "generator", "G"),
        "D": net("discriminator", (2.15, 0), "discriminator", "D", width=104),
        "x": source("x", (2.15, 1), "normal"),
        "d": loss("discriminator loss", (3.75, 0), "−log D(x) − log(1 − D(x̃))"),
        "g": loss("generator loss", (3.75, 1), "−log D(x̃)"),
    }
    arrows = [
        Arrow("z", "G", shape=str(latent_dim)),
        Arrow("G", "D", "x̃", shape),
        Arrow("x", "D", shape=shape, leave="top", enter="bottom"),
        Arrow("D", "d", shift=(-7, -7)),
        Arrow("D", "g", shift=(9, 0), lane=2.8),
    ]
    return Panel("gan", "discriminator and generator in turns", nodes, arrows)


def straight_score(network: Node, shape: str, score: str, title: str) -> Panel:
    """Image, network, score."""
    nodes = freeze({"x": source("x", (0, 0)), "N": network, "score": output("score", (3.1, 0), score)})
    return Panel("", title, nodes, [Arrow("x", "N", shape=shape), Arrow("N", "score")])


def against_pool(phase: str, network: Node, title: str, tag: Node, carry: bool) -> Panel:
    """Normals and the pool before a network that is to tell them apart."""
    nodes = {
        "pool": store("fake pool", (0.1, 0), "all stages"),
        "x": source("x", (0.1, 1), "normal"),
        "N": network,
        "loss": tag,
    }
    arrows = [
        Arrow("pool", "N", "x̃", SMALL),
        Arrow("x", "N", shape=SMALL, lane=1.13, shift=(0, 12)),
        Arrow("N", "loss"),
    ]
    if carry:
        nodes["C"] = net("critic", (1.6, 1), "critic", "C", frozen=True)
        arrows.append(Arrow("C", "N", shape="weights, if carried", leave="top", enter="bottom", dashed=True))
    return Panel(phase, title, nodes, arrows)


def kernel(machine: str, note: str, rows: str, score: str, scoring_note: str) -> list[Panel]:
    """A bank of features, and what is made of it at the end."""
    nodes = {
        "x": source("x", (0, 0), f"{rows} normals"),
        "features": net("pixels", (1.2, 0), "features", "to [0, 1]", frozen=True),
        "bank": store("feature bank", (2.4, 0), f"{rows} × 1024", width=104),
        "machine": net(machine, (3.8, 0), "machine", note, width=124),
    }
    arrows = [
        Arrow("x", "features", shape=SMALL),
        Arrow("features", "bank", shape="1024"),
        Arrow("bank", "machine", "at the end"),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "features": net("pixels", (1.1, 0), "features", "to [0, 1]"),
        "machine": net(machine, (2.3, 0), "machine", scoring_note, width=124),
        "score": output("score", (3.8, 0), score),
    }
    flow = [Arrow("x", "features", shape=SMALL), Arrow("features", "machine", shape="1024"), Arrow("machine", "score")]
    return [
        Panel("gather", "normals pass once, then all is learnt at once", nodes, arrows),
        Panel("", "distances to the kept rows", freeze(scoring), flow),
    ]
