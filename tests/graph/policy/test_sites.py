"""Sites that may carry Q/DQ: repeated blocks are alike, and neighbors are linked."""

from __future__ import annotations

from cnnx.graph.policy.placement import plan_layers
from cnnx.graph.policy.sites import SiteLink, sites_of
from cnnx.recipe import PrecisionPolicy
from tests.inputs.graphs import Sketch, images, maxima_of, residual


def found_in(model):
    plan = plan_layers(model, precision="int8", policy=PrecisionPolicy(), maxima=maxima_of(model, images()))
    sites, links = sites_of(model, plan)
    return {site.name: site for site in sites}, set(links), plan


def blocks(count):
    """A stem, identical blocks, and a classifier."""
    s = Sketch()
    x = s.node("Relu", [s.conv("input", "stem", 3, 16)], "stem.relu")
    for index in range(count):
        y = s.node("Relu", [s.conv(x, f"{index}.conv1", 16, 16)], f"{index}.relu1")
        x = s.node("Add", [s.conv(y, f"{index}.conv2", 16, 16), x], f"{index}.add")
        x = s.node("Relu", [x], f"{index}.relu2")
    return s.classify(s.node("GlobalAveragePool", [x], "gap"), 16)


def test_sites_are_the_layers_and_shortcuts_that_the_plan_quantizes():
    sites, _, plan = found_in(residual())
    int8 = {layer.node for layer in plan if layer.precision == "int8"}
    shortcuts = {layer.node for layer in plan if layer.rule == "residual"}
    assert shortcuts and sites.keys() == int8 | shortcuts
    assert {name for name, site in sites.items() if site.shortcut} == shortcuts
    assert all(site.multiply_adds > 0 for site in sites.values())
    assert sites["a.conv2"].multiply_adds > sites["a.add"].multiply_adds


def test_the_same_place_in_repeated_blocks_is_alike_and_nothing_else_is():
    sites, _, _ = found_in(blocks(4))
    kinds = {}
    for name, site in sites.items():
        kinds.setdefault(site.alike, set()).add(name)
    repeated = [group for group in kinds.values() if len(group) > 1]
    assert sorted(map(sorted, repeated)) == [
        [f"{index}.{place}" for index in range(4)] for place in ("add", "conv1", "conv2")
    ]
    sites, _, _ = found_in(residual())
    assert sites["a.conv1"].alike != sites["b.conv1"].alike  # more channels
    assert sites["a.conv1"].alike != sites["a.conv2"].alike  # an Add comes after it


def test_links_join_what_feeds_and_what_shares():
    _, links, _ = found_in(residual())
    assert SiteLink("a.conv1", "a.conv2", "feeds") in links  # through a Relu
    assert SiteLink("a.conv2", "a.add", "feeds") in links
    assert SiteLink("stem", "a.conv1", "feeds") in links
    assert SiteLink("a.conv1", "a.add", "shares") in links  # both read the stem's output
    assert SiteLink("b.conv1", "b.down", "shares") in links
    assert not any({link.one, link.other} == {"stem", "b.conv2"} for link in links)
    names = {"a.conv1", "a.add"}
    assert len([link for link in links if {link.one, link.other} == names]) == 1
