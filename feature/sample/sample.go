// Package sample is the key sample: a service whose endpoints `legation run` answers itself, with a small upstream that
// tells what it received. app starts it; Envoy knows nothing of it.
package sample

import (
	_ "embed"
	"net/netip"

	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key sample.
var Kind = policy.Define[Sample]("sample", policy.InService, doc).ForApp()

// Sample is what stands under sample: true or false.
type Sample bool

// Enabled tells whether the service is a sample.
func (s *Sample) Enabled() bool { return bool(*s) }

// Check holds samples to this machine: they answer anyone, without a question.
func (s *Sample) Check(c *policy.Check) {
	service := entry(c)
	if !s.Enabled() {
		return
	}
	if service.DNS != nil {
		c.Errorf("", "a sample needs endpoints on loopback, not a host name").Hintf("write endpoints: [\"127.0.0.1:9001\"]")
	}
	for _, e := range service.Endpoints {
		if a, err := netip.ParseAddr(e.Host); err == nil && !a.IsLoopback() {
			p := c.Errorf("", "a sample answers on loopback only, and %s is not there", e.Host).
				Hintf("write 127.0.0.1:%d, or leave sample out", e.Port)
			p.Also = append(p.Also, e.Pos)
		}
	}
}

// entry is the service that the setting stands in; the app behind its sidecar where it has one.
func entry(c *policy.Check) *policy.Service {
	if app := c.App(); app != nil {
		return app
	}
	return c.Service()
}
