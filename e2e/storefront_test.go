package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// heard is what a sample upstream says that it received.
type heard struct {
	Service string            `json:"service"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"`
}

// The storefront asks an edge for the usual things, all at once, in no more lines than it claims.
func TestStorefront(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../examples/storefront/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(text), "\n"); lines > 33 {
		t.Errorf("the policy has %d lines, want at most 33", lines)
	}
	dir, port := example(t, "storefront")
	p := newPlane(t, dir)
	p.child = start(t, binary, p.args("run")...)
	p.says(0, "ready:")
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	host := []string{"Host", "api.example.com"}
	bearer := func(sub string) []string { return append(host, "Authorization", "Bearer "+token(t, sub)) }

	if a := mustRequest(t, "GET", base+"/v1/orders"); a.status != http.StatusNotFound {
		t.Errorf("another host: got %d, want 404", a.status)
	}
	if a := mustRequest(t, "GET", base+"/v1/orders", host...); a.status != http.StatusUnauthorized {
		t.Errorf("without a token: got %d, want 401", a.status)
	}
	served := map[string]int{}
	alice := bearer("alice")
	for range 100 {
		a := mustRequest(t, "GET", base+"/v1/orders/7", alice...)
		var got heard
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != http.StatusOK {
			t.Fatalf("got %d %s (%v), want 200", a.status, a.body, err)
		}
		if got.Path != "/orders/7" || got.Headers["x-gateway"] != "edge" {
			t.Fatalf("the upstream got %+v, want the path /orders/7 and x-gateway: edge", got)
		}
		if service := a.header.Get("X-Service"); service != "" {
			t.Fatalf("x-service: %s reached the client", service)
		}
		served[got.Service]++
	}
	// 100 draws at 10 %: less than one run in a million is outside 1 to 29.
	if v2 := served["orders-v2"]; v2 < 1 || v2 > 29 || served["orders-v1"]+v2 != 100 {
		t.Errorf("got %v of 100, want about 90 orders-v1 and 10 orders-v2", served)
	}
	eventually(t, "a minute of alice is used up", func() error {
		a, err := request("GET", base+"/v1/orders/7", alice...)
		if err == nil && a.status != http.StatusTooManyRequests {
			err = fmt.Errorf("status %d", a.status) // a new minute began on the way
		}
		return err
	})
	if a := mustRequest(t, "GET", base+"/v1/orders/7", bearer("bob")...); a.status != http.StatusOK {
		t.Errorf("bob beside alice: got %d, want 200", a.status)
	}
	preflight := append(host, "Origin", "https://app.example.com", "Access-Control-Request-Method", "POST")
	a := mustRequest(t, "OPTIONS", base+"/v1/orders", preflight...)
	if a.status != http.StatusOK || a.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
		t.Errorf("the preflight: got %d %v, want 200 with allow-origin", a.status, a.header)
	}
}
