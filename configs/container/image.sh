#!/usr/bin/env bash
# Makes a container image of one static binary in an empty root: an archive that `podman load -i`,
# `docker load -i` and `skopeo copy oci-archive:FILE …` take. Needs no daemon and no right.
#
#   configs/container/image.sh [--binary FILE] [ARCHIVE]
#
# Builds the binary unless it is given, which wants rustup and Debian's musl-tools, and the network for what
# they have not yet. ARCHIVE is hybridwg.tar if it is not named. The same binary gives the same archive, to
# the byte.
set -euo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
binary=
if [[ ${1:-} == --binary ]]; then
    binary=${2:?--binary needs a file}
    shift 2
fi
archive=$(realpath -m "${1:-hybridwg.tar}")
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$repository/Cargo.toml" | head -n 1)

case $(uname -m) in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
*) echo "image.sh: no name is known for the architecture $(uname -m)" >&2 && exit 1 ;;
esac

if [[ -z $binary ]]; then
    # musl, because a static glibc cannot look up names.
    target=$(uname -m)-unknown-linux-musl
    (cd "$repository" && rustup target add "$target" && cargo build --release --target "$target")
    binary=$repository/target/$target/release/hybridwg
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root layout=$work/layout
mkdir -p "$layout/blobs/sha256"

# Everything that is in the image. /run is for sockets, and for whoever mounts nothing there.
mkdir -p "$root/etc/wireguard" "$root/run" "$root/var"
ln -s ../run "$root/var/run"
install -m 0755 "$binary" "$root/hybridwg"
chmod 0755 "$root" "$root/etc" "$root/etc/wireguard" "$root/var"
chmod 1777 "$root/run"

# Makes a tar of a folder that depends on nothing but its content.
pack() {
    (cd "$1" && tar --create --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime=@0 -- *)
}

# Puts standard input among the blobs and prints its digest.
blob() {
    local digest
    cat >"$work/blob"
    digest=$(sha256sum "$work/blob" | cut -d ' ' -f 1)
    mv "$work/blob" "$layout/blobs/sha256/$digest"
    echo "$digest"
}

size() { stat -c %s "$layout/blobs/sha256/$1"; }

layer_content=$(pack "$root" | sha256sum | cut -d ' ' -f 1)
layer=$(pack "$root" | gzip -9n | blob)

config=$(blob <<JSON
{"architecture":"$architecture","os":"linux","config":{"User":"65534:65534","Env":["PATH=/","LOG_LEVEL=info"],\
"Entrypoint":["/hybridwg"],"Cmd":["up","--foreground","--watch","wg0"],\
"WorkingDir":"/","StopSignal":"SIGTERM","Labels":{"org.opencontainers.image.title":"hybridwg",\
"org.opencontainers.image.version":"$version","org.opencontainers.image.licenses":"MIT OR Apache-2.0"}},\
"rootfs":{"type":"layers","diff_ids":["sha256:$layer_content"]}}
JSON
)

manifest=$(blob <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",\
"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$(size "$config")},\
"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$(size "$layer")}]}
JSON
)

# containerd, so kind and k3s, and podman take the whole name, as which a cluster looks for hybridwg:VERSION.
cat >"$layout/index.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{\
"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$(size "$manifest"),\
"platform":{"architecture":"$architecture","os":"linux"},\
"annotations":{"io.containerd.image.name":"docker.io/library/hybridwg:$version",\
"org.opencontainers.image.ref.name":"hybridwg:$version"}}]}
JSON
echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
# For `docker load`, which looks here.
cat >"$layout/manifest.json" <<JSON
[{"Config":"blobs/sha256/$config","RepoTags":["hybridwg:$version"],"Layers":["blobs/sha256/$layer"]}]
JSON

chmod -R u=rwX,go=rX "$layout"
pack "$layout" >"$archive"
echo "$archive: hybridwg:$version, $(size "$layer") bytes compressed, $(stat -c %s "$root/hybridwg") of them the binary before"
