#!/bin/sh
# Parts of the system the tests need. Installed where this is root on Debian, else named.
set -eu
cd "$(dirname "$0")/.."

missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing:$missing"
        apt-get update -qq
        # shellcheck disable=SC2086 # words on purpose
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        echo "The tests need:$missing. Install with:" >&2
        echo "    sudo apt-get install$missing" >&2
        exit 1
    fi
fi

# What the tests need of npm, as tests/node pins it.
if ! cmp -s tests/node/package-lock.json .tools/node/package-lock.json; then
    if ! command -v npm >/dev/null 2>&1; then
        echo "The tests need Node 20 or later with npm: https://nodejs.org/en/download" >&2
        exit 1
    fi
    echo "installing: what tests/node/package.json names"
    mkdir -p .tools/node
    cp tests/node/package.json .tools/node/
    cp tests/node/package-lock.json .tools/node/package-lock.json
    npm ci --prefix .tools/node --silent --ignore-scripts --no-audit --no-fund || {
        rm -f .tools/node/package-lock.json
        exit 1
    }
fi

# A real S3 server, built from its pinned source; Go's own checksum database holds it to what was published.
version="$(sed -n 's/^VERSION: Final = "\(.*\)"$/\1/p' tests/fakes/storage.py)"
server=".tools/versitygw-$version"
if [ ! -x "$server" ]; then
    if ! command -v go >/dev/null 2>&1; then
        echo "The tests need Go 1.21 or later, to build versitygw, the S3 server they keep images in:" >&2
        echo "    https://go.dev/doc/install" >&2
        exit 1
    fi
    echo "building: versitygw $version (two minutes, once)"
    mkdir -p .tools/go
    GOBIN="$PWD/.tools/go" GOFLAGS= go install "github.com/versity/versitygw/cmd/versitygw@$version" 2>.tools/go/log || {
        cat .tools/go/log >&2
        exit 1
    }
    mv .tools/go/versitygw "$server"
    rm -r .tools/go
fi
echo "object storage: versitygw $version"
