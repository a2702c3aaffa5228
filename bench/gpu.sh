#!/usr/bin/env bash
# Checks and measures the libtorch backend on a device, beside PyTorch: bench/gpu.sh [cuda:0 | mps | libtorch-cpu]
#
# Tests of operations, fixtures and steps; then time, memory and share of the peak of pre-training steps in bf16 and f32, beside a
# PyTorch script on the same device in turn, eager, with fused attention, and compiled; then steps with graphs and in TF32, and the
# kernels of a step. Results are in bench/results/gpu. On libtorch-cpu sizes are tiny: that shows that this script works, and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${1:-cuda:0}
out=bench/results/gpu
mkdir -p "$out"

# a build that is there already, and the profile of the tests, may be named
profile=${SIMMIM_TEST_PROFILE:-release}
if [ -z "${SIMMIM_BENCH_BINARY:-}" ]; then
    cargo xtask libtorch
    export SIMMIM_BENCH_BINARY=target/release/simmim
fi
export SIMMIM_BENCH_VENV=${SIMMIM_LIBTORCH_VENV:-$PWD/target/libtorch}

echo "── tests on $device"
SIMMIM_LIBTORCH_DEVICE=$device cargo xtask libtorch test --profile "$profile" 2>&1 | tee "$out/tests.txt"

if [ "$device" = libtorch-cpu ]; then
    sizes=(--workloads vit-cifar swin-t --batch 2 --rounds 1 --steps 1 --ways eager sdpa)
    recipes=(pretrain-vit-cifar pretrain-swin-t-192) batch=2
else
    # these batches fit into 80 GB; a card is full at some other, which --batch of compare.py sets
    sizes=(--workloads vit-b-gpu swin-b-gpu swinv2-b-gpu --rounds 3 --steps 20 --ways eager sdpa compile compile-sdpa)
    recipes=(pretrain-vit-b16-224 pretrain-swin-b-192 pretrain-swinv2-b-192) batch=128
fi

echo "── steps beside PyTorch"
python3 bench/compare.py --device "$device" --what step --out "$out" "${sizes[@]}"

echo "── profile of a step"
for recipe in "${recipes[@]}"; do
    command=("$SIMMIM_BENCH_BINARY" bench --recipe "$recipe" --device "$device" --set "train.batch_size=$batch" --steps 1)
    "${command[@]}" | tee "$out/$recipe.txt"
    if [ "${device%%:*}" = cuda ]; then
        "${command[@]}" --graphs | tee "$out/$recipe-graphs.txt"
        "${command[@]}" --precision f32 --tf32 | tee "$out/$recipe-tf32.txt"
    fi
    if command -v nsys >/dev/null && [ "${device%%:*}" = cuda ]; then
        nsys profile --force-overwrite true --output "$out/$recipe" --stats true "${command[@]}" > "$out/$recipe-nsys.txt"
    else
        echo "there is no nsys here, so that kernels are not listed"
    fi
done
echo "results are in $out"
