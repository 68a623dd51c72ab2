// Package callout serves unary gRPC methods that Envoy asks for each request, such as rate limits and auth, at a
// fraction of what grpc-go takes: one goroutine for each connection reads what has come, has it answered in place and
// writes all answers at once. app puts it before a grpc-go server, which serves everything else on the same port.
package callout

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
)

// Call is one call of a method.
type Call struct {
	Message  []byte     // the request's message, uncompressed; valid until the Method returns
	Deadline time.Time  // by the client's grpc-timeout; zero when it set none
	Reply    []byte     // the Method appends the answer's message
	Code     codes.Code // of the answer; OK with a Reply
	Text     string     // what the client is told when Code isn't OK

	// Later is set by a Method that has to wait for others, such as the network, instead of an answer. It is called in a
	// goroutine of its own, while the connection's other calls go on, and the connection sends its answer when it comes. It
	// may not use Message. ctx ends with the Deadline, when the client gives the call up, and when the connection ends: then
	// it has to return soon. With as many calls waiting as may, the client is told UNAVAILABLE instead.
	Later func(ctx context.Context) Answer
}

// Answer is what a call that waited is answered.
type Answer struct {
	Reply []byte     // the answer's message
	Code  codes.Code // OK with a Reply
	Text  string     // what the client is told when Code isn't OK
}

// Finish waits for the answer of a call whose Method has set Later; without it there is nothing to wait for. It is for who
// calls a Method without a [Server].
func (c *Call) Finish(ctx context.Context) {
	if later := c.Later; later != nil {
		c.Later = nil
		a := later(ctx)
		c.Reply, c.Code, c.Text = append(c.Reply[:0], a.Reply...), a.Code, a.Text
	}
}

// Method answers calls of one method: all that a connection brought in one turn. Each is answered when it returns, but for
// those that are answered [Call.Later]: a Method that waits holds up all of its connection. Many connections call it at once.
type Method func(calls []*Call)
