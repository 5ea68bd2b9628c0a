#!/usr/bin/env bash
# Makes images of mosquitto and nats-server from programs on this machine, for
# places that reach no image registry. Prints the settings that name them.
set -euo pipefail
cd "$(dirname "$0")"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# nats-server is one static file.
mkdir -p "$root/nats/tmp"
CGO_ENABLED=0 go build -C ../.. -o "$root/nats/nats-server" github.com/nats-io/nats-server/v2
tar -C "$root/nats" -c . |
	docker import -c 'ENTRYPOINT ["/nats-server"]' - fleetcast-test/nats:local >/dev/null

# mosquitto needs its libraries, a place to write and a user to be.
mosquitto=$(command -v mosquitto || echo /usr/sbin/mosquitto)
mkdir -p "$root/mosquitto"/{usr/sbin,etc,mosquitto/data,mosquitto/config,tmp}
cp "$mosquitto" "$root/mosquitto/usr/sbin/mosquitto"
ldd "$mosquitto" | grep -oE '/[^ ]+' | while read -r library; do
	mkdir -p "$root/mosquitto$(dirname "$library")"
	cp -L "$library" "$root/mosquitto$library"
done
# Names and hosts are looked up through these.
for library in /lib/*-linux-gnu/libnss_{files,dns}.so.2; do
	[[ -e $library ]] && cp -L "$library" "$root/mosquitto$(dirname "$library")/"
done
echo 'root:x:0:0:root:/:/bin/false' >"$root/mosquitto/etc/passwd"
echo 'root:x:0:' >"$root/mosquitto/etc/group"
tar -C "$root/mosquitto" -c . |
	docker import -c 'ENTRYPOINT ["/usr/sbin/mosquitto"]' - fleetcast-test/mosquitto:local >/dev/null

echo 'export FLEETCAST_NATS_IMAGE=fleetcast-test/nats:local'
echo 'export FLEETCAST_MOSQUITTO_IMAGE=fleetcast-test/mosquitto:local'
