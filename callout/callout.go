// Package callout serves unary gRPC methods that Envoy asks for each request, such as rate limits and auth, at a
// fraction of what grpc-go takes: one goroutine for each connection reads what has come, has it answered in place and
// writes all answers at once. app puts it before a grpc-go server, which serves everything else on the same port.
package callout

import (
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
}

// Method answers calls of one method: all that a connection brought in one turn. Each is answered when it returns. Many
// connections call it at once.
type Method func(calls []*Call)
