#!/bin/sh
# Makes throwaway certificates for this example below a directory: an authority and, signed by it, one for each name.
#   sh examples/mesh/certificates.sh DIRECTORY [NAME...]
# Run again it renews those of the names and keeps the authority. For anything real, take an authority that you trust.
set -eu
dir=${1:?name the directory of the secrets}/mesh
shift
[ $# -gt 0 ] || set -- edge orders payments
umask 077
mkdir -p "$dir"
key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt; }

if [ ! -f "$dir/ca.crt" ]; then
  key >"$dir/authority.key"
  openssl req -x509 -new -key "$dir/authority.key" -subj '/CN=mesh' -days 365 -out "$dir/ca.crt"
fi
for name in "$@"; do
  key >"$dir/$name.key.next"
  openssl req -new -key "$dir/$name.key.next" -subj "/CN=$name" |
    openssl x509 -req -CA "$dir/ca.crt" -CAkey "$dir/authority.key" -CAcreateserial -days 90 -out "$dir/$name.crt.next" \
      -extfile /dev/fd/3 3<<EXT 2>/dev/null
subjectAltName=DNS:$name,URI:spiffe://example.com/gateway/$name
extendedKeyUsage=serverAuth,clientAuth
EXT
  mv "$dir/$name.key.next" "$dir/$name.key"
  mv "$dir/$name.crt.next" "$dir/$name.crt"
done
