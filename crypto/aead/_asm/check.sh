#!/bin/sh
# Fails if the committed assembly of package aead is not what the generator writes.
set -eu
package=$(cd "$(dirname "$0")/.." && pwd)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
sh "$package/_asm/generate.sh" "$fresh/gcm_amd64.s" "$fresh/asm_amd64.go"
status=0
for file in gcm_amd64.s asm_amd64.go; do
	diff -u "$package/$file" "$fresh/$file" >&2 || status=1
done
[ $status = 0 ] || echo "crypto/aead: generated files differ; run go generate ./crypto/aead" >&2
exit $status
