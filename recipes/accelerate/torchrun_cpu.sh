#!/usr/bin/env bash
# Two processes on the cores of one machine (gloo): bash recipes/accelerate/torchrun_cpu.sh RECIPE [--key value ...]
# Tested: tests/distributed, which compares two such processes with one. `accelerate launch --cpu` starts one process.
set -euo pipefail
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
python -m torch.distributed.run --nproc_per_node "${PROCESSES:-2}" --master_addr 127.0.0.1 \
    -m hf_mtl.cli train "$@" --use_cpu true
