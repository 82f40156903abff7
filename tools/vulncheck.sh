#!/bin/sh
# Looks the dependencies of Go modules up in the vulnerability database.
#
#   tools/vulncheck.sh <database> <module directory>...
#
# A vulnerability that the code can reach fails. A database that can't be reached
# is said loudly, and fails in CI ($CI is set) unless VULNDB_OFFLINE_OK=1: a check
# that didn't take place must not look like one that passed.
set -eu

database=$1
shift
govulncheck=$PWD/bin/govulncheck

for module in "$@"; do
	status=0
	output=$(cd "$module" && "$govulncheck" -db "$database" ./... 2>&1) || status=$?
	case $status in
	0)
		echo "govulncheck $module: nothing that is reached"
		;;
	3) # documented: vulnerabilities found
		echo "$output"
		exit 3
		;;
	*)
		# Anything but trouble with the database is trouble with the code.
		case $output in
		*"fetching vulnerabilities"* | *"$database"*) ;;
		*)
			echo "$output"
			exit "$status"
			;;
		esac
		echo "$output" >&2
		echo >&2
		echo "!!! VULNERABILITIES WERE NOT CHECKED: $database could not be consulted." >&2
		echo "!!! Set GOVULNDB to a mirror or a copy of it." >&2
		if [ -n "${CI:-}" ] && [ "${VULNDB_OFFLINE_OK:-}" != 1 ]; then
			echo "!!! In CI that fails; VULNDB_OFFLINE_OK=1 accepts it." >&2
			exit 1
		fi
		exit 0
		;;
	esac
done
