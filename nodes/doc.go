// Package nodes tells which groups an Envoy may join, by its client certificate or by a bearer token, as the nodes file
// says. app asks it for the xDS port, and hands its answers to xds. The file is a setting of the process and no part of the
// policy: who may write policy could else let an Envoy into any group.
package nodes
