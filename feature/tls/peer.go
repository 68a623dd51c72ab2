package tls

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"github.com/legation/legation/envoy"
)

// peerHeader tells who the client is by its certificate. What clients send under this name is removed on every listener,
// so that it is believed.
const peerHeader = "x-legation-peer"

// peer is the first URI that the certificate is for, else the first DNS name, else the subject, as a CEL expression. None
// of the three can look like another: a URI has a scheme, a DNS name neither a colon nor an equals sign, and a subject has
// an equals sign before any colon. What no authority should have signed, such as line ends, is no name at all. Without a
// certificate there is none of them, and no header.
const peer = `has(connection.uri_san_peer_certificate) ? ` +
	`(connection.uri_san_peer_certificate.matches('^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$') ? connection.uri_san_peer_certificate : '') : ` +
	`has(connection.dns_san_peer_certificate) ? ` +
	`(connection.dns_san_peer_certificate.matches('^[A-Za-z0-9*._-]+$') ? connection.dns_san_peer_certificate : '') : ` +
	`connection.subject_peer_certificate.matches('^[ -~]+$') ? connection.subject_peer_certificate : ''`

// peerMutation sets the header before routing. Without a certificate, or a name in it, there is none.
func peerMutation() *corev3.TypedExtensionConfig {
	return envoy.Extension("legation.peer", &earlyv3.HeaderMutation{Mutations: []*mutationv3.HeaderMutation{{
		Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: peerHeader, Value: "%CEL(" + peer + ")%"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
	}}})
}
