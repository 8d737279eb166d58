#!/usr/bin/env bash
# Start or continue the long runs with the papers' own settings, on one core at lowest priority. They can be stopped.
#
#   launch/paper_figures.sh FOLDER start mib dim    # these runs, one after the other, in the background
#   launch/paper_figures.sh FOLDER pause            # SIGSTOP, for example while something is timed
#   launch/paper_figures.sh FOLDER resume
#   launch/paper_figures.sh FOLDER stop             # saves and ends
#   launch/paper_figures.sh FOLDER collect          # copies metrics and figures to docs/paper_figures
#
# FOLDER is outside the checkout. It holds the code of one commit, its virtual environment, the run folders and the log.
# $MVSSL_DATA names the folder with the shards of mnist and cifar10.
# Each run trains to a milestone, is evaluated there, and continues. The learning rate is constant, so this is one run.
set -euo pipefail
commit=6684953
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
action=$2
shift 2

prepare() {
    [ -d "$folder/code" ] || git -C "$here" worktree add --detach "$folder/code" "$commit"
    if [ ! -x "$folder/venv/bin/mvssl" ]; then
        python3 -m venv "$folder/venv"
        "$folder/venv/bin/pip" install --quiet -e "$folder/code"
    fi
}

# milestones NAME STEPS RECIPE EVALUATION... -- OVERRIDES...
milestones() {
    local name=$1 steps=$2 recipe=$3 evaluation=()
    shift 3
    while [ "$1" != -- ]; do evaluation+=("$1"); shift; done
    shift
    for step in $steps; do
        mvssl train "recipes/$recipe.yaml" "$@" train.steps="$step" train.out="$folder/runs/$name" \
            optim.schedule=constant data.workers=0 train.log_every=1000 train.check_every=0 train.trackers=[]
        [ -f "$folder/runs/$name/at_$step.json" ] || mvssl evaluate "$folder/runs/$name" "${evaluation[@]}" \
            --no-baselines --json "$folder/runs/$name/at_$step.json"
    done
}

# Federici et al., ICLR 2020, arXiv:2002.07017: JSD, one rolled negative, beta to 1 between steps 50,000 and 150,000.
mib() {
    milestones mib "10000 30000 60000 100000 150000 200000 300000 450000 600000 750000 938000" mib_mnist --protocol mib -- \
        'objective={name: mib, beta_begin: 50000, beta_end: 150000}' data.batch_size=64 optim.lr=1e-4 train.save_every=5000
}

# Hjelm et al., ICLR 2019, arXiv:1808.06670: local InfoNCE; 391 steps an epoch, milestones at 3, 10, 30, 100, 200 epochs.
dim() {
    milestones dim "1173 3910 11730 39100 78200" dim_cifar10 --probe mlp -- train.epochs=null train.save_every=500
}

run() {
    export PATH="$folder/venv/bin:$PATH" OMP_NUM_THREADS=1 MVSSL_CACHE="$folder/cache"
    cd "$folder/code"
    for name in "$@"; do "$name"; done
}

case $action in
start)
    : "${MVSSL_DATA:?names the folder with the shards}"
    prepare
    # the lock is held by the whole session, and freed by the kernel however it ends
    exec 9>"$folder/.running"
    flock --nonblock 9 || { echo "the runs of $folder are under way"; exit 0; }
    setsid nice -n 19 "$here/launch/paper_figures.sh" "$folder" run "$@" </dev/null >>"$folder/log.txt" 2>&1 &
    echo $! >"$folder/pid"
    ;;
run) run "$@" ;;
pause) kill -STOP -- "-$(cat "$folder/pid")" ;;
resume) kill -CONT -- "-$(cat "$folder/pid")" ;;
stop) kill -CONT -- "-$(cat "$folder/pid")" && pkill -TERM -s "$(cat "$folder/pid")" -f mvssl ;;
collect)
    mkdir -p "$here/docs/paper_figures"
    for run in "$folder"/runs/*/; do
        name=$(basename "$run")
        cp "$run/metrics.jsonl" "$here/docs/paper_figures/$name.jsonl"
        for figures in "$run"at_*.json; do
            # records name the run by its whole path, which says nothing elsewhere
            [ -f "$figures" ] && sed "s#$folder/##g" "$figures" >"$here/docs/paper_figures/${name}_$(basename "$figures")"
        done
    done
    ;;
*) sed -n '2,13p' "$0"; exit 64 ;;
esac
