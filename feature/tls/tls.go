// Package tls tells how TLS ends at a listener and with whom, and how a service is spoken to over TLS: the key tls, in
// both places. [envoy.Translate] calls it.
package tls

import (
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// Version is a version of TLS. Those before 1.2 are broken, and not to be had.
type Version string

// Values are the versions.
func (Version) Values() []string { return []string{"1.2", "1.3"} }

// envoy is the version in Envoy's words, which are unset where none is written.
func (v *Version) envoy() tlsv3.TlsParameters_TlsProtocol {
	switch {
	case v == nil:
		return tlsv3.TlsParameters_TLS_AUTO
	case *v == "1.3":
		return tlsv3.TlsParameters_TLSv1_3
	default:
		return tlsv3.TlsParameters_TLSv1_2
	}
}

// Cipher is a cipher of TLS 1.2 that Envoy takes, by OpenSSL's name.
type Cipher string

// The ciphers with forward secrecy and authenticated encryption are those that a listener offers by itself.
var (
	goodCiphers = []string{
		"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
		"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
		"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
	}
	weakCiphers = []string{
		"ECDHE-ECDSA-AES128-SHA256", "ECDHE-RSA-AES128-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA",
		"ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA",
		"AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA",
	}
)

// Values are the ciphers.
func (Cipher) Values() []string { return append(append([]string{}, goodCiphers...), weakCiphers...) }

// Curve is a group that keys are agreed in.
type Curve string

// Values are the groups that Envoy takes; the first one is safe from quantum computers, too.
func (Curve) Values() []string {
	return []string{"X25519MLKEM768", "X25519", "P-256", "P-384", "P-521"}
}

func texts[T ~string](list []T) []string {
	var all []string
	for _, one := range list {
		all = append(all, string(one))
	}
	return all
}
