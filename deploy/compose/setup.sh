#!/bin/sh
# What docker-compose.yml's `setup` does before everything else, once; a second time it changes nothing. The commands are
# those that an operator types. Each folder here is a volume of one service, and is given to that service's user alone.
set -eu
umask 077
qanat=65532:65532 prometheus=65534:65534

# Written beside its place, then renamed: what is there is whole. A later step begins anew if it was cut off here.
put() { # FILE OWNER:GROUP, the content from standard input
    cat > "$1.new"
    chown "$2" "$1.new"
    mv "$1.new" "$1"
}

chown "$qanat" /etc/qanat /var/lib/qanat-relay /run/join
chown "$prometheus" /run/sender

# The ingress' certificate. Senders out there trust a public CA; Prometheus in here is given this one.
if [ ! -e /run/sender/ca.pem ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -subj /CN=relay \
        -addext subjectAltName=DNS:relay,DNS:localhost -keyout /tmp/ingress.key -out /tmp/ingress.pem 2> /tmp/openssl.log \
        || { cat /tmp/openssl.log >&2; exit 1; }
    put /etc/qanat/ingress.key "$qanat" < /tmp/ingress.key
    put /etc/qanat/ingress.pem "$qanat" < /tmp/ingress.pem
    put /run/sender/ca.pem "$prometheus" < /tmp/ingress.pem
fi

# The sender's token; the relay's config holds its hash.
if [ ! -e /etc/qanat/relay.yaml ]; then
    openssl rand -hex 32 | put /run/sender/token "$prometheus"
    hash=$(cloud-relay secrets hash --generated < /run/sender/token)
    sed "s/@TOKEN_HASH@/$hash/" /setup/relay.yaml | put /etc/qanat/relay.yaml "$qanat"
fi

# The relay's own CA, and a token by which one connector joins.
cloud-relay init --if-missing --config /etc/qanat/relay.yaml
if [ ! -e /run/join/token ]; then
    token=$(cloud-relay tokens create demo/datacenter/c1 --lifetime 7d --config /etc/qanat/relay.yaml)
    echo "$token" | put /run/join/token "$qanat"
fi
echo 'setup: done'
