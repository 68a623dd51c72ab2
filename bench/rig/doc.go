// Package rig starts what is measured as processes of their own: legation, redis-server, Envoy, and anything else. bench
// and soak call it.
//
// All of it listens on loopback and lies below one temporary directory; [Rig.Close] ends and removes it. What a process
// used is read from /proc, so the processor time of a service is known apart from that of whoever asks it.
package rig
