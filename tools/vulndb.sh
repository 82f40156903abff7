#!/bin/sh
# Makes a copy of the Go vulnerability database, for where vuln.go.dev can't be
# reached but Go modules can: its source is one, golang.org/x/vulndb, and so is the
# program that makes the database from it.
#
#   tools/vulndb.sh <directory>
#
# Prints the directory that holds the newest copy, for govulncheck's
# -db file://<directory>; makes it there unless it is there.
set -eu

mkdir -p "$1"
copies=$(cd "$1" && pwd)
work=$(mktemp -d "$copies/.new.XXXXXX") # beside the copy, which a rename completes
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT

cd "$work"
unset $(git rev-parse --local-env-vars) # a hook's would be the project's repository
go mod init vulndb >/dev/null 2>&1
version=$(go list -m -f '{{.Version}}' golang.org/x/vulndb@latest)
copy=$copies/$version
if [ ! -e "$copy/index/db.json" ]; then
	echo "making a copy of the vulnerability database $version" >&2
	go get "golang.org/x/vulndb/cmd/gendb@$version" >/dev/null 2>&1 || {
		echo "golang.org/x/vulndb $version can't be had" >&2
		exit 1
	}
	# It reads the reports from a commit.
	mkdir repo
	cp -r "$(go list -m -f '{{.Dir}}' golang.org/x/vulndb)/data" repo/
	chmod -R u+w repo
	git -C repo init -q
	git -C repo add -Af
	git -C repo -c user.name=copy -c user.email=copy@localhost -c commit.gpgsign=false -c core.hooksPath=/dev/null \
		commit -qm "$version"
	go run golang.org/x/vulndb/cmd/gendb -repo repo -out out >&2
	rm -rf "$copy"
	mv out "$copy"
fi
echo "$copy"
