#!/usr/bin/env bash
# From a folder that nobody has described to a distilled, compressed model that opens in a browser.
#   bash docs/three-commands.sh FOLDER [OUT] [KEY=VALUE...]      FOLDER holds images and masks
# $BUDGET names other limits, $FAMILIES the networks to look at. OUT/small/map.html is the model as a page,
# OUT/small/model.onnx the file, OUT/student/report.html the comparison.
set -euo pipefail
folder=$1 out=${2:-runs}
segshrink init "$folder" --yes --out "$out"
segshrink distill "$out/recipe.yaml" "${@:3}" --control --out "$out/student"
segshrink compress "$out/recipe.yaml" "${@:3}" --teacher "$out/student/teacher-run" ${FAMILIES:+--families "$FAMILIES"} \
  --budget "${BUDGET:-size<=1MB,drop<=5.0}" --out "$out/small"
