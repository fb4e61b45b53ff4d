#!/bin/sh
# Compile here, run there without compiling: warm, verify, pack, unpack elsewhere, run.
#
#   examples/warm_and_ship.sh [MODEL [DEVICE [FOLDER]]]
#
# DEVICE is CPU, GPU, ... or intel:dg2, a GPU that need not be in the machine: all but the last step
# works for it. FOLDER keeps what is made. CLINFER names the command, if it is not `clinfer`.
set -eu
umask 077

model=${1:-examples/digits.onnx}
device=${2:-CPU}
folder=${3:-$(mktemp -d)}
clinfer=${CLINFER:-clinfer}
mkdir -p "$folder/here" "$folder/there"

echo "== the device, as a file that any machine can check against"
$clinfer devices --device "$device" --lock "$folder/device.lock"

echo "== warm: compile everything the model needs"
$clinfer warm "$model" --device "$device" --cache-dir "$folder/here/cache"

echo "== verify: nothing is missing (exit code 0), told without the device"
$clinfer verify "$model" --device "@$folder/device.lock" --cache-dir "$folder/here/cache"

echo "== pack: one signed file"
test -f "$folder/here/key" || $clinfer pack --new-key "$folder/here/key"
$clinfer pack "$model" --device-lock "$folder/device.lock" --cache-dir "$folder/here/cache" \
    --key "$folder/here/key" --name "example" -o "$folder/example.clpack"

echo "== unpack elsewhere: only what the trusted key has signed"
export CLINFER_TRUST_FILE="$folder/there/accepted.json"
$clinfer unpack "$folder/example.clpack" --trust "$folder/here/key.pub" \
    --cache-dir "$folder/there/cache"
$clinfer verify "$model" --device "@$folder/device.lock" --cache-dir "$folder/there/cache"

case $device in
    intel:*)
        echo "== the run is left to a machine with the GPU"
        ;;
    *)
        echo "== run there: anything that would compile is an error"
        CLINFER_CACHE_MODE=cache-only CLINFER_CACHE_DIR="$folder/there/cache" \
            $clinfer run "$model" --device "$device"
        ;;
esac
