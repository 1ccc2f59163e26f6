"""A throw-away cluster of Ray on this machine, apart from the tests' process: it prints its address, and then obeys
lines: `add` starts a node of one CPU, and `kill` kills, without warning, the one that was started last. Arguments are
settings of its first node, as JSON.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def main() -> None:
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}
    given = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    cluster = Cluster(initialize_head=True, head_node_args=node | given)
    print(cluster.address, flush=True)
    nodes = []
    for line in sys.stdin:
        if line.strip() == "add":
            nodes.append(cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=80 << 20))
        else:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
