package golden

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Backend runs a server until the test ends, and returns its address for a policy's endpoints.
func Backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// Received is what a backend got.
type Received struct {
	Path   string // as on the wire, with the query
	Host   string
	Header http.Header
}

// Echo answers with what it received, as JSON.
func Echo(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode(Received{r.RequestURI, r.Host, r.Header})
}

// Received reads the answer of an [Echo].
func (a Answer) Received(t *testing.T) Received {
	t.Helper()
	var r Received
	if err := json.Unmarshal([]byte(a.Body), &r); err != nil {
		t.Fatalf("status %d, body %q: %v", a.Status, a.Body, err)
	}
	return r
}
