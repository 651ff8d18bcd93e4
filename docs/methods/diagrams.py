"""The pictures of docs/methods, described: which tensor flows through which network, in every phase and in scoring.

    python docs/methods/diagrams.py           # writes docs/methods/diagrams/<detector>.svg
    python docs/methods/diagrams.py --check   # only says which are out of date; exit status 1 if any is

Shapes are those of one image at the defaults of the detector's class, batch apart. `drawing.py` has the language.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from drawing import Arrow, Node, Panel, draw, freeze, loss, net, output, source, store

FOLDER = Path(__file__).with_name("diagrams")
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


def adgan() -> list[Panel]:
    """adGAN: what flows where."""
    judge = net("judge", (1.6, 0), "judge", "J")
    tag = loss("judge loss", (3.5, 0), "mean J(x̃) − mean J(x) + 10·GP + α·std J(x)")
    return [
        wgan_gan(SMALL, 128, pool=True),
        against_pool("critic", judge, "the judge, against the pool", tag, carry=True),
        straight_score(judge, SMALL, "−J(x)", "one pass"),
    ]


def wgan() -> list[Panel]:
    """WGAN critic: what flows where."""
    critic = net("critic", (1.6, 0), "critic", "C")
    return [
        wgan_gan(SMALL, 128, critic_loss=f"{GP} + α·std C(x)"),
        straight_score(critic, SMALL, "−C(x)", "one pass"),
    ]


def pool_cnn() -> list[Panel]:
    """CNN on the fake pool: what flows where."""
    classifier = net("classifier", (1.6, 0), "classifier", "K")
    tag = loss("cross-entropy", (3.5, 0), "−log σ(K(x)) − log(1 − σ(K(x̃)))")
    return [
        wgan_gan(SMALL, 128, pool=True),
        against_pool("classifier", classifier, "the classifier, normals against the pool", tag, carry=False),
        straight_score(classifier, SMALL, "−K(x)", "one pass"),
    ]


def pool_svm() -> list[Panel]:
    """SVM on the fake pool: what flows where."""
    nodes = {
        "x": source("x", (0, 0), "10 000 normals"),
        "pool": store("fake pool", (0.05, 1), "as many"),
        "pixels": net("pixels", (1.3, 0), "features", "to [0, 1]", frozen=True),
        "bank": store("feature bank", (2.45, 0), "20 000 × 1024", width=104),
        "svm": net("SVM", (3.75, 0), "machine", "RBF, C = 1"),
    }
    arrows = [
        Arrow("x", "pixels", shape=SMALL),
        Arrow("pool", "pixels", "x̃", leave="right", enter="bottom"),
        Arrow("pixels", "bank", shape="1024"),
        Arrow("bank", "svm", "at the end", leave="right"),
    ]
    machine = net("SVM", (2.2, 0), "machine", "decision")
    scoring = {
        "x": source("x", (0, 0)),
        "pixels": net("pixels", (1.1, 0), "features", "to [0, 1]"),
        "svm": machine,
        "score": output("score", (3.5, 0), "Σ αᵢ k(x, xᵢ) + b"),
    }
    return [
        wgan_gan(SMALL, 128, pool=True),
        Panel("gather", "normals, then the pool; scikit-learn solves", nodes, arrows),
        Panel(
            "",
            "one kernel sum",
            freeze(scoring),
            [Arrow("x", "pixels", shape=SMALL), Arrow("pixels", "svm", shape="1024"), Arrow("svm", "score")],
        ),
    ]


def dcgan() -> list[Panel]:
    """DCGAN critic: what flows where."""
    discriminator = net("discriminator", (1.6, 0), "discriminator", "D", width=104)
    return [gan_and_discriminator(SMALL, 128), straight_score(discriminator, SMALL, "−logit of “real”", "one pass")]


def fanogan() -> list[Panel]:
    """f-AnoGAN: what flows where."""
    flow = {
        "x": source("x", (0, 0), "normal"),
        "E": net("encoder", (1, 0), "encoder", "E"),
        "G": net("generator", (2, 0), "generator", "G", frozen=True),
        "C": net("critic", (2.85, 0.5), "critic", "features f", frozen=True),
    }
    arrows = [
        Arrow("x", "E", shape=LARGE),
        Arrow("E", "G", "z", "128"),
        Arrow("G", "C", "x̂", lane=2.42, shift=(0, -8), segment=0),
        Arrow("x", "C", shape=LARGE, leave="bottom", enter="left", shift=(0, 8), segment=1),
    ]
    training = {
        **flow,
        "pixel": loss("pixel", (4.15, -0.35), "mean (x − x̂)²"),
        "feature": loss("κ · feature", (4.15, 0.5), "mean (f(x) − f(x̂))²"),
    }
    last = [
        Arrow("G", "pixel", leave="top", enter="left"),
        Arrow("C", "feature", shape="8192"),
    ]
    scoring = {
        **freeze({**flow, "x": source("x", (0, 0))}),
        "score": output("score", (4.1, 0.5), "pixel + κ · feature"),
        "map": output("map", (4.1, -0.35), "|x − x̂|"),
    }
    ends = [Arrow("G", "map", leave="top", enter="left"), Arrow("C", "score")]
    return [
        wgan_gan(LARGE, 128),
        Panel("encoder", "image → z → image, generator and critic frozen", training, arrows + last),
        Panel("", "one pass", scoring, arrows + ends),
    ]


def anogan() -> list[Panel]:
    """AnoGAN: what flows where."""
    nodes = {
        "z": Node("tensor", "z", (0, 0), "moves", width=40),
        "G": net("generator", (1, 0), "generator", "G"),
        "D": net("discriminator", (2.2, 0.5), "discriminator", "features f", width=104),
        "x": source("x", (1, 1)),
        "loss": loss("distance", (3.7, 0.5), ".9 Σ|x − G(z)| + .1 Σ|f(x) − f(G(z))|"),
        "score": output("score", (3.15, 1.45), "least distance"),
        "map": output("map", (4.25, 1.45), "|x − G(z)|"),
    }
    arrows = [
        Arrow("z", "G", shape="100"),
        Arrow("G", "D", "G(z)", lane=1.62, shift=(0, -8), segment=0),
        Arrow("x", "D", shape=LARGE, lane=1.62, shift=(0, 8), segment=0),
        Arrow("D", "loss"),
        Arrow("loss", "z", "200 Adam steps on z alone", leave="top", enter="top", lane=-0.5, dashed=True),
        Arrow("loss", "score", leave="bottom", enter="top", lane=1.02),
        Arrow("loss", "map", leave="bottom", enter="top", lane=1.02),
    ]
    return [gan_and_discriminator(LARGE, 100), Panel("", "a search for z, image by image", freeze(nodes), arrows)]


def alocc() -> list[Panel]:
    """ALOCC: what flows where."""
    nodes = {
        "x": source("x", (0, 0), "normal"),
        "noise": source("noise", (0, 1), "N(0, .155²)"),
        "R": net("reconstructor", (1.15, 0), "reconstructor", "R", width=104),
        "D": net("discriminator", (2.35, 0), "discriminator", "D", width=104),
        "d": loss("discriminator loss", (3.85, 0), "−log D(x) − log(1 − D(R(x̃)))"),
        "r": loss("reconstructor loss", (3.85, 1), "−log D(R(x̃)) + .4 (x − R(x̃))²"),
    }
    arrows = [
        Arrow("x", "R", "x̃", LARGE),
        Arrow("noise", "R", leave="right", enter="bottom"),
        Arrow("R", "D", "R(x̃)", shape=LARGE),
        Arrow("x", "D", "x", leave="top", enter="top", lane=-0.5),
        Arrow("D", "d", shift=(-7, -7)),
        Arrow("D", "r", shift=(9, 0), lane=2.82),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "R": nodes["R"],
        "D": nodes["D"],
        "score": output("score", (3.7, 0), "−logit D(R(x))"),
        "map": output("map", (3.7, 0.75), "|x − R(x)|"),
    }
    flow = [
        Arrow("x", "R", shape=LARGE),
        Arrow("R", "D", "R(x)", shape=LARGE),
        Arrow("D", "score"),
        Arrow("R", "map", leave="bottom", enter="left"),
    ]
    return [
        Panel("gan", "R cleans, D compares; both freeze once R is good enough", nodes, arrows),
        Panel("", "one pass, no noise", freeze(scoring), flow),
    ]


def autoencoder() -> list[Panel]:
    """Autoencoder and VAE: what flows where."""
    nodes = {
        "x": source("x", (0, 0), "normal"),
        "E": net("encoder", (1, 0), "autoencoder", "4 conv, 2 dense"),
        "D": net("decoder", (2.2, 0), "autoencoder", "2 dense, 4 conv"),
        "error": loss("error", (3.7, 0), "mean (x − x̂)²"),
        "kl": loss("VAE: + .005 · KL", (2.2, 1), "N(μ, σ²) from N(0, I)"),
    }
    arrows = [
        Arrow("x", "E", shape=LARGE),
        Arrow("E", "D", "z", "16"),
        Arrow("D", "error", "x̂", LARGE),
        Arrow("E", "kl", "μ, log σ²", leave="bottom", enter="left", segment=1),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "E": nodes["E"],
        "D": nodes["D"],
        "map": output("map", (3.35, 0), "(x − x̂)²"),
        "score": output("score", (4.3, 0), "its mean"),
    }
    flow = [Arrow("x", "E", shape=LARGE), Arrow("E", "D", "z", "16"), Arrow("D", "map", "x̂"), Arrow("map", "score")]
    return [
        Panel("reconstruction", "encoder and decoder as one", nodes, arrows),
        Panel("", "one pass; a VAE’s z is its mean", freeze(scoring), flow),
    ]


def deep_svdd() -> list[Panel]:
    """Deep SVDD: what flows where."""
    x, fixed = source("x", (0, 0), "normal"), net("contrast", (1, 0), "contrast", "to [0, 1]", frozen=True)
    first = Arrow("x", "contrast", shape=SMALL)
    code = [first, Arrow("contrast", "phi", shape=SMALL), Arrow("phi", "sphere", "code", "32")]
    phi = net("encoder", (2.08, 0), "encoder", "φ")
    sphere = net("sphere", (3.08, 0), "sphere", "c, R", frozen=True)
    pretrain = {
        "x": x,
        "contrast": fixed,
        "A": net("autoencoder", (2.2, 0), "autoencoder", "φ and decoder", width=104),
        "loss": loss("error", (3.7, 0), "Σ (x − x̂)²"),
    }
    centre = {
        "x": x,
        "contrast": fixed,
        "phi": net("encoder", (2.2, 0), "encoder", "φ, only applied"),
        "sphere": net("sphere", (3.7, 0), "sphere", "centre c"),
    }
    drawn = {
        "x": x,
        "contrast": fixed,
        "phi": phi,
        "sphere": sphere,
        "end": loss("distance", (4.15, 0), "mean |φ(x) − c|²"),
    }
    scoring = {**drawn, "x": source("x", (0, 0)), "end": output("score", (4.15, 0), "|φ(x) − c|² − R²")}
    measured = {"x": x, "contrast": net("contrast", (1, 0), "contrast", "mean, scale")}
    learnt = [first, Arrow("contrast", "A", shape=SMALL), Arrow("A", "loss", "x̂", SMALL)]
    return [
        Panel("contrast", "the range of the normals is measured", measured, [first]),
        Panel("pretrain", "an autoencoder, with weight decay", pretrain, learnt),
        Panel("centre", "φ takes the autoencoder’s weights, its mean code becomes c", centre, code),
        Panel("sphere", "φ draws the codes to c", drawn, [*code, Arrow("sphere", "end")]),
        Panel("", "one pass", freeze(scoring), [*code, Arrow("sphere", "end")]),
    ]


def egbad() -> list[Panel]:
    """EGBAD: what flows where."""
    nodes = {
        "x": source("x", (0, 0), "normal"),
        "E": net("encoder", (1, 0), "encoder", "E"),
        "z": source("z", (0, 1), "~ N(0, I)"),
        "G": net("generator", (1, 1), "generator", "G"),
        "D": net("discriminator", (2.35, 0.5), "discriminator", "D(image, code)", width=104),
        "d": loss("discriminator loss", (3.7, -0.15), "−log D(x, E(x)) − log(1 − D(G(z), z))"),
        "e": loss("encoder loss", (3.7, 0.5), "−log(1 − D(x, E(x)))"),
        "g": loss("generator loss", (3.7, 1.15), "−log D(G(z), z)"),
    }
    arrows = [
        Arrow("x", "E", shape=SMALL),
        Arrow("z", "G", shape="200"),
        Arrow("E", "D", "x, E(x)", lane=1.75, shift=(0, -8), segment=0),
        Arrow("G", "D", "G(z), z", lane=1.75, shift=(0, 8), segment=0),
        Arrow("D", "d", leave="top", enter="left"),
        Arrow("D", "e"),
        Arrow("D", "g", leave="bottom", enter="left"),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "E": nodes["E"],
        "G": net("generator", (2, 0), "generator", "G"),
        "D": net("discriminator", (2.95, 0.9), "discriminator", "features f", width=104),
        "score": output("score", (4.02, 0.9), ".9‖x − x̂‖₁ + .1‖f − f̂‖₁"),
        "map": output("map", (4.1, 0), "|x − x̂|"),
    }
    flow = [
        Arrow("x", "E", shape=SMALL),
        Arrow("E", "G", "z", "200"),
        Arrow("G", "map", "x̂", segment=0),
        Arrow("G", "D", leave="bottom", enter="left", shift=(0, -14)),
        Arrow("E", "D", "z", leave="bottom", enter="left", shift=(0, 0)),
        Arrow("x", "D", "x", leave="bottom", enter="left", shift=(0, 14)),
        Arrow("D", "score"),
    ]
    return [
        Panel("gan", "D tells pairs apart, E and G make them alike", nodes, arrows),
        Panel("", "one pass through moving averages of all three", freeze(scoring), flow),
    ]


def alad() -> list[Panel]:
    """ALAD: what flows where."""
    nodes = {
        "x": source("x", (0, 0), "normal"),
        "E": net("encoder", (0.95, 0), "encoder", "E"),
        "G2": net("generator", (2.03, 0), "generator", "G"),
        "z": source("z", (0, 2), "~ N(0, I)"),
        "G": net("generator", (0.95, 2), "generator", "G"),
        "E2": net("encoder", (2.03, 2), "encoder", "E"),
        "xx": net("D_xx", (3.07, 0), "discriminators", "two images", width=84),
        "xz": net("D_xz", (3.07, 1), "discriminators", "image, code", width=84),
        "zz": net("D_zz", (3.07, 2), "discriminators", "two codes", width=84),
        "images": loss("images", (4.1, 0), "(x, x) or (x, x̂)?"),
        "pairs": loss("pairs", (4.1, 1), "(x, E(x)) or (G(z), z)?"),
        "codes": loss("codes", (4.1, 2), "(z, z) or (z, ẑ)?"),
    }
    arrows = [
        Arrow("x", "E", shape=SMALL),
        Arrow("E", "G2", "E(x)", "100"),
        Arrow("G2", "xx", "x̂", SMALL),
        Arrow("z", "G", shape="100"),
        Arrow("G", "E2", "G(z)", SMALL),
        Arrow("E2", "zz", "ẑ", "100"),
        Arrow("E", "xz", "x, E(x)", leave="bottom", enter="left", shift=(0, -8), segment=1),
        Arrow("G", "xz", leave="top", enter="left", shift=(0, 8), segment=1, shape="G(z), z"),
        *(Arrow(a, b) for a, b in (("xx", "images"), ("xz", "pairs"), ("zz", "codes"))),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "E": net("encoder", (1, 0), "encoder", "E"),
        "G": net("generator", (2, 0), "generator", "G"),
        "xx": net("D_xx", (2.9, 0.75), "discriminators", "features f"),
        "score": output("score", (4.1, 0.75), "‖f(x, x) − f(x, x̂)‖₁"),
        "map": output("map", (4.1, 0), "|x − x̂|"),
    }
    flow = [
        Arrow("x", "E", shape=SMALL),
        Arrow("E", "G", "z", "100"),
        Arrow("G", "map", "x̂"),
        Arrow("G", "xx", leave="bottom", enter="left", shift=(0, -6)),
        Arrow("x", "xx", "x", leave="bottom", enter="left", shift=(0, 8), segment=1),
        Arrow("xx", "score"),
    ]
    return [
        Panel("gan", "three games of cross-entropy", nodes, arrows),
        Panel("", "one pass through moving averages", freeze(scoring), flow),
    ]


def ganomaly() -> list[Panel]:
    """GANomaly: what flows where."""
    flow = {
        "x": source("x", (0, 0), "normal"),
        "E": net("encoder", (0.9, 0), "reconstructor", "G_E"),
        "Dec": net("decoder", (1.86, 0), "reconstructor", "G_D"),
        "E2": net("2nd encoder", (2.98, 0), "reconstructor", "E"),
    }
    arrows = [
        Arrow("x", "E", shape=LARGE),
        Arrow("E", "Dec", "z", "100"),
        Arrow("Dec", "E2", "x̂", LARGE),
    ]
    training = {
        **flow,
        "latent": loss("latent", (4.15, 0), "mean (z − ẑ)²"),
        "pixel": loss("50 · pixel", (1.86, 1.9), "mean |x − x̂|"),
        "D": net("discriminator", (3, 1), "discriminator", "D, features f", width=104),
        "adv": loss("adversarial", (4.12, 1), "mean (f(x) − f(x̂))²"),
        "d": loss("discriminator loss", (3.87, 1.9), "½ (−log D(x) − log(1 − D(x̂)))"),
    }
    more = [
        Arrow("E2", "latent", "ẑ"),
        Arrow("E", "latent", leave="top", enter="top", lane=-0.5, name="z", segment=1),
        Arrow("Dec", "D", "x̂", leave="bottom", enter="left", shift=(0, -8), segment=1),
        Arrow("x", "D", "x", leave="bottom", enter="left", shift=(0, 8), segment=1),
        Arrow("Dec", "pixel", leave="bottom", enter="top"),
        Arrow("x", "pixel", leave="bottom", enter="left"),
        Arrow("D", "adv"),
        Arrow("D", "d", leave="bottom", enter="left"),
    ]
    scoring = {
        **freeze({**flow, "x": source("x", (0, 0))}),
        "score": output("score", (4.2, 0), "mean (z − ẑ)²"),
        "map": output("map", (3, 0.8), "|x − x̂|"),
    }
    ends = [
        Arrow("E2", "score", "ẑ"),
        Arrow("E", "score", leave="top", enter="top", lane=-0.5, name="z", segment=1),
        Arrow("Dec", "map", leave="bottom", enter="left"),
    ]
    return [
        Panel("gan", "the reconstructor, then D", training, arrows + more),
        Panel("", "one pass, without D", scoring, arrows + ends),
    ]


def skip_ganomaly() -> list[Panel]:
    """Skip-GANomaly: what flows where."""
    nodes = {
        "x": source("x", (0, 0), "normal"),
        "U": net("U-Net", (1.2, 0), "reconstructor", "G, 5 skips"),
        "pixel": loss("50 · pixel", (2.6, 0), "mean |x − x̂|"),
        "D": net("discriminator", (2.6, 0.85), "discriminator", "D, features f", width=104),
        "lat": loss("latent, for both", (4.0, 0.1), "mean (f(x) − f(x̂))²"),
        "g": loss("adversarial, for G", (4.0, 0.85), "−log D(x̂)"),
        "d": loss("discriminator loss", (4.0, 1.6), "−log D(x) − log(1 − D(x̂))"),
    }
    arrows = [
        Arrow("x", "U", shape=LARGE),
        Arrow("U", "pixel", "x̂"),
        Arrow("U", "D", leave="bottom", enter="left", shift=(0, -8), name="x̂", segment=1),
        Arrow("x", "D", "x", leave="bottom", enter="left", shift=(0, 8), segment=1),
        Arrow("D", "lat", lane=3.2, shift=(-7, 0)),
        Arrow("D", "g"),
        Arrow("D", "d", leave="bottom", enter="left"),
    ]
    scoring = {
        "x": source("x", (0, 0)),
        "U": net("U-Net", (1.2, 0), "reconstructor", "G"),
        "D": net("discriminator", (2.6, 0.7), "discriminator", "features f", width=104),
        "score": output("score", (3.95, 0.7), ".9 (x − x̂)² + .1 (f − f̂)²"),
        "map": output("map", (3.95, 0), "|x − x̂|"),
    }
    flow = [
        Arrow("x", "U", shape=LARGE),
        Arrow("U", "map", "x̂"),
        Arrow("U", "D", leave="bottom", enter="left", shift=(0, -6)),
        Arrow("x", "D", "x", leave="bottom", enter="left", shift=(0, 8), segment=1),
        Arrow("D", "score", "f, f̂", "100"),
    ]
    return [
        Panel("gan", "the U-Net, then D", nodes, arrows),
        Panel("", "one pass", freeze(scoring), flow),
    ]


def multi_kd() -> list[Panel]:
    """Multi-KD: what flows where."""

    def nodes(teacher_note: str) -> dict[str, Node]:
        return {
            "x": source("x", (-0.05, 0.5), "normal"),
            "T": net("teacher", (1.4, 0), "teacher", teacher_note, frozen=True, width=124),
            "S": net("cloner", (1.4, 1), "cloner", "narrow VGG", width=124),
        }

    arrows = [
        Arrow("x", "T", shape="3×128×128", lane=0.62, segment=0),
        Arrow("x", "S", lane=0.62),
        Arrow("T", "loss", "4 taps", "128…512 maps", lane=2.72, shift=(0, -8), segment=0),
        Arrow("S", "loss", "4 taps", "same shapes", lane=2.72, shift=(0, 8), segment=0),
    ]
    training = {
        **nodes("VGG-16, ImageNet"),
        "loss": loss("distillation", (3.7, 0.5), "Σ₄ (1 − cos) + λ Σ₄ mean (s − t)²"),
    }
    scoring = {
        **freeze({**nodes("VGG-16"), "x": source("x", (-0.05, 0.5))}),
        "loss": output("score", (3.7, 0.5), "the same over the last 3 taps"),
        "map": output("map", (3.7, 1.6), "|∂ score / ∂x|, blurred"),
    }
    scored = [
        *(Arrow("x", key, lane=0.62, shape=shape, segment=0) for key, shape in (("T", "3×128×128"), ("S", ""))),
        Arrow("T", "loss", "3 taps", lane=2.72, shift=(0, -8), segment=0),
        Arrow("S", "loss", "3 taps", lane=2.72, shift=(0, 8), segment=0),
        Arrow("loss", "map", shape="gradient, guided", leave="bottom", enter="top", dashed=True),
    ]
    return [
        Panel("distillation", "the cloner follows the frozen teacher", training, arrows),
        Panel("", "two passes forward, one back to the pixels", scoring, scored),
    ]


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


def kde() -> list[Panel]:
    """Kernel density estimate: what flows where."""
    return kernel("Gaussians", "width by 5 folds", "10 000", "−log Σᵢ exp(−γ|x − xᵢ|²) + const", "one a normal")


def ocsvm() -> list[Panel]:
    """One-class SVM: what flows where."""
    return kernel("one-class SVM", "RBF, ν = .1", "10 000", "ρ − Σᵢ αᵢ k(x, xᵢ)", "support vectors")


def svdd() -> list[Panel]:
    """SVDD: what flows where."""
    return kernel("sphere", "linear, ν = .1", "5 000", "|x − c|²", "centre c")


DETECTORS = (
    *(adgan, alad, alocc, anogan, autoencoder, dcgan, deep_svdd, egbad, fanogan),
    *(ganomaly, kde, multi_kd, ocsvm, pool_cnn, pool_svm, skip_ganomaly, svdd, wgan),
)
PICTURES = {panels.__name__: panels for panels in DETECTORS}  # by module; their docstrings are the titles


def pictures() -> Mapping[str, str]:
    """Every picture as SVG, by the name of its detector's module."""
    return {name: draw((panels.__doc__ or name).rstrip("."), panels()) for name, panels in PICTURES.items()}


def main(check: bool) -> int:
    """Write the pictures, or only compare; the number of those that differ."""
    stale = 0
    FOLDER.mkdir(exist_ok=True)
    for name, svg in pictures().items():
        path = FOLDER / f"{name}.svg"
        if not path.exists() or path.read_text(encoding="utf-8") != svg:
            stale += 1
            print(f"{'out of date' if check else 'written'}: {path}")
            if not check:
                path.write_text(svg, encoding="utf-8")
    return stale if check else 0


if __name__ == "__main__":
    sys.exit(min(1, main("--check" in sys.argv[1:])))
