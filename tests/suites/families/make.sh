#!/bin/sh
# Builds the images of build.py below FOLDER, and writes their traits where the tests of `dna` read them: make.sh FOLDER MAYFLY
set -eu
here=$(dirname "$(realpath "$0")") folder=$1 mayfly=$2
"$here/build.py" "$folder"
for image in "$folder"/*/images/*/; do
  name=$(basename "$image")
  "$mayfly" kin "oci:${image%/}" --known "$folder" --format traits -o "$here/../../../dna/src/family/data/$name.json"
done
