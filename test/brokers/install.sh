#!/usr/bin/env bash
# Installs the servers that tests start (package test/brokers): what Debian and Ubuntu
# have as packages, and in bin/brokers Apache Kafka's jars and two imitations of AWS
# (fauxqs from npm, ministack in a Python environment). Starts nothing, and is done at once if everything is there.
#
#   install.sh              all of them
#   install.sh kafka redis  only these
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$here/../.." && pwd)/bin/brokers
ministack=1.5.33 fauxqs=1.9.2

known="fauxqs kafka ministack mosquitto postgres rabbitmq redis"
for name in "$@"; do
	case " $known " in
	*" $name "*) ;;
	*) echo "install.sh: there is no server $name; there are: $known" >&2; exit 2 ;;
	esac
done
wanted() { [ "$asked" = 0 ] || [[ " $names " == *" $1 "* ]]; }
asked=$# names=$*

have() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || compgen -G "/usr/lib/*/bin/$1" >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null; }

packages=()
need() { have "$1" || packages+=("$2"); }
if wanted redis; then need redis-server redis-server; fi
if wanted rabbitmq; then need rabbitmq-server rabbitmq-server; fi
if wanted postgres; then need initdb postgresql; fi
if wanted mosquitto; then need mosquitto mosquitto; fi
if wanted kafka; then
	need java default-jre-headless
	need mvn maven
fi
if wanted fauxqs; then
	need node nodejs
	need npm npm
fi
if wanted ministack; then
	need python3 python3
	python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
fi

if [ ${#packages[@]} -gt 0 ]; then
	if ! command -v apt-get >/dev/null; then
		cat >&2 <<EOF
install.sh: this is no Debian or Ubuntu. Install, by these or similar names:
  ${packages[*]}
so that their programs are in PATH, and run this again; or run the servers of
$here/compose.yaml and use them with make run (tests start their own).
EOF
		exit 1
	fi
	as_root=()
	[ "$(id -u)" = 0 ] || as_root=(sudo)
	echo "installing ${packages[*]}"
	# A package's service is not wanted: tests start servers of their own, on ports of
	# their own. This file is how Debian is told so (invoke-rc.d).
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
		"${as_root[@]}" chmod 755 $policy
		trap '"${as_root[@]}" rm -f $policy' EXIT
	fi
	"${as_root[@]}" apt-get update -qq
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

# What is made beside its place and then moved there is whole or not there at all.
if wanted kafka && ! cmp -s "$here/kafka.xml" "$bin/kafka/kafka.xml"; then
	echo "fetching Apache Kafka"
	rm -rf "$bin/kafka" "$bin/kafka.new"
	mvn -q -B -f "$here/kafka.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory="$bin/kafka.new/libs"
	cp "$here/kafka.xml" "$bin/kafka.new/"
	mv "$bin/kafka.new" "$bin/kafka"
fi
if wanted fauxqs && [ "$(cat "$bin/fauxqs/version" 2>/dev/null)" != "$fauxqs" ]; then
	major=$(node -p 'process.versions.node.split(".")[0]')
	if [ "$major" -lt 20 ]; then
		echo "install.sh: fauxqs needs Node.js 20 or newer, this is $(node -v): install a newer one by hand" >&2
		exit 1
	fi
	echo "fetching fauxqs $fauxqs"
	rm -rf "$bin/fauxqs" "$bin/fauxqs.new"
	mkdir -p "$bin/fauxqs.new"
	npm install --silent --no-fund --no-audit --prefix "$bin/fauxqs.new" "fauxqs@$fauxqs"
	echo "$fauxqs" >"$bin/fauxqs.new/version"
	mv "$bin/fauxqs.new" "$bin/fauxqs"
fi
if wanted ministack && [ "$(cat "$bin/ministack/version" 2>/dev/null)" != "$ministack" ]; then
	echo "fetching ministack $ministack"
	rm -rf "$bin/ministack" # not made elsewhere and moved: its programs hold its path
	mkdir -p "$bin"
	python3 -m venv "$bin/ministack"
	"$bin/ministack/bin/pip" install -q --disable-pip-version-check "ministack==$ministack"
	echo "$ministack" >"$bin/ministack/version"
fi
