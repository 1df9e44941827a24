#!/usr/bin/env bash
# From a folder that nobody has described to a distilled, compressed model that opens in a browser.
#   bash docs/three-commands.sh FOLDER [KEY=VALUE...]      FOLDER holds images and masks
# Everything is written into the working folder: runs/NAME-small/map.html is the model as a page,
# runs/NAME-small/model.onnx the file, runs/NAME/report.html the comparison. $BUDGET names other limits, $FAMILIES the
# networks to look at. It goes on where the teacher hardly leads (--force), and the report says so.
set -euo pipefail
segshrink init "$1" --yes
segshrink distill recipe.yaml "${@:2}" --control --force
segshrink compress recipe.yaml "${@:2}" ${BUDGET:+--budget "$BUDGET"} ${FAMILIES:+--families "$FAMILIES"}
