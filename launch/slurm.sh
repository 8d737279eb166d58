#!/usr/bin/env bash
#SBATCH --job-name=mvssl
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@180
# Start a run under Slurm. It saves before its time is over, and goes back into the queue.
#
#   sbatch launch/slurm.sh RECIPE RUN [table.key=value ...]
#
# Slurm sends SIGTERM to this script (B:) 180 s before the end, and at preemption. The script passes it on to srun's
# tasks. The run finishes its step, saves and ends with 143. Change nodes, GPUs and times above to fit your cluster.
# Change both times together: TORCH_ELASTIC_SHUTDOWN_TIMEOUT (seconds to save) must be less than Slurm's 180 s.
# For several nodes set --nodes, and num_machines and num_processes of launch/multi_node.yaml.
set -uo pipefail

if [ $# -lt 2 ]; then
    echo "usage: sbatch launch/slurm.sh RECIPE RUN [table.key=value ...]" >&2
    exit 64
fi
recipe=$1
run=$2
shift 2
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=150
if [ "${SLURM_NNODES:-1}" -gt 1 ]; then
    config=launch/multi_node.yaml
    HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
else
    config=launch/node_8.yaml
    HEAD=127.0.0.1
fi
export HEAD

# Each task is the launcher of one node; $SLURM_PROCID is its rank.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 bash -c '
    config=$1
    shift
    exec accelerate launch --config_file "$config" --machine_rank "$SLURM_PROCID" --main_process_ip "$HEAD" -m mvssl train "$@"
' launcher "$config" "$recipe" "train.out=$run" "$@" &
child=$!
# srun passes one SIGTERM on to each of its tasks
trap 'kill -TERM "$child" 2>/dev/null' TERM
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do # a trap ends `wait` early
    wait "$child"
    status=$?
done

# Launchers replace exit codes, so read the run's own. null: the process was killed and could not write one.
code=$(sed -n 's/^ *"code": null.*/killed/p; s/^ *"code": \([0-9]*\).*/\1/p' "$run/exit.json" 2>/dev/null)
code=${code:-$status}
echo "slurm.sh: the run ended with $code" >&2
case $code in
    75 | 129 | 143 | killed)
        # requeue at most MOST_RESTARTS times
        if [ "${SLURM_RESTART_COUNT:-0}" -lt "${MOST_RESTARTS:-50}" ]; then
            scontrol requeue "$SLURM_JOB_ID"
            exit 0
        fi
        echo "slurm.sh: started ${SLURM_RESTART_COUNT} times, not again" >&2
        exit 75
        ;;
    0) exit 0 ;;
    *) exit "$code" ;;
esac
