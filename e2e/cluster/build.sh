# shellcheck shell=bash
# What kcl runs on: Kubernetes' binaries out of Go modules, images out of Debian packages, and one unpacked copy of the
# images that all nodes of all clusters take as hard links. Sourced by kcl. Everything here is shared by all clusters and
# named by the content it was made from, so it is made once, and two checkouts with different versions do not fight:
#   bin/HASH        programs, HASH over the two Go modules          bin/HASH/.NAME   "this part is done"
#   img/NAME-HASH   image archives, HASH over their recipe          golden/HASH      a containerd root, HASH over the images
# A build that was cut short goes on where it was (Go's own cache holds what was compiled).

NEED="ca-certificates conntrack e2fsprogs ethtool gcc ipset iproute2 iptables jq libc6-dev libseccomp-dev mmdebstrap nftables openssl pkg-config procps python3 socat util-linux"
POSTGRES_IMAGES="17:trixie 15:bookworm"      # major:Debian release that packages it

say() { echo "kcl: $*" >&2; }
hash12() { sha256sum | cut -c1-12; }
bin_stamp() { cat "$KIT"/k8s/* "$KIT"/side/* | hash12; }

deps() {
  # shellcheck disable=SC2086
  dpkg-query -W -f '${db:Status-Status}\n' $NEED 2>/dev/null | sort -u | grep -qx installed &&
    [ "$(dpkg-query -W -f '.\n' $NEED 2>/dev/null | wc -l)" -ge "$(wc -w <<<"$NEED")" ] && return
  command -v apt-get >/dev/null || die "these Debian packages are missing and there is no apt-get: $NEED"
  say "installing Debian packages: $NEED"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $NEED; } >"$P/log/apt.log" 2>&1 ||
    { tail -n 20 "$P/log/apt.log" >&2; die "could not install the packages above"; }
}

# step NAME SECONDS-WHEN-COLD WHAT CMD…: run CMD once per content, with a line every 30 s; its output is in log/build-NAME.log
step() {
  local name=$1 cold=$2 what=$3 t0=$SECONDS log=$P/log/build-$1.log pid; shift 3
  [ -e "$B/.$name" ] && return
  say "$what: building (about $cold s of two idle cores when nothing is cached)"
  "$@" >"$log" 2>&1 &
  pid=$!
  while kill -0 $pid 2>/dev/null; do
    sleep 1
    [ $(((SECONDS - t0) % 30)) = 29 ] && say "$what: $(grep -cE '^[a-z0-9.-]+(/|$)' "$log") packages compiled, $((SECONDS - t0)) s"
  done
  wait $pid || { tail -n 20 "$log" >&2; die "$what: the build failed, all of its output is in $log"; }
  touch "$B/.$name"
  say "$what: done in $((SECONDS - t0)) s"
}
build_kube() {
  local v x=k8s.io/component-base/version
  v=$(awk '{for(i=1;i<NF;i++) if($i=="k8s.io/kubernetes"){sub(/^v/,"",$(i+1)); print $(i+1); exit}}' "$KIT/k8s/go.mod")
  cd "$KIT/k8s" && go build -v -ldflags "-s -w -X $x.gitVersion=v$v -X $x.gitMajor=1 -X $x.gitMinor=$(cut -d. -f2 <<<"$v") -X $x.gitTreeState=clean" -o "$B/kube" . &&
    "$B/kube" kubectl version --client || return
  for i in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do ln -sf kube "$B/$i"; done
}
build_side() {
  cd "$KIT/side" && go build -v -ldflags "-s -w" -o "$B/side" . || return
  for i in etcd containerd ctr coredns; do ln -sf side "$B/$i"; done
}
build_tools() { # the shim and the provisioner must not share one go build: logrus is imported with two spellings ("case-insensitive import collision")
  cd "$KIT/side" && mkdir -p "$B/cni" &&
    go build -v -ldflags "-s -w" -o "$B/cni/" github.com/containernetworking/plugins/plugins/{ipam/host-local,main/bridge,main/loopback,meta/portmap} &&
    go build -v -ldflags "-s -w" -o "$B/" github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 &&
    go build -v -ldflags "-s -w" -o "$B/" github.com/rancher/local-path-provisioner &&
    CGO_ENABLED=1 go build -v -tags seccomp -ldflags "-s -w" -o "$B/" github.com/opencontainers/runc
}

build() {
  local t0=$SECONDS
  need_root
  B=$P/bin/$(bin_stamp)                       # of this checkout, even while a cluster of another one is up
  mkdir -p "$B" "$P/log" "$P/img" "$P/golden"
  exec 8>"$P/build.lock"
  flock -n 8 || { say "another build is running in $P; waiting for it"; flock 8; }
  deps
  command -v go >/dev/null || die "building Kubernetes needs Go $(awk '$1=="go"{print $2}' "$KIT/k8s/go.mod") or newer in the PATH; there is none"
  export GOFLAGS="-buildvcs=false -mod=readonly -trimpath" CGO_ENABLED=0 GOTOOLCHAIN=local
  [ -n "$KCL_OWN_CACHE" ] && export GOMODCACHE=$P/cache/mod GOCACHE=$P/cache/go
  ( images ) & local img=$!                   # mostly waiting for the package mirror: beside the compiler
  ( step kube 400 "Kubernetes" build_kube && step side 120 "etcd, containerd, CoreDNS" build_side && step tools 40 "runc, CNI, volume provisioner" build_tools )
  local rc=$?
  wait $img || die "the images could not be made, see $P/log"
  [ $rc = 0 ] || exit $rc
  touch "$B/ok"
  golden
  prune
  say "ready in $((SECONDS - t0)) s: programs in $B, images in $P/img"
}

# ---- images ----

image_file() { echo "$P/img/$1-$(image_stamp "$1").img"; }
image_stamp() {
  case $1 in
    postgres-*) { echo "$1 $(suite_of "${1#*-}")"; cat "$KIT/postgres-rootfs.py" "$OCI"; declare -f postgres_image; } ;;
    *) { echo "$1"; cat "$KIT/pause.c" "$OCI"; declare -f pause_image; } ;;
  esac | hash12
}
suite_of() { tr ' ' '\n' <<<"$POSTGRES_IMAGES" | sed -n "s/^$1://p"; }
image_names() { echo pause nothing; for i in $POSTGRES_IMAGES; do echo "postgres-${i%:*}"; done; }
images() {
  local n f
  for n in $(image_names); do
    f=$(image_file "$n")
    [ -f "$f" ] && continue
    say "image $n: building"
    case $n in
      postgres-*) postgres_image "${n#*-}" "$(suite_of "${n#*-}")" "$f" ;;
      *) pause_image "$n" "$f" ;;
    esac >"$P/log/image-$n.log" 2>&1 || { tail -n 20 "$P/log/image-$n.log" >&2; die "image $n could not be made, see $P/log/image-$n.log"; }
    say "image $n: done"
  done
}
# One static program that sleeps. As `pause` it holds pods' namespaces, as `nothing` it is the image that is not PostgreSQL.
pause_image() {
  local w; w=$(mktemp -d "$P/img/tmp.XXXXXX")
  mkdir "$w/root" && gcc -static -Os -s "$KIT/pause.c" -o "$w/root/pause" &&
    tar cf "$w/root.tar" --owner=0 --group=0 --mtime=@0 --sort=name -C "$w/root" . &&
    python3 "$OCI" "docker.io/local/$1:1" "$2" "$w/root.tar" --user 65534 --entrypoint /pause
  local rc=$?; rm -rf "$w"; return $rc
}
# The official image's name, so that examples run on the test cluster as they are; from the packages of this machine's own Debian mirror.
postgres_image() { # MAJOR SUITE FILE
  local mirror w
  mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1)
  [ -n "$mirror" ] || mirror=$(sed -n 's/^deb \(\[.*\] \)\?\([^ ]*\).*/\2/p' /etc/apt/sources.list 2>/dev/null | head -1)
  [ -n "$mirror" ] || { echo "no Debian mirror in /etc/apt/sources.list or sources.list.d/debian.sources"; return 1; }
  w=$(mktemp -d "$P/img/tmp.XXXXXX"); chmod 755 "$w"; mkdir "$w/t"
  # The package manager syncs after every file: in memory that is free. The mount is this process's own.
  unshare --mount --propagation private sh -c 'mount -t tmpfs -o size=3g,mode=755 tmpfs "$0"; TMPDIR=$0 exec mmdebstrap "$@"' "$w/t" --variant=essential \
    --include="ca-certificates,postgresql-$1" --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook='mkdir -p $1/etc/postgresql-common; echo create_main_cluster=false > $1/etc/postgresql-common/createcluster.conf' \
    "$2" "$w/raw.tar" "$mirror" &&
    python3 "$KIT/postgres-rootfs.py" "$1" "$w/raw.tar" "$w/root.tar" &&
    python3 "$OCI" "docker.io/library/postgres:$1" "$3" "$w/root.tar" --stop-signal SIGINT --label "org.opencontainers.image.title=PostgreSQL $1 (Debian packages, for tests)" \
      --env "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/$1/bin" --env LANG=C.UTF-8 --env "PG_MAJOR=$1" --env PGDATA=/var/lib/postgresql/data \
      --entrypoint docker-entrypoint.sh --cmd postgres
  local rc=$?; rm -rf "$w"; return $rc
}

