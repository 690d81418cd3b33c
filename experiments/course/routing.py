"""Pages on routing: three votes by hand, real couplings, what it is good for, and memory networks."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax import figures
from capsnet_jax.interpret.attention import observe_attention
from capsnet_jax.interpret.capsule_maps import coupling_maps
from capsnet_jax.models.memory_network import attend, hops
from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.routing import Routing
from capsnet_jax.routing.dynamic import dynamic_routing, route_by_agreement
from experiments.course.material import Material
from experiments.course.page import Excerpt, Page, drawn, measured, movable, saved, table
from experiments.hops import attention_over_sentences

# Three inputs' votes for two parents in the plane: for A two agree, for B none do.
VOTES = [[[0.9, 0.5], [0.2, 0.9]], [[0.8, 0.75], [0.9, -0.3]], [[-0.5, 0.3], [-0.8, -0.2]]]
COMPARED = {"dataset": "fashion_mnist", "preset": "small", "train.frozen": "none"}


def routing(material: Material) -> Page:
    """Show routing by agreement, by hand and on digits."""
    routed = route(jnp.asarray(VOTES), 3)
    share = [f"{float(c):.2f}" for c in routed.couplings[:, 0]]
    net = material.capsnet
    images = material.digits[[3, 8]]
    maps = {f"iteration {t + 1}": np.asarray(coupling_maps(net, images, kind="difference"))[:, t] for t in (1, 2)}
    figure = figures.overlay(
        images, maps, signed=True, note="small CapsNet; how much more than uniformly each part is coupled to the digit"
    )
    return Page(
        "Routing by agreement",
        f"""Every input capsule has a vote for every parent: what the parent would look like, if this part belonged to
it. A parent is the squashed sum of its votes, each times a coupling; at first an input couples to all parents
equally. Where a vote points the same way as the parent its coupling grows, and as an input's couplings add up to 1
the others shrink. **Drag the votes**: as drawn, inputs 1 and 2 agree on parent A, and after three iterations the
three send it {share[0]}, {share[1]} and {share[2]} of theirs. On the digits, red parts, empty ones too, are coupled
to the chosen class more than uniformly.""",
        [
            movable("routing", {"votes": VOTES, "iterations": 3}, f"Couplings to parent A: {', '.join(share)}."),
            drawn(figure, "two digits, and where their couplings to the chosen class grow in iterations 2 and 3"),
        ],
        [Excerpt(route_by_agreement, "logits = jnp.zeros", "logits += ")],
        ["--workdir={workdir} --inspect=couplings", "--sweep routing.iterations=1,2,3,5"],
    )


def route(votes: Float[Array, "inputs parents 2"], iterations: int) -> Routing:
    """Route votes in the plane, as `course.js` does."""
    return dynamic_routing(votes, iterations=iterations, trace=True)


def backpropagation(material: Material) -> Page:
    """Show the slide's figure, measured with seeds."""
    del material
    dynamic = COMPARED | {"routing.name": "dynamic", "routing.iterations": "3"}
    full = measured("routing_vs_backprop", dynamic | {"routing.gradient": "full"})
    stopped = measured("routing_vs_backprop", dynamic | {"routing.gradient": "stop"})
    uniform = measured("routing_vs_backprop", COMPARED | {"routing.name": "dynamic", "routing.iterations": "1"})
    frozen = measured("routing_vs_backprop", dynamic | {"train.frozen": "class_capsules", "routing.gradient": "full"})
    return Page(
        "Routing against backpropagation",
        f"""Routing finds couplings in the forward pass, backpropagation finds weights: must the gradient pass through
all iterations? A slide of 2017 shows Fashion-MNIST with and without, 92.4 and 92.3 % right, from one seed. With five
seeds our small net errs on {full} with the gradient through all iterations and on {stopped} through the last alone:
not told apart. Uniform couplings err on {uniform}, so routing does help here. With the votes' matrices frozen at
random it is {frozen}.""",
        [
            saved(
                "routing_vs_backprop-with_and_without-fashion_mnist",
                "training loss and accuracy by epoch, with and without the gradient through the iterations",
            ),
            saved("routing_vs_backprop-error_by_arm", "test error of seven arms on two data sets"),
        ],
        [Excerpt(route_by_agreement, "stop_gradient = ", "summed = ")],
        ["--experiment=routing_vs_backprop --dataset=fashion_mnist", "--sweep routing.gradient=full,stop"],
    )


def others(material: Material) -> Page:
    """Show other routers, which the slides' outlook wishes for."""
    del material
    return Page(
        "Other squashes, other routing",
        """The slides end with wishes: another squash, a better routing. Many were published since: EM,
self-attention, variational Bayes, couplings that are learned or random. Here ten routers stand in the same net, each
with its best learning rate, five seeds. Few differ from routing by agreement, and none is shown to be better; a CNN
of equal size errs less on Fashion-MNIST. To try an idea of your own, write one function of the votes and one line in
`ROUTERS`.""",
        [saved("routers-test_error", "test error of ten routers and a CNN on MNIST and Fashion-MNIST")],
        [Excerpt(dynamic_routing, "return route_by_agreement")],
        ["--experiment=routers --dataset=fashion_mnist", "--sweep routing.name=dynamic,self_attention,uniform"],
    )


def memory(material: Material) -> Page:
    """Show attention hop by hop, and that a hop is an iteration of routing."""
    net = material.memory_network
    rows, difference = hops_and_iterations(material)
    error = net.record.result["test_error"] if net.record else float("nan")
    figure = attention_over_sentences(observe_attention(net), note="a memory network of three hops, a test question")
    return Page(
        "Why routing? Memory networks do nearly the same",
        f"""A memory network answers a question about a story in *hops*: it compares the question with every sentence,
reads a weighted mean of them, adds it to the question, and looks again. An iteration of routing is a hop: parents
ask, votes are the memories, and what is read is squashed. One thing differs: a memory network's shares add up to 1
over the memories of a question, couplings over the parents of a vote. With that axis for both, they give the same
parents of a digit's {rows[0][3]} votes, to within **{difference:.0e}**; but a memory network with routing's axis hardly
learns its stories. The network below learned 900 questions in half a minute (test error {error:.0f} %; a guess errs on
83 %).""",
        [
            drawn(figure, "sentences of a story, and how much each hop of the network attends to them"),
            table(("iteration, or hop", "least coupling", "greatest", "votes"), rows),
        ],
        [Excerpt(attend), Excerpt(hops), Excerpt(hops_and_iterations, "primary = ", "capsules = ")],
        ["--experiment=hops"],
    )


def hops_and_iterations(material: Material) -> tuple[list[tuple[str, str, str, str]], float]:
    """Route the votes of a digit, and let a memory network hop over them: each step's couplings, and the difference."""
    net = material.capsnet
    primary = net.outputs(material.digits[3][None])["primary"][0]
    votes = jnp.einsum("ip,iopd->iod", primary, net.params["class_capsules"]["W"])
    routed = dynamic_routing(votes, iterations=3, trace=True)
    _, steps = hops(
        jnp.zeros(votes.shape[1:]),  # questions
        [(votes, votes)] * 3,  # keys and values
        lambda scores: jax.nn.softmax(scores, axis=1),  # shares among parents
        read=SQUASHES["sabour"],
    )
    capsules = jnp.stack([step.read for step in steps])
    assert routed.trace is not None
    rows = [
        (str(t + 1), f"{float(step.shares.min()):.3f}", f"{float(step.shares.max()):.3f}", f"{votes[..., 0].size:,}")
        for t, step in enumerate(steps)
    ]
    return rows, float(jnp.abs(capsules - routed.trace.capsules).max())
