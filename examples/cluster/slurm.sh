#!/bin/bash
# One experiment on Slurm's nodes: a Ray head on the first, a worker on each other one, the driver beside the head.
#   sbatch examples/cluster/slurm.sh my-experiment.yaml /shared/runs/mine
# Where the time is over, submit it again: the run goes on where it was. The run folder lies where all nodes see it.
#SBATCH --job-name=elastibench
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=4
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
experiment=$1 output=$2
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token HF_HUB_OFFLINE=1
export RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(head -c 32 /dev/urandom | sha256sum | cut -c1-64)}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=$(srun --nodes=1 --ntasks=1 -w "${nodes[0]}" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))
start=(ray start --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_PER_TASK:-0}" --block)

srun --overlap --nodes=1 --ntasks=1 -w "${nodes[0]}" "${start[@]}" --head --node-ip-address="$address" --port="$port" &
sleep 20
for node in "${nodes[@]:1}"; do
  srun --overlap --nodes=1 --ntasks=1 -w "$node" "${start[@]}" --address="$address:$port" &
done
sleep 20

export RAY_ADDRESS=$address:$port
srun --overlap --nodes=1 --ntasks=1 -w "${nodes[0]}" elastibench run "$experiment" --output "$output" --ray auto
