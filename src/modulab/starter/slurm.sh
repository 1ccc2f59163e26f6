#!/usr/bin/env bash
# The experiment as shards on a SLURM cluster: ./slurm.sh PARTITION. Repeat the command to submit what is missing.
set -euo pipefail
cd "$(dirname "$0")"
modulab train -m experiment=noise hydra/launcher=population_slurm \
    hydra.launcher.partition="${1:?name a partition}" hydra.launcher.memory_gib=2 hydra.sweep.dir=outputs/cluster
