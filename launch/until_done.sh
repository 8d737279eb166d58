#!/usr/bin/env bash
# Start a run again until it is done. Give up where another start cannot help.
#
#   launch/until_done.sh RUN COMMAND...
#   launch/until_done.sh runs/mine accelerate launch --config_file launch/node_8.yaml -m mvssl train recipes/mine.yaml train.out=runs/mine
#
# RUN is the run folder (train.out). RUN/exit.json has the run's exit code; launchers replace it by their own:
#   0                   done
#   75, 129, 143        hang, hang-up, SIGTERM: started again
#   killed              a process that ended without a code (kill -9, out of memory, a crash): started again
#   64, 65, 70, 73, 74  recipe, data, bug, folder, disk: the loop ends with that code, since a person must act
#   130                 Ctrl-C: the loop ends with 130
# After a launch without progress it waits $PAUSE seconds, then twice as long each time, at most 300 s. It gives up after
# three in a row. Progress is a newer checkpoint. A signal to this script is passed to the command and ends the loop.
set -uo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,6p' "$0" >&2
    exit 64
fi
run=$1
shift
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}
first_pause=${PAUSE:-5}

# Print the step of the newest checkpoint, or 0.
step() {
    local newest=0 folder number
    for folder in "$run"/checkpoints/step-*; do
        number=${folder##*step-}
        if [[ -d $folder && $number =~ ^[0-9]+$ ]] && ((10#$number > newest)); then newest=$((10#$number)); fi
    done
    echo "$newest"
}

# Print the code in RUN/exit.json if it is newer than file $1: a number, or "killed" if it is null; else nothing.
code() {
    [ "$run/exit.json" -nt "$1" ] || return 0
    sed -n 's/^ *"code": null.*/killed/p; s/^ *"code": \([0-9]*\).*/\1/p' "$run/exit.json"
}

say() { echo "until_done: $*" >&2; }

stop=
trap 'stop=143; kill -TERM "$child" 2>/dev/null' TERM
trap 'stop=130; kill -INT "$child" 2>/dev/null' INT
trap 'stop=129; kill -HUP "$child" 2>/dev/null' HUP
begun=$(mktemp)
trap 'rm -f "$begun"' EXIT

idle=0
pause=$first_pause
while :; do
    before=$(step)
    touch "$begun"
    "$@" &
    child=$!
    wait "$child"
    status=$?
    while kill -0 "$child" 2>/dev/null; do # a trap ends `wait` early
        wait "$child"
        status=$?
    done
    ended=$(code "$begun")
    ended=${ended:-$status}
    after=$(step)
    if [ "$ended" = 0 ]; then exit 0; fi
    if [ -n "$stop" ]; then exit "$stop"; fi
    case $ended in
        75 | 129 | 143 | killed) ;;
        13[0-9] | 14[0-9] | 15[0-9]) [ "$ended" != 130 ] || exit 130 ;; # a signal killed the command itself
        *)
            say "ended with $ended at step $after: see $run/exit.json"
            exit "$ended"
            ;;
    esac
    if [ "$after" -gt "$before" ]; then
        idle=0
        pause=$first_pause
    else
        idle=$((idle + 1))
    fi
    if [ "$idle" -ge 3 ]; then
        say "three launches without a new checkpoint, the last ended with $ended: see $run/exit.json"
        exit 75
    fi
    say "ended with $ended at step $after (before: $before), starts again in $pause s"
    sleep "$pause" &
    wait $!
    if [ -n "$stop" ]; then exit "$stop"; fi
    if [ "$idle" -gt 0 ]; then pause=$((pause * 2 > 300 ? 300 : pause * 2)); fi
done