# ---- the unpacked images ----

golden_dir() { echo "$P/golden/$(for n in $(image_names); do image_file "$n"; done | hash12)"; }
# A containerd root with the images unpacked; nodes take hard links of its content and snapshots, which nobody changes.
golden() {
  local g; g=$(golden_dir)
  ( flock 7; [ -d "$g" ] && touch "$g" || unpack "$g" ) 7>"$P/golden.lock" || exit 1
}
unpack() { # TARGET
  local n c w run
  say "unpacking the images"
  rm -rf "$P"/golden/tmp.*; w=$(mktemp -d "$P/golden/tmp.XXXXXX"); run=$(mktemp -d /tmp/kcl.XXXXXX)   # a socket's path must be short
  printf 'version = 3\nroot = "%s"\nstate = "%s"\ndisabled_plugins = ["io.containerd.grpc.v1.cri","io.containerd.cri.v1.images","io.containerd.cri.v1.runtime","io.containerd.nri.v1.nri"]\n[grpc]\naddress = "%s"\n[plugins."io.containerd.internal.v1.opt"]\npath = "%s"\n' \
    "$w/root" "$run/state" "$run/s.sock" "$run/opt" >"$run/c.toml"
  unshare --net --mount --propagation private "$B/containerd" -c "$run/c.toml" >"$P/log/golden.log" 2>&1 7>&- 8>&- & c=$!
  for n in $(seq 150); do "$B/ctr" -a "$run/s.sock" version >/dev/null 2>&1 && break; sleep .1; done
  for n in $(image_names); do
    "$B/ctr" -a "$run/s.sock" -n k8s.io images import "$(image_file "$n")" >>"$P/log/golden.log" 2>&1 ||
      { kill $c; rm -rf "$run" "$w"; tail -n 5 "$P/log/golden.log" >&2; die "image $n could not be unpacked, see $P/log/golden.log"; }
  done
  kill $c; wait $c 2>/dev/null
  mv "$w/root" "$1"; rm -rf "$run" "$w"
}
# golden_copy TARGET: a node's containerd root
golden_copy() {
  local g d=$1; g=$(golden_dir)
  ( flock -s 7; cd "$g" || exit
    mkdir -p "$d.part"
    for i in *; do case $i in io.containerd.content.v1.content|io.containerd.snapshotter.v1.overlayfs) cp -al "$i" "$d.part/";; *) cp -a "$i" "$d.part/";; esac; done
    cp --remove-destination -a io.containerd.snapshotter.v1.overlayfs/metadata.db "$d.part/io.containerd.snapshotter.v1.overlayfs/"
    mv "$d.part" "$d" ) 7>"$P/golden.lock"
}

# What no cluster runs on and nobody used for a week: older versions, or those of another checkout.
prune() {
  local i keep=" $B $(golden_dir) "
  for i in "$P"/run/*/bin; do [ -f "$i" ] && keep+="$(cat "$i") "; done
  for i in $(image_names); do keep+="$(image_file "$i") "; done
  find "$P/bin" "$P/img" "$P/golden" -mindepth 1 -maxdepth 1 -mtime +7 | while read -r i; do
    [[ $keep == *" $i "* ]] || flock "$P/golden.lock" rm -rf "$i"
  done
}
