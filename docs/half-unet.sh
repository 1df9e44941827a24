#!/usr/bin/env bash
# "Half the filters" again: teacher, student, control, ten pictures, curves, tables, memory, and maps of a tile.
#   bash docs/half-unet.sh DUBAI [OUT] [KEY=VALUE...]      DUBAI holds the folders "Tile 2" ...
# Hours on one core of a laptop. --force: their teacher hardly leads its control, and is to be seen doing so.
set -euo pipefail
data=$1 out=${2:-runs/half-unet}
segshrink distill configs/ancestors/half-unet.yaml "data.root=$data" "${@:3}" --control --force --out "$out"
segshrink report "$out" --images 10
segshrink predict "$out" "$data/Tile 2/images/*.jpg" --out "$out/maps"
