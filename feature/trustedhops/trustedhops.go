// Package trustedhops tells how many proxies stand in front of a listener, which say who the client is: the key
// trustedHops. [envoy.Translate] calls it.
package trustedhops

import (
	_ "embed"
	"slices"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key trustedHops.
var Kind = policy.Define[Setting]("trustedHops", policy.InGateway|policy.InListener, doc)

// Setting is the number of proxies that a request has passed before it comes here. 0 makes the peer the client.
type Setting uint32

// most is more proxies than anybody has; a larger number is likely a slip, and would trust what clients write.
const most = 10

// PolicySchema describes the number.
func (*Setting) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"type": "integer", "minimum": 0, "maximum": most}
}

// Check bounds the number, and holds it to listeners that know headers.
func (s *Setting) Check(c *policy.Check) {
	if *s > most {
		c.Errorf("", "want 0 to %d proxies, got %d", most, *s).Hintf("count those that every request passes, of which each adds to x-forwarded-for")
	}
	listeners := c.Listeners()
	if len(listeners) == 0 || slices.ContainsFunc(listeners, (*policy.Listener).HTTP) {
		return
	}
	c.Errorf("", "proxies tell the client's address in a header, and a listener of %s knows of no headers", listeners[0].Protocol).
		Hintf("leave it out; proxyProtocol tells the address of a connection")
}

// HTTP has Envoy take the client's address from x-forwarded-for, counted from its right end.
func (s *Setting) HTTP(c envoy.ListenerContext) *hcmv3.HttpConnectionManager {
	if nearest, ok := policy.Find[*Setting](c.Listener.Settings); ok && nearest != s {
		return nil // else a listener could not go back to 0
	}
	return &hcmv3.HttpConnectionManager{XffNumTrustedHops: uint32(*s)}
}
