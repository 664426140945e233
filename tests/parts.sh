#!/bin/sh
# Parts of the system the tests need. Installed where this is root on Debian, else named.
set -eu
cd "$(dirname "$0")/.."

missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
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

# A Next.js application around a route of gptimage2.ai's document, built once for all addresses: that of the
# API comes from the environment, and nothing else of the route is changed.
app=tests/journeys/next
route=app/api/render/route.ts
if ! cat $app/package-lock.json $app/next.config.mjs $app/$route | cmp -s - .tools/next/built; then
    echo "building: the application in $app"
    rm -rf .tools/next
    mkdir -p ".tools/next/${route%/*}"
    cp $app/package.json $app/package-lock.json $app/next.config.mjs .tools/next/
    sed 's#"https://gptimage2\.ai/\([^"]*\)"#`${process.env.SAFELIGHT_URL}/\1`#' $app/$route >.tools/next/$route
    (
        cd .tools/next
        npm ci --ignore-scripts --no-audit --no-fund &&
            NEXT_TELEMETRY_DISABLED=1 node_modules/.bin/next build
    ) >.tools/next/log 2>&1 || {
        cat .tools/next/log >&2
        exit 1
    }
    cat $app/package-lock.json $app/next.config.mjs $app/$route >.tools/next/built
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

# What reads the OpenAPI document and makes clients of it, as tests/clients pins it: by npm, pip and Go.
clients=tests/clients
if ! cat $clients/package-lock.json $clients/requirements.txt $clients/go/go.sum | cmp -s - .tools/clients/built; then
    echo "installing: what tests/clients names"
    rm -rf .tools/clients
    mkdir -p .tools/clients
    cp $clients/package.json $clients/package-lock.json .tools/clients/
    {
        npm ci --prefix .tools/clients --ignore-scripts --no-audit --no-fund &&
            .tools/bin/uv venv --quiet --python .venv/bin/python .tools/clients/python &&
            .tools/bin/uv pip install --quiet --python .tools/clients/python/bin/python -r $clients/requirements.txt &&
            (
                cd $clients/go &&
                    export GOFLAGS= &&
                    go mod download &&
                    go build -o ../../../.tools/clients/oapi-codegen github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen
            )
    } >.tools/clients/log 2>&1 || {
        cat .tools/clients/log >&2
        exit 1
    }
    cat $clients/package-lock.json $clients/requirements.txt $clients/go/go.sum >.tools/clients/built
fi
