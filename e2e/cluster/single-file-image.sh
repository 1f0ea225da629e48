#!/usr/bin/env bash
# Packs one static program as an image, without a base and without a builder.
#
#   single-file-image.sh PROGRAM IMAGE ARCHIVE
set -euo pipefail
program=$1 image=$2 archive=$3
name=${program##*/}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root" "$work/image"
cp -L "$program" "$work/root/$name"
tar --sort=name --owner=0 --group=0 --mtime=@0 -C "$work/root" -cf "$work/image/layer.tar" .
layer=$(sha256sum <"$work/image/layer.tar" | cut -d' ' -f1)
cat >"$work/image/config.json" <<JSON
{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/$name"]},"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
JSON
cat >"$work/image/manifest.json" <<JSON
[{"Config":"config.json","RepoTags":["$image"],"Layers":["layer.tar"]}]
JSON
tar -C "$work/image" -cf "$archive" .
