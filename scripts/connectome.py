"""Measure the wiring of C. elegans as a graph: python scripts/connectome.py WHEEL.

WHEEL is that of the C. elegans Connectome Toolbox (OpenWorm, MIT licence), from pip download --no-deps cect==0.3.5. It
holds the neurons and synapses of L. R. Varshney et al., "Structural properties of the Caenorhabditis elegans neuronal
network", 2011. It is read as an archive: nothing of it is installed, because it pins versions that modulab is beyond.
"""

import json
import sys
import zipfile

import numpy as np
import torch

from modulab.metrics.communities import searches
from modulab.metrics.communities.agreement import num_modules, stability
from modulab.metrics.graphs.comparison import compare
from modulab.metrics.graphs.graph import directed_graph
from modulab.metrics.graphs.nulls import shuffled_graphs
from modulab.metrics.graphs.scores import newman_modularity
from modulab.streams import member_keys

DATA = "cect/cache/VarshneyDataReader.json"
RESTARTS, SHUFFLES = 10, 50

if len(sys.argv) != 2:
    sys.exit(__doc__)
try:
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        wiring = json.loads(wheel.read(DATA))
except (OSError, zipfile.BadZipFile, KeyError) as error:
    sys.exit(f"error: {sys.argv[1]}: it is not the wheel of cect ({error}).\n\n{__doc__}")
chemical, gap = (np.array(wiring["connections"][kind]) for kind in ("Generic_CS", "Generic_GJ"))
directed = chemical + gap / 2  # each gap junction leads half of itself in either direction
np.fill_diagonal(directed, 0.0)
weights = directed + directed.T
print(f"{len(weights)} neurons, {chemical.sum():g} chemical synapses, {gap.sum() / 2:g} gap junctions")


def modularity(adjacency: np.ndarray, labels: np.ndarray) -> float:
    return float(newman_modularity(torch.from_numpy(adjacency)[None], torch.from_numpy(labels)[None]))


found = [searches.louvain(weights, seed) for seed in range(RESTARTS)]
scores = [modularity(weights, labels) for labels in found]
best = found[int(np.argmax(scores))]
graph = directed_graph(torch.from_numpy(directed)[None])
print(f"Louvain: {num_modules(best)} modules, Q = {max(scores):.3f}, stability {stability(found):.2f}")
for kind in ("layer", "degree"):
    shuffled = shuffled_graphs(graph, member_keys([0]), kind, range(SHUFFLES)).adjacency().numpy()
    symmetric = shuffled + shuffled.transpose(0, 2, 1)
    null = [modularity(each, searches.louvain(each, seed)) for seed, each in enumerate(symmetric)]
    against = compare(torch.tensor(scores[:1]).double(), torch.tensor([null]).double(), rises=True)
    words = "shuffled edges" if kind == "layer" else "shuffles that keep degrees"
    print(f"  {words}: Q = {float(against.mean):.3f}, z = {float(against.z):.1f}, p = {float(against.p):.3f}")
blocks = [searches.block_model(weights, seed) for seed in range(3)]
saved = [searches.nats_saved(weights, labels) for labels in blocks]
best = blocks[int(np.argmax(saved))]
print(
    f"Block model: {num_modules(best)} modules, {max(saved):.0f} nats saved, stability {stability(blocks):.2f}"
)
