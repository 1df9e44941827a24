#!/usr/bin/env bash
# The distillation challenge again: a separable U-Net on Pascal VOC, its teacher and its control.
#   bash docs/separable-unet.sh VOC2012 [OUT] [--teacher SOURCE] [KEY=VALUE...]      VOC2012 holds JPEGImages ...
# Hours on a CPU, minutes on a GPU; the teacher's weights are downloaded unless --teacher names another one.
set -euo pipefail
data=$1 out=${2:-runs/separable-unet}
segshrink distill configs/ancestors/separable-unet.yaml "data.root=$data" "${@:3}" --control --out "$out"
segshrink report "$out" --images 10
segshrink export "$out" --out "$out/student.onnx"
