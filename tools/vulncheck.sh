#!/bin/sh
# Looks the dependencies of Go modules up in the vulnerability database, or where
# that can't be reached in a copy of it (vulndb.sh).
#
#   tools/vulncheck.sh <database> <module directory>...
#
# A vulnerability that the code can reach fails. If there is no copy either, that is
# said loudly, and fails in CI ($CI is set) unless VULNDB_OFFLINE_OK=1: a check that
# didn't take place must not look like one that passed.
set -eu

database=$1
shift
govulncheck=$PWD/bin/govulncheck
copied=

# What is looked at is the project, with the Go that go.mod names, and not the older
# one that may be on this machine.
if GOTOOLCHAIN=auto go version >/dev/null 2>&1; then
	export GOTOOLCHAIN=auto
else
	export GOTOOLCHAIN=local
	echo "the Go version that go.mod names can't be had; looking at $(go env GOVERSION)" >&2
fi

check() { # module
	status=0
	output=$(cd "$1" && "$govulncheck" -db "$database" ./... 2>&1) || status=$?
}

# databaseTrouble: anything but trouble with the database is trouble with the code.
databaseTrouble() {
	case $output in
	*"fetching vulnerabilities"* | *"$database"*) return 0 ;;
	esac
	return 1
}

for module in "$@"; do
	check "$module"
	if [ "$status" != 0 ] && [ "$status" != 3 ] && [ -z "$copied" ] && databaseTrouble; then
		if copy=$(tools/vulndb.sh bin/vulndb); then
			echo "$database can't be reached; looking into the copy $(basename "$copy")"
			database=file://$copy
			copied=1
			check "$module"
		fi
	fi
	case $status in
	0)
		echo "govulncheck $module: nothing that is reached"
		;;
	3) # documented: vulnerabilities found
		echo "$output"
		exit 3
		;;
	*)
		echo "$output" >&2
		databaseTrouble || exit "$status"
		echo >&2
		echo "!!! VULNERABILITIES WERE NOT CHECKED: $database could not be consulted, or no copy be made." >&2
		echo "!!! Set GOVULNDB to a mirror or a copy of it." >&2
		if [ -n "${CI:-}" ] && [ "${VULNDB_OFFLINE_OK:-}" != 1 ]; then
			echo "!!! In CI that fails; VULNDB_OFFLINE_OK=1 accepts it." >&2
			exit 1
		fi
		exit 0
		;;
	esac
done
